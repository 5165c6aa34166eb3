using Vmm.Vhost.Memory;

namespace Vmm;

/// <summary>Where things are in the guest: guest-physical addresses, I/O ports and global system interrupts (GSIs).
/// The loader, the ACPI tables and the device wiring all take them from here.</summary>
internal static class AddressMap
{
    /// <summary>First address of the ACPI tables: RAM that the memory map does not list as usable, where a guest looks for the
    /// RSDP that nobody told it of (ACPI 6.5 §5.2.5.1).</summary>
    public const ulong AcpiTablesStart = 0xE0000;

    /// <summary>First address after the ACPI tables.</summary>
    public const ulong AcpiTablesEnd = ResetVector;

    /// <summary>Where real-mode code jumps to reset a PC: FFFF:0000, the last paragraph of the first MiB.</summary>
    public const ulong ResetVector = 0xF_FFF0;

    /// <summary>RAM ends here at the latest, at 3 GiB: what follows, up to 4 GiB, is for devices.</summary>
    public const ulong LowRamEnd = 0xC000_0000;

    /// <summary>The rest of the RAM begins here, at 4 GiB.</summary>
    public const ulong HighRamStart = 0x1_0000_0000;

    /// <summary>Registers of the first virtio-mmio slot; the others follow at <see cref="VirtioMmioSlotSize"/>.</summary>
    public const ulong VirtioMmioStart = 0xD000_0000;

    /// <summary>Bytes from one virtio-mmio slot to the next: a page each, so that a slot can be mapped by itself.</summary>
    public const uint VirtioMmioSlotSize = 0x1000;

    /// <summary>Slots for virtio-mmio devices: as many as there are I/O APIC inputs left for them (<see cref="VirtioMmioGsi"/>).</summary>
    public const int VirtioMmioSlots = 16;

    /// <summary>The interrupt of slot <paramref name="slot"/> (edge-triggered, active high, not shared): 7 for the first, then 9 to 23. On a machine
    /// with a PC's controllers Linux takes 8 for the RTC, although the machine has no such interrupt (Linux drivers/rtc/rtc-cmos.c).</summary>
    public static uint VirtioMmioGsi(int slot) => slot == 0 ? RtcGsi - 1 : RtcGsi + (uint)slot;

    /// <summary>The interrupt of a PC's RTC; here nobody raises it.</summary>
    public const uint RtcGsi = 8;

    /// <summary>Registers of the I/O APIC: where KVM's has them too.</summary>
    public const ulong IoApicAddress = 0xFEC0_0000;

    /// <summary>The I/O APIC's id, also what its ID register reads as after reset.</summary>
    public const byte IoApicId = 0;

    /// <summary>The GSI of the I/O APIC's input 0.</summary>
    public const uint IoApicGsiBase = 0;

    /// <summary>Inputs of the I/O APIC, at the most: KVM's has as many, ours ends with the last line (KVM_IOAPIC_NUM_PINS).</summary>
    public const uint IoApicInputs = 24;

    /// <summary>Registers of each CPU's own local APIC: the address after reset (IA32_APIC_BASE).</summary>
    public const ulong LocalApicAddress = 0xFEE0_0000;

    /// <summary>The page of KVM_SET_IDENTITY_MAP_ADDR: KVM's own, never RAM (Linux Documentation/virt/kvm/api.rst).</summary>
    public const ulong KvmIdentityMapAddress = 0xFFFB_C000;

    /// <summary>The three pages of KVM_SET_TSS_ADDR: KVM's own, never RAM (Linux Documentation/virt/kvm/api.rst).</summary>
    public const ulong KvmTssAddress = 0xFFFB_D000;

    /// <summary>First port of the serial line, a 16550A: COM1 of a PC.</summary>
    public const ushort SerialPort = 0x3F8;

    /// <summary>The serial line's interrupt: COM1's of a PC.</summary>
    public const uint SerialGsi = 4;

    /// <summary>The interrupt of the generic event device, by which the power button is pressed: free on a PC.</summary>
    public const uint PowerButtonGsi = 5;

    /// <summary>Index port of the CMOS RTC; it has no interrupt.</summary>
    public const ushort RtcPort = 0x70;

    /// <summary>Data port of the i8042, which is there for its reset line only; the guest is not told of it.</summary>
    public const ushort I8042DataPort = 0x60;

    /// <summary>Command and status port of the i8042.</summary>
    public const ushort I8042CommandPort = 0x64;

    /// <summary>The pvpanic port, where QEMU's machines have it (QEMU docs/specs/pvpanic.rst).</summary>
    public const ushort PvpanicPort = 0x505;

    /// <summary>SLEEP_CONTROL_REG of hardware-reduced ACPI, a byte (ACPI 6.5 §4.8.3.7).</summary>
    public const ushort SleepControlPort = 0x600;

    /// <summary>SLEEP_STATUS_REG of hardware-reduced ACPI, a byte (ACPI 6.5 §4.8.3.7).</summary>
    public const ushort SleepStatusPort = 0x601;

    /// <summary>RESET_REG, a byte (ACPI 6.5 §4.8.3.6).</summary>
    public const ushort ResetPort = 0x602;

    /// <summary>The ACPI power management timer, a double word (ACPI 6.5 §4.8.3.3).</summary>
    public const ushort PmTimerPort = 0x604;

    /// <summary>First port of the PM1 registers, on a machine with a PC's interrupt controllers (ACPI 6.5 §4.8.3.1, §4.8.3.2).</summary>
    public const ushort Pm1Port = 0x608;

    /// <summary>The interrupt of the PM1 registers, the SCI. It never comes, but Linux wants a line of its own for it.</summary>
    public const uint SciGsi = 6;

    /// <summary>Shared-memory regions of devices begin at the first multiple of this, 1 GiB, after all RAM: Linux wants theirs apart from it
    /// by sections of 128 MiB, and maps them by large pages.</summary>
    public const ulong SharedMemoryAlignment = 1 << 30;

    /// <summary>The guest-physical ranges of <paramref name="size"/> bytes of RAM, around the hole for devices below 4 GiB.</summary>
    public static (GuestAddress Start, ulong Size)[] RamRanges(ulong size) => size <= LowRamEnd
        ? [(new(0), size)]
        : [(new(0), LowRamEnd), (new(HighRamStart), size - LowRamEnd)];
}
