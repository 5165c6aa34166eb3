using System.Runtime.InteropServices;
using Vmm.Vhost.Native.Confinement;

namespace Vmm.Vhost.Native.FileSystem;

/// <summary>System calls by their numbers, for those that the C library wraps in ways of its own: setfsuid(2) for one thread, statx(2), openat2(2).</summary>
internal static partial class KernelCall
{
    /// <summary>Makes a call, again and again as long as a signal interrupts it.</summary>
    /// <returns>What the kernel returns: a negated error number where it failed.</returns>
    public static long Do(SystemCallNumber call, nint first = 0, nint second = 0, nint third = 0, nint fourth = 0, nint fifth = 0, nint sixth = 0)
    {
        while (true)
        {
            nint result = SystemCall((nint)call, first, second, third, fourth, fifth, sixth);
            if (result != -1)
                return result;
            int errno = Marshal.GetLastPInvokeError();
            if (errno != Errnos.Eintr)
                return -errno;
        }
    }

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial nint SystemCall(nint number, nint first, nint second, nint third, nint fourth, nint fifth, nint sixth);
}
