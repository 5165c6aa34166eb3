using Vmm.Vhost.Memory;

namespace Vmm.Boot;

/// <summary>All the firmware that the machine has: what a PC's BIOS does when real-mode code jumps to FFFF:0000. On hardware-reduced ACPI,
/// that is how Linux reboots by itself: it asks EFI first, then the BIOS, and neither the reset register nor the keyboard controller
/// (Linux arch/x86/kernel/reboot.c, reboot_init and native_machine_emergency_restart).</summary>
internal static class ResetVector
{
    private static ReadOnlySpan<byte> Code =>
    [
        0xB0, 0xFE,                                 //       mov al, 0xfe: pulse the reset line
        0xE6, (byte)AddressMap.I8042CommandPort,    //       out 0x64, al
        0xF4,                                       // wait: hlt
        0xEB, 0xFD,                                 //       jmp wait
    ];

    /// <summary>Writes it into <paramref name="memory"/> at <see cref="AddressMap.ResetVector"/>.</summary>
    /// <exception cref="GuestMemoryException">There is no RAM for it.</exception>
    public static void Write(GuestMemory memory) => Code.CopyTo(memory.Slice(new(AddressMap.ResetVector), Code.Length));
}
