using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native.Confinement;

/// <summary>What a process gives up for good by prctl(2).</summary>
public static partial class ProcessPrivileges
{
    private const int PrSetNoNewPrivs = 38;   // linux/prctl.h

    /// <summary>From now on no program that the calling thread, or one it starts, executes gains privileges by set-user-id bits or file
    /// capabilities (no_new_privs). Who has that may install seccomp filters and Landlock rules without being root.</summary>
    /// <exception cref="ErrnoException">prctl(2) failed.</exception>
    public static void GiveUpNewOnes()
    {
        if (Prctl(PrSetNoNewPrivs, 1, 0, 0, 0) < 0)
            throw new ErrnoException("prctl(PR_SET_NO_NEW_PRIVS)", Marshal.GetLastPInvokeError());
    }

    [LibraryImport("libc", EntryPoint = "prctl", SetLastError = true)]
    private static partial int Prctl(int option, nuint argument2, nuint argument3, nuint argument4, nuint argument5);
}
