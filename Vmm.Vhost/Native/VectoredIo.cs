using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>Scattered reads and gathered writes at a descriptor's own position, of packets where it has those (a tap, a datagram
/// socket). The memory that vectors name must be mapped, or the kernel says EFAULT. An interrupted call is repeated.</summary>
public static unsafe partial class VectoredIo
{
    /// <summary>The most vectors in one call: IOV_MAX of linux/uio.h.</summary>
    public const int MaxVectors = 1024;

    /// <summary>readv(2).</summary>
    /// <returns>Bytes read, 0 at the end; less: the negated error number.</returns>
    public static int TryRead(FileDescriptor fd, ReadOnlySpan<IoVector> vectors)
    {
        // SAFETY: the vectors are pinned; what they name is checked by the kernel.
        fixed (IoVector* pointer = vectors)
        {
            while (true)
            {
                nint result = SystemRead(fd, pointer, vectors.Length);
                if (result >= 0)
                    return (int)result;
                int errno = Marshal.GetLastPInvokeError();
                if (errno != Errnos.Eintr)
                    return -errno;
            }
        }
    }

    /// <summary>writev(2).</summary>
    /// <returns>Bytes written; less than 0: the negated error number.</returns>
    public static int TryWrite(FileDescriptor fd, ReadOnlySpan<IoVector> vectors)
    {
        // SAFETY: the vectors are pinned; what they name is checked by the kernel.
        fixed (IoVector* pointer = vectors)
        {
            while (true)
            {
                nint result = SystemWrite(fd, pointer, vectors.Length);
                if (result >= 0)
                    return (int)result;
                int errno = Marshal.GetLastPInvokeError();
                if (errno != Errnos.Eintr)
                    return -errno;
            }
        }
    }

    /// <summary>Copies what <paramref name="vectors"/> name, which must be mapped, into <paramref name="buffer"/>.</summary>
    /// <returns>Bytes copied.</returns>
    /// <exception cref="ArgumentException">The buffer is too small.</exception>
    public static int Copy(ReadOnlySpan<IoVector> vectors, Span<byte> buffer)
    {
        int count = 0;
        foreach (IoVector vector in vectors)
        {
            // SAFETY: mapped, says the caller; the length is checked against the buffer's.
            new ReadOnlySpan<byte>((void*)vector.Address, checked((int)vector.Length)).CopyTo(buffer[count..]);
            count += (int)vector.Length;
        }
        return count;
    }

    [LibraryImport("libc", EntryPoint = "readv", SetLastError = true)]
    private static partial nint SystemRead(FileDescriptor fd, IoVector* vectors, int count);

    [LibraryImport("libc", EntryPoint = "writev", SetLastError = true)]
    private static partial nint SystemWrite(FileDescriptor fd, IoVector* vectors, int count);
}
