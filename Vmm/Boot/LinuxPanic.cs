using Vmm.Vhost.Memory;

namespace Vmm.Boot;

/// <summary>How a Linux guest tells of a panic without a driver: by the way in which it resets (docs/adr/0008-a-panic-is-a-warm-reset.md).</summary>
internal static class LinuxPanic
{
    /// <summary>What the kernel is told, in front of the user's own words, which count where both say something: it resets at a panic (panic=-1),
    /// and then, and only then, it asks for a warm start (reboot=panic_warm; Linux 5.2, Documentation/admin-guide/kernel-parameters.txt).</summary>
    public const string Parameters = "panic=-1 reboot=panic_warm";

    private const ushort WarmStart = 0x1234;   // native_machine_emergency_restart of Linux arch/x86/kernel/reboot.c

    /// <summary>Whether <paramref name="commandLine"/> leaves a panic apart from a reboot: it asks neither for warm reboots nor for another kind of
    /// reset at a panic.</summary>
    public static bool CanBeTold(string commandLine) =>
        !KernelParameters.ListOf(commandLine, "reboot=").Any(value => value.StartsWith('w') || value.StartsWith("panic_", StringComparison.Ordinal));

    /// <summary>Whether the guest, which has just reset and was started with <see cref="Parameters"/>, did so for a panic.</summary>
    public static bool IsToldIn(GuestMemory memory) => memory.Read<ushort>(new(BootLayout.ResetFlag)) == WarmStart;
}
