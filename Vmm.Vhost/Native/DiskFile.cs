using System.Numerics;
using System.Runtime.InteropServices;
using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>A regular file or block device opened as a disk: locked against others that do the same (as QEMU locks, see
/// <see cref="Lock"/>), its limits known. Its content is never looked at.</summary>
public sealed unsafe partial class DiskFile : FileDescriptor
{
    private const int SectorSize = 512;
    private const uint StatxDioAlign = 0x2000;      // linux/stat.h, Linux 6.1
    private const int AtEmptyPath = 0x1000;
    private const int DefaultPatience = 2000;       // ms
    private const int FallbackAlignment = 4096;     // enough for every device that there is, where the kernel does not say
    private const long FarBehindTheEnd = 1 << 30;   // further than somebody else grows a file to, and writes there, in a moment
    private static readonly IoctlRequest s_sectorSize = IoctlRequest.Io(0x12, 104, "BLKSSZGET");
    private static readonly IoctlRequest s_physicalSize = IoctlRequest.Io(0x12, 123, "BLKPBSZGET");
    private static readonly IoctlRequest s_minimumIo = IoctlRequest.Io(0x12, 120, "BLKIOMIN");
    private static readonly IoctlRequest s_optimalIo = IoctlRequest.Io(0x12, 121, "BLKIOOPT");

    /// <summary>The ioctl(2) request of <see cref="Discard"/>, for the list of system calls of a confined process.</summary>
    public static IoctlRequest DiscardRequest { get; } = IoctlRequest.Io(0x12, 119, "BLKDISCARD");

    private readonly bool _readOnly;
    private readonly bool _isKept;
    private bool _isLocked;

    private DiskFile(int fd, string path, bool readOnly, bool isKept)
        : base(fd)
    {
        Path = path;
        (_readOnly, _isKept) = (readOnly, isKept);
    }

    /// <summary>Its path, as it was given.</summary>
    public string Path { get; }

    /// <summary>Whether it is a block device.</summary>
    public bool IsBlockDevice { get; private set; }

    /// <summary>Tells it from all other files of this host: device and inode, in hexadecimal.</summary>
    public string Identity { get; private set; } = "";

    /// <summary>What two opened disks have in common if they are the same one: the number of a block device, whatever its node is called, or the
    /// <see cref="Identity"/> of a file.</summary>
    public string Key { get; private set; } = "";

    /// <summary>The sector size of a block device, in bytes; 512 for a file, however it was opened.</summary>
    public int LogicalBlockSize { get; private set; } = SectorSize;

    /// <summary>The unit in which it is written best, in bytes; a multiple of <see cref="LogicalBlockSize"/> and <see cref="TransferAlignment"/>.</summary>
    public int PhysicalBlockSize { get; private set; } = SectorSize;

    /// <summary>The unit of offsets and lengths that reads and writes need, in bytes, a power of two: 1 through the page cache.</summary>
    public int TransferAlignment { get; private set; } = 1;

    /// <summary>Whether the kernel said what <see cref="TransferAlignment"/> is, or showed it by refusing less. Otherwise it is a guess that is large
    /// enough, and reads and writes may go through the page cache all the same.</summary>
    public bool IsAlignmentKnown { get; private set; } = true;

    /// <summary>The same file through the page cache, for the end of a file that is no multiple of <see cref="TransferAlignment"/>; null where there
    /// is no need for it.</summary>
    public FileDescriptor? Cached { get; private set; }

    /// <summary>The smallest transfer that is no waste, in bytes; 0 where nothing is known.</summary>
    public int MinimumTransfer { get; private set; }

    /// <summary>The transfer size that is best, in bytes; 0 where nothing is known.</summary>
    public int OptimalTransfer { get; private set; }

    /// <summary>The alignment that buffers in memory need, in bytes; 1 where they need none.</summary>
    public int MemoryAlignment { get; private set; } = 1;

    /// <summary>Whether it is a file that took less room than its size when it was opened.</summary>
    public bool IsSparse { get; private set; }

    /// <summary>Whether ranges can be given back (<see cref="Discard"/>, or <see cref="AllocateMode.PunchHole"/> of a file).</summary>
    public bool CanDiscard { get; private set; }

    /// <summary>The unit in which ranges are given back, in bytes.</summary>
    public int DiscardGranularity { get; private set; } = SectorSize;

    /// <summary>Opens the disk at <paramref name="path"/>.</summary>
    /// <param name="path">A regular file or a block device.</param>
    /// <param name="readOnly">It will only be read.</param>
    /// <param name="direct">Past the page cache (O_DIRECT).</param>
    /// <param name="locking">When it is locked. A block device that is not locked while it is opened is not claimed for this process
    /// either (O_EXCL).</param>
    /// <param name="patience">How long to wait for a disk that another process has, in ms. A killed process keeps it until the kernel has
    /// written what the process had begun to write. The next process may not begin before.</param>
    /// <param name="key">The <see cref="Key"/> that it must have; null for any. Nothing is done to another disk.</param>
    /// <exception cref="ErrnoException">It cannot be opened, or somebody else has it open.</exception>
    /// <exception cref="InvalidDataException">It is something else, or not the disk of <paramref name="key"/>; the message says so.</exception>
    public static DiskFile Open(
        string path, bool readOnly, bool direct, DiskLocking locking = DiskLocking.AtOpen, int patience = DefaultPatience, string? key = null) =>
        Open(path, readOnly, opensToRead: readOnly, direct, locking, patience, key);

    /// <summary>Opens the disk at <paramref name="path"/> to keep it locked for others, which open it for themselves (<see cref="DiskLocking.Kept"/>). Nothing is read
    /// or written by this.</summary>
    /// <param name="path">A regular file or a block device.</param>
    /// <param name="readOnly">Those will only read it.</param>
    /// <param name="isLocked">Whether it is locked; if not, it only says which disk it is (<see cref="Key"/>).</param>
    /// <param name="patience">How long to wait for a disk that somebody else has, in ms.</param>
    /// <exception cref="ErrnoException">It cannot be opened, or somebody else has it open.</exception>
    /// <exception cref="InvalidDataException">It is something else; the message says so.</exception>
    public static DiskFile Keep(string path, bool readOnly, bool isLocked, int patience = DefaultPatience) =>
        Open(path, readOnly, opensToRead: true, direct: false, isLocked ? DiskLocking.AtOpen : DiskLocking.Never, patience, key: null);

    private static DiskFile Open(string path, bool readOnly, bool opensToRead, bool direct, DiskLocking locking, int patience, string? key)
    {
        long deadline = Environment.TickCount64 + patience;
        bool isBlock = IsBlock(path);
        int flags = (opensToRead ? LibC.O_RDONLY : LibC.O_RDWR) | LibC.O_CLOEXEC | LibC.O_NOCTTY
            | LibC.O_NONBLOCK                                       // opening a FIFO would wait otherwise
            | (direct ? LibC.O_DIRECT : 0)
            | (isBlock && !readOnly && locking == DiskLocking.AtOpen ? LibC.O_EXCL : 0);     // a mounted device is refused
        int number;
        while ((number = Open(path, flags)) < 0)
        {
            int errno = Errnos.Last;
            if (errno != Errnos.Ebusy || !WaitAgain(deadline))
                throw new ErrnoException($"cannot open {path}", errno, Advice(errno, direct));
        }

        var disk = new DiskFile(number, path, readOnly, isKept: locking == DiskLocking.Kept);
        try
        {
            disk.Examine(isBlock, opensToRead, direct, key);
            // io_uring would say EAGAIN where it should wait.
            disk.MakeBlocking();
            if (locking is DiskLocking.AtOpen or DiskLocking.Kept)
                disk.LockUntil(deadline);
            if (!disk.IsBlockDevice)
                disk.CanDiscard = !opensToRead && disk.CanPunchHoles();
            return disk;
        }
        catch
        {
            disk.Dispose();
            throw;
        }
    }

    /// <summary>Why the disk could not be locked though nobody else has it: the file system has no locks (ENOLCK or EOPNOTSUPP, for example).
    /// Null where it was locked, or nobody tried.</summary>
    public ErrnoException? LockFailure { get; private set; }

    /// <summary>Locks the disk as QEMU does: from now on this process reads it, or reads and writes it, and nobody else may write it. A file system without
    /// locks is no error: see <see cref="LockFailure"/>. What is locked already stays so.</summary>
    /// <param name="patience">How long to wait for the process that has the disk, in ms.</param>
    /// <exception cref="ErrnoException">Somebody else has it, or the kernel does not say whether somebody has (EIO, for example).</exception>
    public void Lock(int patience = DefaultPatience) => LockUntil(Environment.TickCount64 + patience);

    /// <summary>Undoes <see cref="Lock"/>.</summary>
    public void Unlock()
    {
        DiskLock.Release(this);
        _isLocked = false;
    }

    /// <summary>Its size now, in bytes.</summary>
    /// <exception cref="ErrnoException">lseek(2) failed.</exception>
    public ulong GetSize()
    {
        using HeldDescriptor held = Hold();
        long size = (long)LibC.lseek(held.Number, 0, LibC.SEEK_END);
        return size >= 0 ? (ulong)size : throw ErrnoException.FromLastError($"lseek({Path})");
    }

    /// <summary>The same, without an exception: less than 0 is a negated error number.</summary>
    public long TryGetSize()
    {
        using HeldDescriptor held = Hold();
        long size = (long)LibC.lseek(held.Number, 0, LibC.SEEK_END);
        return size >= 0 ? size : -Errnos.Last;
    }

    /// <summary>Gives a range of a block device back (BLKDISCARD), as far as it is whole sectors of the device; what it reads as afterwards is the device's
    /// business.</summary>
    /// <returns>0, or the negated error number.</returns>
    public int Discard(ulong offset, ulong length)
    {
        ulong sector = (ulong)LogicalBlockSize;
        ulong start = Align.Up(offset, sector), end = Align.Down(offset + length, sector);
        if (start >= end)
            return 0;
        ulong* range = stackalloc ulong[] { start, end - start };
        // SAFETY: two numbers on the stack, as the request wants them.
        return Ioctl.TryCall(this, DiscardRequest, (nuint)range);
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        Cached?.Dispose();
        // An io_uring holds on to the file for a moment after it was closed, and with it to the lock. Nothing is under way any more.
        DiskLock.Release(handle);
        return base.ReleaseHandle();
    }

    private void MakeBlocking()
    {
        using HeldDescriptor held = Hold();
        int flags = LibC.fcntl(held.Number, LibC.F_GETFL);
        if (flags < 0 || LibC.fcntl(held.Number, LibC.F_SETFL, flags & ~LibC.O_NONBLOCK) < 0)
            throw ErrnoException.FromLastError($"fcntl({Path})");
    }

    private static bool IsBlock(string path)
    {
        stat status;
        fixed (byte* name = NullTerminated(path))
        {
            // SAFETY: the name is null-terminated and pinned, the result on the stack.
            return LibC.stat(name, &status) == 0 && LibC.S_ISBLK(status.st_mode);
        }
    }

    private const string AdviceOnKind = "give a raw image or a block device";

    private static string? Advice(int errno, bool direct) => errno switch
    {
        Errnos.Einval when direct => "its file system cannot do without the page cache: leave direct off",
        Errnos.Ebusy => "it is mounted or in use",
        Errnos.Eisdir or Errnos.Enxio => AdviceOnKind,      // a directory; a socket, or a device that there is not
        Errnos.Enoent => "nothing is there, or its directory is missing: make it first, or give another",
        Errnos.Eacces or Errnos.Eperm => "this user may not open it: change its owner or its mode, or give another",
        _ => null,
    };

    private void Examine(bool isBlock, bool readOnly, bool direct, string? key)
    {
        stat status;
        using HeldDescriptor held = Hold();
        // SAFETY: a struct on the stack, of the size the library declares.
        if (LibC.fstat(held.Number, &status) < 0)
            throw ErrnoException.FromLastError($"fstat({Path})");
        IsBlockDevice = LibC.S_ISBLK(status.st_mode);
        if (!IsBlockDevice && !LibC.S_ISREG(status.st_mode))
            throw new InvalidDataException($"{Path} is neither a file nor a block device: {AdviceOnKind}");
        if (IsBlockDevice != isBlock)
            throw new InvalidDataException($"{Path} was replaced while it was opened");
        Identity = $"{(ulong)status.st_dev:x}-{(ulong)status.st_ino:x}";
        Key = IsBlockDevice ? $"device-{(ulong)status.st_rdev:x}" : Identity;
        if (key is not null && Key != key)
        {
            throw new InvalidDataException($"{Path} is another {(IsBlockDevice ? "device" : "file")} than the guest's disk: "
                + "have that path lead to the guest's disk again, and the guest goes on");
        }
        if (IsBlockDevice)
            ExamineDevice((ulong)status.st_rdev, readOnly, direct);
        else
            ExamineFile((int)(long)status.st_blksize, readOnly, direct);
        IsSparse = !IsBlockDevice && (ulong)(long)status.st_blocks * SectorSize < (ulong)(long)status.st_size;
    }

    private void ExamineFile(int blockSize, bool readOnly, bool direct)
    {
        if (direct)
            FindAlignment(SectorSize);
        if (TransferAlignment > SectorSize && !readOnly)
            Cached = OpenCached();
        bool isPower = BitOperations.IsPow2(blockSize) && blockSize <= 1 << 20;
        PhysicalBlockSize = Math.Max(TransferAlignment, isPower ? Math.Clamp(blockSize, SectorSize, 4096) : SectorSize);
        DiscardGranularity = PhysicalBlockSize;
    }

    // Behind the end there is nothing to change, but a file system that cannot make holes says so. A process with the lock may make the file larger, so this comes after our own lock; without a lock,
    // or before it, far behind the end, where a file system whose files cannot be so large says EFBIG.
    private bool CanPunchHoles() =>
        PositionedIo.Allocate(this, AllocateMode.PunchHole, (long)GetSize() + (_isLocked ? 0 : FarBehindTheEnd), 4096) is not (-Errnos.Eopnotsupp or -Errnos.Efbig);

    private void ExamineDevice(ulong device, bool readOnly, bool direct)
    {
        LogicalBlockSize = Get(s_sectorSize, SectorSize);
        if (direct)
            FindAlignment(LogicalBlockSize);
        PhysicalBlockSize = Math.Max(Math.Max(LogicalBlockSize, TransferAlignment), Get(s_physicalSize, LogicalBlockSize));
        MinimumTransfer = Get(s_minimumIo, 0);
        OptimalTransfer = Get(s_optimalIo, 0);
        ulong major = ((device >> 8) & 0xFFF) | ((device >> 32) & ~0xFFFUL);      // sys/sysmacros.h
        ulong minor = (device & 0xFF) | ((device >> 12) & ~0xFFUL);
        CanDiscard = !readOnly && QueueLimit(major, minor, "discard_max_bytes") > 0;
        DiscardGranularity = Math.Max(LogicalBlockSize, (int)Math.Min(QueueLimit(major, minor, "discard_granularity"), 1 << 30));
    }

    // A partition has no queue of its own: it is a directory below its disk's.
    private static ulong QueueLimit(ulong major, ulong minor, string name)
    {
        string device = $"/sys/dev/block/{major}:{minor}";
        foreach (string directory in (ReadOnlySpan<string>)[device, device + "/.."])
        {
            try
            {
                return ulong.TryParse(File.ReadAllText($"{directory}/queue/{name}"), out ulong value) ? value : 0;
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                // The next place, or none.
            }
        }
        return 0;
    }

    private int Get(in IoctlRequest request, int otherwise)
    {
        int value = 0;
        // SAFETY: each of these requests fills an int.
        return Ioctl.TryCall(this, request, (nuint)(&value)) >= 0 && value > 0 ? value : otherwise;
    }

    // What O_DIRECT needs: as the kernel says (statx(2), Linux 6.1, for some file systems), or as it shows by refusing less, as QEMU finds out. A file system
    // that refuses nothing (tmpfs, NFS, btrfs, a hole of others) may do so for reads only, or for now.
    private void FindAlignment(int least)
    {
        if (DirectAlignment() is (int memory, int offset))
        {
            MemoryAlignment = memory;
            TransferAlignment = Math.Max(offset, least);
            return;
        }
        MemoryAlignment = TransferAlignment = FallbackAlignment;
        IsAlignmentKnown = false;
        int unit = 1;
        while (unit < FallbackAlignment && !CanRead(unit))
            unit = Math.Max(SectorSize, 2 * unit);
        if (unit == 1)
            return;
        MemoryAlignment = TransferAlignment = Math.Max(unit, least);
        IsAlignmentKnown = true;
    }

    private bool CanRead(int unit)
    {
        using var buffer = new NativeBuffer(2 * FallbackAlignment, FallbackAlignment);
        ReadOnlySpan<IoVector> vector = [new IoVector(buffer.Address + unit, (nuint)unit)];
        return PositionedIo.Read(this, vector, unit) != -Errnos.Einval;
    }

    private (int Memory, int Offset)? DirectAlignment()
    {
        byte* status = stackalloc byte[256];                // struct statx
        byte empty = 0;
        // SAFETY: an empty name, and room for the structure, whose fields at these places linux/stat.h names.
        if (SystemStatx(this, &empty, AtEmptyPath, StatxDioAlign, status) < 0 || (*(uint*)status & StatxDioAlign) == 0)
            return null;
        int memory = *(int*)(status + 0x98), offset = *(int*)(status + 0x9C);
        bool isSane = BitOperations.IsPow2(memory) && BitOperations.IsPow2(offset) && offset >= SectorSize;
        return isSane ? (memory, offset) : null;
    }

    // By its path, because /proc need not be there; the inode says whether it is the same file.
    private FileDescriptor OpenCached()
    {
        int number = Open(Path, LibC.O_RDWR | LibC.O_CLOEXEC | LibC.O_NOCTTY | LibC.O_NONBLOCK);
        if (number < 0)
            throw ErrnoException.FromLastError($"cannot open {Path}");
        var cached = new FileDescriptor(number);
        using HeldDescriptor held = Hold();
        stat ours, theirs;
        // SAFETY: structs on the stack, of the size the library declares.
        if (LibC.fstat(held.Number, &ours) == 0 && LibC.fstat(number, &theirs) == 0
            && (ulong)ours.st_dev == (ulong)theirs.st_dev && (ulong)ours.st_ino == (ulong)theirs.st_ino)
        {
            return cached;
        }
        cached.Dispose();
        throw new InvalidDataException($"{Path} was replaced while it was opened");
    }

    private void LockUntil(long deadline)
    {
        if (_isLocked)
            return;
        while (true)
        {
            int errno = _isKept ? DiskLock.TryTakeKept(this, _readOnly, needsKeeper: !IsBlockDevice) : DiskLock.TryTake(this, _readOnly);
            if (errno == 0)
            {
                _isLocked = true;
                return;
            }
            if (errno != Errnos.Eagain && !DiskLock.IsMissing(errno))
                throw new ErrnoException($"cannot lock {Path}", errno, "whether somebody else has it open is not known; turn locking off to go without");
            if (errno != Errnos.Eagain)
            {
                LockFailure = new ErrnoException($"cannot lock {Path}", errno);
                return;
            }
            if (!WaitAgain(deadline))
            {
                throw new ErrnoException($"cannot lock {Path}", errno, _isKept
                    ? "a back-end before this one still writes it, or nobody keeps it locked: vmm run keeps the disks of the back-ends that it starts"
                    : _readOnly
                    ? "somebody else has it open to write: end that program first"
                    : "somebody else has it open; one may write, or several read it: end that program first");
            }
        }
    }

    // Waits a little, each time for another time: so two processes that are in each other's way do not meet again and again.
    private static bool WaitAgain(long deadline)
    {
        long left = deadline - Environment.TickCount64;
        if (left <= 0)
            return false;
        Poll.Wait([], (int)Math.Min(left, Random.Shared.Next(10, 30)));
        return true;
    }

    private static int Open(string path, int flags)
    {
        fixed (byte* name = NullTerminated(path))
        {
            // SAFETY: the name is null-terminated and pinned.
            return LibC.open(name, flags);
        }
    }

    [LibraryImport("libc", EntryPoint = "statx", SetLastError = true)]
    private static partial int SystemStatx(FileDescriptor fd, byte* path, int flags, uint mask, byte* status);
}
