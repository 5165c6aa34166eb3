using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native.Confinement;

/// <summary>What a thread gives up for good, for itself and for those that it starts.</summary>
public static unsafe partial class ThreadPrivileges
{
    private const int PrSetNoNewPrivs = 38;         // linux/prctl.h
    private const uint CapabilityVersion3 = 0x20080522;     // linux/capability.h
    private const int CapabilityWords = 3;          // of each of the two struct __user_cap_data_struct: effective, permitted, inheritable

    /// <summary>From now on no program that the calling thread executes gains privileges by set-user-id bits or file capabilities (no_new_privs).
    /// Who has that may install seccomp filters and Landlock rules without being root.</summary>
    /// <exception cref="ErrnoException">prctl(2) failed.</exception>
    public static void GiveUpNewOnes()
    {
        if (Prctl(PrSetNoNewPrivs, 1, 0, 0, 0) < 0)
            throw new ErrnoException("prctl(PR_SET_NO_NEW_PRIVS)", Marshal.GetLastPInvokeError());
    }

    /// <summary>Gives up all capabilities (capabilities(7)). Root is a user like others then, to whom root's files belong.</summary>
    /// <exception cref="ErrnoException">capset(2) failed.</exception>
    public static void GiveUpCapabilities()
    {
        var header = new CapabilityHeader { Version = CapabilityVersion3 };
        uint* none = stackalloc uint[2 * CapabilityWords];
        new Span<uint>(none, 2 * CapabilityWords).Clear();
        // SAFETY: on the stack, as many structures as version 3 has.
        if (CapSet(&header, none) < 0)
            throw new ErrnoException("capset", Marshal.GetLastPInvokeError());
    }

    [LibraryImport("libc", EntryPoint = "prctl", SetLastError = true)]
    private static partial int Prctl(int option, nuint argument2, nuint argument3, nuint argument4, nuint argument5);

    [LibraryImport("libc", EntryPoint = "capset", SetLastError = true)]
    private static partial int CapSet(CapabilityHeader* header, uint* data);

    // struct __user_cap_header_struct of linux/capability.h.
    private struct CapabilityHeader
    {
        public uint Version;
        public int Thread;      // 0: the calling one
    }
}
