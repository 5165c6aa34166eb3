using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>ioctl(2), with errors that name the request. Interrupted calls are repeated.</summary>
/// <remarks>Declared here and not taken from Tmds.LibC, whose integer argument is 32 bits wide and sign-extended.</remarks>
public static unsafe partial class Ioctl
{
    /// <summary>Calls with an integer argument.</summary>
    /// <returns>What the ioctl returned: 0 or more.</returns>
    /// <exception cref="ErrnoException">The ioctl failed.</exception>
    public static int Call(FileDescriptor fd, in IoctlRequest request, nuint argument = 0)
    {
        int result = TryCall(fd, request, argument);
        return result >= 0 ? result : throw Failure(request, -result);
    }

    /// <summary>Calls with the address of <paramref name="argument"/>, which the kernel reads, fills or both.</summary>
    /// <returns>What the ioctl returned: 0 or more.</returns>
    /// <exception cref="ErrnoException">The ioctl failed.</exception>
    public static int Call<T>(FileDescriptor fd, in IoctlRequest request, ref T argument)
        where T : unmanaged
    {
        // SAFETY: pinned for the call; the request's size field was made from the same T.
        fixed (T* pointer = &argument)
            return Call(fd, request, (nuint)pointer);
    }

    /// <summary>Calls with the address of the first byte of <paramref name="argument"/>, for structures with a trailing array.</summary>
    /// <returns>What the ioctl returned: 0 or more.</returns>
    /// <exception cref="ErrnoException">The ioctl failed.</exception>
    public static int Call(FileDescriptor fd, in IoctlRequest request, Span<byte> argument)
    {
        // SAFETY: pinned for the call; the caller sized the span by the array's count, which the kernel honours.
        fixed (byte* pointer = argument)
            return Call(fd, request, (nuint)pointer);
    }

    /// <summary>Calls with an integer argument, without an exception.</summary>
    /// <returns>0 or more: what the ioctl returned; less: the negated error number.</returns>
    public static int TryCall(FileDescriptor fd, in IoctlRequest request, nuint argument = 0)
    {
        while (true)
        {
            int result = SystemIoctl(fd, request.Number, argument);
            if (result >= 0)
                return result;
            int errno = Marshal.GetLastPInvokeError();
            if (errno != Errnos.Eintr)
                return -errno;
        }
    }

    /// <summary>Calls once, without repeating an interrupted call and without an exception: for KVM_RUN, which a signal must be able to leave.</summary>
    /// <returns>0 or more: what the ioctl returned; less: the negated error number.</returns>
    public static int CallOnce(FileDescriptor fd, in IoctlRequest request, nuint argument = 0)
    {
        int result = SystemIoctl(fd, request.Number, argument);
        return result >= 0 ? result : -Marshal.GetLastPInvokeError();
    }

    private static ErrnoException Failure(in IoctlRequest request, int errno) => new($"ioctl({request.Name})", errno);

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    private static partial int SystemIoctl(FileDescriptor fd, nuint request, nuint argument);
}
