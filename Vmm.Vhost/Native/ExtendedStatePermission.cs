using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>Permission to use state of the processor that is too large to be everybody's (Linux 6.16 Documentation/arch/x86/xstate.rst).</summary>
public static partial class ExtendedStatePermission
{
    /// <summary>The number of AMX's tiles among the processor's state components.</summary>
    public const uint TileData = 18;

    internal const long ArchPrctl = 158;             // __NR_arch_prctl on x86-64
    internal const long RequestForGuests = 0x1025;   // ARCH_REQ_XCOMP_GUEST_PERM (asm/prctl.h), Linux 5.17

    /// <summary>Asks that the virtual machines of this process may have a component, before it makes the first vCPU.</summary>
    /// <exception cref="ErrnoException">The processor has no such component, the kernel does not know the question, or it is too late.</exception>
    public static void AskForGuests(uint component)
    {
        if (Syscall(ArchPrctl, RequestForGuests, component) < 0)
            throw new ErrnoException("arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM)", Marshal.GetLastPInvokeError());
    }

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial long Syscall(long number, long code, nuint argument);
}
