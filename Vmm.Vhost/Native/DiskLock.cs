using System.Runtime.InteropServices;
using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>When a <see cref="DiskFile"/> is locked.</summary>
public enum DiskLocking
{
    /// <summary>While it is opened, until it is closed or <see cref="DiskFile.Unlock"/> is called.</summary>
    AtOpen,

    /// <summary>When <see cref="DiskFile.Lock"/> is called.</summary>
    Later,

    /// <summary>Never.</summary>
    Never,

    /// <summary>While it is opened, beside another process that keeps it locked (<see cref="DiskFile.Keep"/>), and claims it if it is a block
    /// device: one that starts a back-end again when it is gone, and nobody else is to have the disk meanwhile. Of the processes that it
    /// starts one has the disk at a time.</summary>
    Kept,
}

/// <summary>The lock of a disk image, as QEMU takes it (block/file-posix.c): each byte from 100 on stands for something that the holder does with the
/// image, and each byte from 200 on for something that it allows nobody else to do. Everybody takes read locks of their bytes, and looks whether
/// somebody else has the opposite ones. We and QEMU's programs respect each other by that.</summary>
/// <remarks>The locks belong to the open file and not to the process (fcntl(2), "Open file description locks").</remarks>
internal static unsafe partial class DiskLock
{
    private const int DoesBase = 100;       // RAW_LOCK_PERM_BASE
    private const int ForbidsBase = 200;    // RAW_LOCK_SHARED_BASE
    private const int KeptBase = 300;       // unknown to QEMU: the holder writes the image while another process keeps it locked
    private const int Reads = 0;            // the bit of BLK_PERM_CONSISTENT_READ
    private const int Writes = 1;           // the bit of BLK_PERM_WRITE

    /// <summary>Takes the lock: the holder reads the image, or reads and writes it, and nobody else may write it.</summary>
    /// <returns>0, <see cref="Errnos.Eagain"/> if what somebody else does or forbids is in the way, or another error number, of which
    /// <see cref="IsMissing"/> says whether there is no locking here.</returns>
    public static int TryTake(FileDescriptor file, bool readOnly)
    {
        // The first look disturbs nobody; the second one counts, because whoever came in between sees our bytes or we see theirs.
        int errno = Look(file, readOnly);
        if (errno == 0)
            errno = Set(file, LibC.F_RDLCK, DoesBase + Reads, readOnly ? 1 : 2);
        if (errno == 0)
            errno = Set(file, LibC.F_RDLCK, ForbidsBase + Writes, 1);
        if (errno == 0)
            errno = Look(file, readOnly);
        if (errno != 0)
            Release(file);
        return errno;
    }

    /// <summary>Takes the same lock while another process, the keeper, keeps the image locked. Of the processes that have it in this way only one may write.</summary>
    /// <param name="file">The image; open for writing unless <paramref name="readOnly"/>.</param>
    /// <param name="readOnly">Whether it is only read.</param>
    /// <param name="needsKeeper">Whether there must be a keeper.</param>
    /// <returns>0, <see cref="Errnos.Eagain"/> if another one writes, or nobody keeps the image locked, or another error number, as above.</returns>
    public static int TryTakeKept(FileDescriptor file, bool readOnly, bool needsKeeper)
    {
        int errno = readOnly ? 0 : Set(file, LibC.F_WRLCK, KeptBase, 1);
        if (errno == 0)
            errno = Set(file, LibC.F_RDLCK, DoesBase + Reads, readOnly ? 1 : 2);
        if (errno == 0)
            errno = Set(file, LibC.F_RDLCK, ForbidsBase + Writes, 1);
        if (errno == 0 && needsKeeper)
        {
            // Our own lock is no answer to this: there must be another one.
            int keeper = Test(file, ForbidsBase + Writes, 1);
            errno = keeper switch { Errnos.Eagain => 0, 0 => Errnos.Eagain, _ => keeper };
        }
        if (errno != 0)
            Release(file);
        return errno;
    }

    /// <summary>Whether error number <paramref name="errno"/> says that the file system or the kernel has no such locks. Others (EIO of a server that does not
    /// answer, for example) leave it open whether somebody has the lock.</summary>
    public static bool IsMissing(int errno) => errno is Errnos.Enolck or Errnos.Eopnotsupp or Errnos.Enosys or Errnos.Einval;

    /// <summary>Gives the lock up.</summary>
    public static void Release(FileDescriptor file)
    {
        Flock range = New(LibC.F_UNLCK, 0, 0);
        _ = SystemControl(file, LibC.F_OFD_SETLK, &range);
    }

    /// <summary>The same, of a descriptor that is about to be closed: the number that is in its handle.</summary>
    public static void Release(nint file)
    {
        Flock range = New(LibC.F_UNLCK, 0, 0);
        _ = SystemControl(file, LibC.F_OFD_SETLK, &range);
    }

    // Whether somebody forbids what we are about to do, or does what we forbid.
    private static int Look(FileDescriptor file, bool readOnly)
    {
        int errno = Test(file, ForbidsBase + Reads, readOnly ? 1 : 2);
        return errno == 0 ? Test(file, DoesBase + Writes, 1) : errno;
    }

    private static int Test(FileDescriptor file, long start, long length)
    {
        Flock range = New(LibC.F_WRLCK, start, length);
        // SAFETY: a structure on the stack, laid out as struct flock.
        if (SystemControl(file, LibC.F_OFD_GETLK, &range) < 0)
            return Marshal.GetLastPInvokeError();
        return range.Type == LibC.F_UNLCK ? 0 : Errnos.Eagain;
    }

    private static int Set(FileDescriptor file, int type, long start, long length)
    {
        Flock range = New(type, start, length);
        // SAFETY: a structure on the stack, laid out as struct flock.
        if (SystemControl(file, LibC.F_OFD_SETLK, &range) == 0)
            return 0;
        int errno = Marshal.GetLastPInvokeError();
        return errno == Errnos.Eacces ? Errnos.Eagain : errno;
    }

    private static Flock New(int type, long start, long length) => new() { Type = (short)type, Start = start, Length = length };

    [LibraryImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    private static partial int SystemControl(FileDescriptor fd, int command, Flock* argument);

    [LibraryImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    private static partial int SystemControl(nint fd, int command, Flock* argument);

    /// <summary><c>struct flock</c>; a length of 0 reaches to the end, wherever that will be.</summary>
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
