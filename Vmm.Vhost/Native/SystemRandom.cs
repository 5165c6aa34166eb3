using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>The kernel's random numbers (getrandom(2)), which nobody can guess.</summary>
public static unsafe partial class SystemRandom
{
    /// <summary>64 random bits.</summary>
    /// <exception cref="ErrnoException">The system call failed.</exception>
    public static ulong NextUInt64()
    {
        ulong value;
        // SAFETY: the kernel writes to the eight bytes of a local variable. So few come all at once.
        while (GetRandom(&value, sizeof(ulong), 0) != sizeof(ulong))
        {
            int errno = Marshal.GetLastPInvokeError();
            if (errno != Errnos.Eintr)   // soon after the host's boot the call waits for entropy, and a signal may end that
                throw new ErrnoException("getrandom", errno);
        }
        return value;
    }

    [LibraryImport("libc", EntryPoint = "getrandom", SetLastError = true)]
    private static partial nint GetRandom(void* buffer, nuint length, uint flags);
}
