using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>How <see cref="PositionedIo.Allocate"/> changes a range of a file (linux/falloc.h).</summary>
public enum AllocateMode
{
    /// <summary>FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE: the range reads as zeros and takes no room.</summary>
    PunchHole = 0x2 | 0x1,

    /// <summary>FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE: the range reads as zeros and keeps its room.</summary>
    ZeroRange = 0x10 | 0x1,
}

/// <summary>Reads, writes and what else is done at an offset of a file, without its position and without exceptions. An interrupted call
/// is repeated. The memory that vectors name must be mapped, or the kernel says EFAULT.</summary>
public static unsafe partial class PositionedIo
{
    private const int RwfNoWait = 8;    // linux/fs.h

    /// <summary>preadv2(2).</summary>
    /// <param name="fd">The file.</param>
    /// <param name="vectors">Where to; at most 1024.</param>
    /// <param name="offset">Where the file is read, in bytes.</param>
    /// <param name="noWait">Fail with EAGAIN where the device would have to be waited for; EOPNOTSUPP where that is not known before.</param>
    /// <returns>Bytes read, 0 at the end; less: the negated error number.</returns>
    public static long Read(FileDescriptor fd, ReadOnlySpan<IoVector> vectors, long offset, bool noWait = false)
    {
        // SAFETY: the vectors are pinned; what they name is checked by the kernel.
        fixed (IoVector* pointer = vectors)
        {
            while (true)
            {
                nint result = SystemRead(fd, pointer, vectors.Length, offset, noWait ? RwfNoWait : 0);
                if (result >= 0)
                    return result;
                int errno = Marshal.GetLastPInvokeError();
                if (errno != Errnos.Eintr)
                    return -errno;
            }
        }
    }

    /// <summary>pwritev2(2), as <see cref="Read"/>.</summary>
    public static long Write(FileDescriptor fd, ReadOnlySpan<IoVector> vectors, long offset, bool noWait = false)
    {
        // SAFETY: the vectors are pinned; what they name is checked by the kernel.
        fixed (IoVector* pointer = vectors)
        {
            while (true)
            {
                nint result = SystemWrite(fd, pointer, vectors.Length, offset, noWait ? RwfNoWait : 0);
                if (result >= 0)
                    return result;
                int errno = Marshal.GetLastPInvokeError();
                if (errno != Errnos.Eintr)
                    return -errno;
            }
        }
    }

    /// <summary>fdatasync(2).</summary>
    /// <returns>0, or the negated error number.</returns>
    public static int Sync(FileDescriptor fd)
    {
        while (SystemSync(fd) < 0)
        {
            int errno = Marshal.GetLastPInvokeError();
            if (errno != Errnos.Eintr)
                return -errno;
        }
        return 0;
    }

    /// <summary>fallocate(2).</summary>
    /// <returns>0, or the negated error number: EOPNOTSUPP where the file system cannot.</returns>
    public static int Allocate(FileDescriptor fd, AllocateMode mode, long offset, long length)
    {
        while (SystemAllocate(fd, (int)mode, offset, length) < 0)
        {
            int errno = Marshal.GetLastPInvokeError();
            if (errno != Errnos.Eintr)
                return -errno;
        }
        return 0;
    }

    [LibraryImport("libc", EntryPoint = "preadv2", SetLastError = true)]
    private static partial nint SystemRead(FileDescriptor fd, IoVector* vectors, int count, long offset, int flags);

    [LibraryImport("libc", EntryPoint = "pwritev2", SetLastError = true)]
    private static partial nint SystemWrite(FileDescriptor fd, IoVector* vectors, int count, long offset, int flags);

    [LibraryImport("libc", EntryPoint = "fdatasync", SetLastError = true)]
    private static partial int SystemSync(FileDescriptor fd);

    [LibraryImport("libc", EntryPoint = "fallocate", SetLastError = true)]
    private static partial int SystemAllocate(FileDescriptor fd, int mode, long offset, long length);
}
