using System.Runtime.InteropServices;
using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>A regular file or block device opened as a disk: locked against others that do the same, its limits known. Its content is
/// never looked at.</summary>
public sealed unsafe partial class DiskFile : FileDescriptor
{
    private const int SectorSize = 512;
    private const uint StatxDioAlign = 0x2000;      // linux/stat.h, Linux 6.1
    private const int AtEmptyPath = 0x1000;
    private const int LockStep = 20;                // ms between two attempts to lock
    private static readonly IoctlRequest s_sectorSize = IoctlRequest.Io(0x12, 104, "BLKSSZGET");
    private static readonly IoctlRequest s_physicalSize = IoctlRequest.Io(0x12, 123, "BLKPBSZGET");
    private static readonly IoctlRequest s_minimumIo = IoctlRequest.Io(0x12, 120, "BLKIOMIN");
    private static readonly IoctlRequest s_optimalIo = IoctlRequest.Io(0x12, 121, "BLKIOOPT");

    /// <summary>The request of <see cref="Discard"/>, for who confines a process that makes it.</summary>
    public static IoctlRequest DiscardRequest { get; } = IoctlRequest.Io(0x12, 119, "BLKDISCARD");

    private DiskFile(int fd, string path)
        : base(fd) => Path = path;

    /// <summary>Its path, as it was given.</summary>
    public string Path { get; }

    /// <summary>Whether it is a block device.</summary>
    public bool IsBlockDevice { get; private set; }

    /// <summary>Tells it from all other files of this host: device and inode, in hexadecimal.</summary>
    public string Identity { get; private set; } = "";

    /// <summary>The unit in which it can be read and written, in bytes: 512 for files through the page cache.</summary>
    public int LogicalBlockSize { get; private set; } = SectorSize;

    /// <summary>The unit in which it is written best, in bytes; a multiple of <see cref="LogicalBlockSize"/>.</summary>
    public int PhysicalBlockSize { get; private set; } = SectorSize;

    /// <summary>The smallest transfer that is no waste, in bytes; 0 where nothing is known.</summary>
    public int MinimumTransfer { get; private set; }

    /// <summary>The transfer size that is best, in bytes; 0 where nothing is known.</summary>
    public int OptimalTransfer { get; private set; }

    /// <summary>The alignment that buffers in memory need, in bytes; 1 where they need none.</summary>
    public int MemoryAlignment { get; private set; } = 1;

    /// <summary>Whether ranges can be given back (<see cref="Discard"/>, or <see cref="AllocateMode.PunchHole"/> of a file).</summary>
    public bool CanDiscard { get; private set; }

    /// <summary>The unit in which ranges are given back, in bytes.</summary>
    public int DiscardGranularity { get; private set; } = SectorSize;

    /// <summary>Opens and locks the disk at <paramref name="path"/>: for itself alone, or with other readers if <paramref name="readOnly"/>
    /// is set.</summary>
    /// <param name="path">A regular file or a block device.</param>
    /// <param name="readOnly">It will only be read.</param>
    /// <param name="direct">Past the page cache (O_DIRECT).</param>
    /// <param name="patience">How long to wait for a lock that somebody else has, in ms. One who was killed has it until what he had
    /// begun to write is written, and the next may not begin before.</param>
    /// <exception cref="ErrnoException">It cannot be opened, or somebody else has it open.</exception>
    /// <exception cref="InvalidDataException">It is something else; the message says so.</exception>
    public static DiskFile Open(string path, bool readOnly, bool direct, int patience = 2000)
    {
        bool isBlock = IsBlock(path);
        int flags = (readOnly ? LibC.O_RDONLY : LibC.O_RDWR) | LibC.O_CLOEXEC | LibC.O_NOCTTY
            | LibC.O_NONBLOCK                                       // opening a FIFO would wait otherwise
            | (direct ? LibC.O_DIRECT : 0)
            | (isBlock && !readOnly ? LibC.O_EXCL : 0);             // a mounted device is refused
        int number;
        fixed (byte* name = NullTerminated(path))
        {
            // SAFETY: the name is null-terminated and pinned.
            number = LibC.open(name, flags);
        }
        if (number < 0)
            throw ErrnoException.FromLastError($"cannot open {path}", Advice(Errnos.Last, direct));

        var disk = new DiskFile(number, path);
        try
        {
            disk.Examine(isBlock, readOnly, direct);
            // io_uring would say EAGAIN where it should wait.
            disk.MakeBlocking();
            disk.Lock(readOnly, patience);
            return disk;
        }
        catch
        {
            disk.Dispose();
            throw;
        }
    }

    /// <summary>Its size now, in bytes.</summary>
    /// <exception cref="ErrnoException">lseek(2) failed.</exception>
    public ulong GetSize()
    {
        using HeldDescriptor held = Hold();
        long size = (long)LibC.lseek(held.Number, 0, LibC.SEEK_END);
        return size >= 0 ? (ulong)size : throw ErrnoException.FromLastError($"lseek({Path})");
    }

    /// <summary>Gives a range of a block device back (BLKDISCARD); what it reads as afterwards is the device's business.</summary>
    /// <returns>0, or the negated error number.</returns>
    public int Discard(ulong offset, ulong length)
    {
        ulong* range = stackalloc ulong[] { offset, length };
        // SAFETY: two numbers on the stack, as the request wants them.
        return Ioctl.TryCall(this, DiscardRequest, (nuint)range);
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        // An io_uring holds on to the file for a moment after it was closed, and with it to the lock. Nothing is under way any more.
        var range = new Flock { Type = (short)LibC.F_UNLCK };
        _ = SystemControl(handle, LibC.F_OFD_SETLK, &range);
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

    private static string? Advice(int errno, bool direct) => errno switch
    {
        Errnos.Einval when direct => "its file system cannot do without the page cache: leave direct off",
        Errnos.Ebusy => "it is mounted or in use",
        _ => null,
    };

    private void Examine(bool isBlock, bool readOnly, bool direct)
    {
        stat status;
        using HeldDescriptor held = Hold();
        // SAFETY: a struct on the stack, of the size the library declares.
        if (LibC.fstat(held.Number, &status) < 0)
            throw ErrnoException.FromLastError($"fstat({Path})");
        IsBlockDevice = LibC.S_ISBLK(status.st_mode);
        if (!IsBlockDevice && !LibC.S_ISREG(status.st_mode))
            throw new InvalidDataException($"{Path} is neither a file nor a block device");
        if (IsBlockDevice != isBlock)
            throw new InvalidDataException($"{Path} was replaced while it was opened");
        Identity = $"{(ulong)status.st_dev:x}-{(ulong)status.st_ino:x}";
        if (IsBlockDevice)
            ExamineDevice((ulong)status.st_rdev, readOnly, direct);
        else
            ExamineFile((int)(long)status.st_blksize, readOnly, direct);
    }

    private void ExamineFile(int blockSize, bool readOnly, bool direct)
    {
        if (direct)
        {
            // Where the kernel does not say: the page is enough for every device that there is.
            (MemoryAlignment, LogicalBlockSize) = DirectAlignment() ?? (4096, 4096);
        }
        bool isPower = System.Numerics.BitOperations.IsPow2(blockSize) && blockSize <= 1 << 20;
        PhysicalBlockSize = Math.Max(LogicalBlockSize, isPower ? Math.Min(blockSize, 4096) : SectorSize);
        DiscardGranularity = PhysicalBlockSize;
        // Behind the end there is nothing to change, but who cannot do it says so.
        CanDiscard = !readOnly && PositionedIo.Allocate(this, AllocateMode.PunchHole, (long)GetSize(), 4096) != -Errnos.Eopnotsupp;
    }

    private void ExamineDevice(ulong device, bool readOnly, bool direct)
    {
        LogicalBlockSize = Get(s_sectorSize, SectorSize);
        PhysicalBlockSize = Math.Max(LogicalBlockSize, Get(s_physicalSize, LogicalBlockSize));
        MinimumTransfer = Get(s_minimumIo, 0);
        OptimalTransfer = Get(s_optimalIo, 0);
        if (direct)
            MemoryAlignment = DirectAlignment()?.Memory ?? LogicalBlockSize;
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

    private (int Memory, int Offset)? DirectAlignment()
    {
        byte* status = stackalloc byte[256];                // struct statx
        byte empty = 0;
        // SAFETY: an empty name, and room for the structure, whose fields at these places linux/stat.h names.
        if (SystemStatx(this, &empty, AtEmptyPath, StatxDioAlign, status) < 0 || (*(uint*)status & StatxDioAlign) == 0)
            return null;
        int memory = *(int*)(status + 0x98), offset = *(int*)(status + 0x9C);
        return memory > 0 && offset >= SectorSize ? (memory, offset) : null;
    }

    // Locks of the open file and not of the process (fcntl(2), "Open file description locks"). QEMU takes the same kind, of some bytes.
    private void Lock(bool readOnly, int patience)
    {
        for (int waited = 0; ; waited += LockStep)
        {
            var range = new Flock { Type = (short)(readOnly ? LibC.F_RDLCK : LibC.F_WRLCK) };
            // SAFETY: a structure on the stack, laid out as struct flock.
            if (SystemControl(this, LibC.F_OFD_SETLK, &range) == 0)
                return;
            int errno = Marshal.GetLastPInvokeError();
            bool isTaken = errno is Errnos.Eagain or Errnos.Eacces;
            if (!isTaken || waited >= patience)
            {
                throw new ErrnoException($"cannot lock {Path}", errno, isTaken
                    ? readOnly ? "somebody else has it open to write" : "somebody else has it open; one may write, or several read it"
                    : null);
            }
            Poll.Wait([], LockStep);
        }
    }

    [LibraryImport("libc", EntryPoint = "statx", SetLastError = true)]
    private static partial int SystemStatx(FileDescriptor fd, byte* path, int flags, uint mask, byte* status);

    [LibraryImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    private static partial int SystemControl(FileDescriptor fd, int command, Flock* argument);

    // For the last call, of a handle that takes no more holders.
    [LibraryImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    private static partial int SystemControl(nint fd, int command, Flock* argument);

    /// <summary><c>struct flock</c>: from the beginning to the end, wherever that will be.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct Flock
    {
        public short Type;
        public short Whence;
        public long Start;
        public long Length;
        public int Process;
    }
}
