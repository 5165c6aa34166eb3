namespace Vmm.Acpi;

/// <summary>What the ACPI tables say of a machine, beside what every machine has (see <c>AddressMap</c>).</summary>
internal sealed record AcpiConfig
{
    /// <summary>CPUs, at least 1; CPU n has APIC id n.</summary>
    public required int Cpus { get; init; }

    /// <summary>Whether there are the two 8259s and the 8254 of a PC beside the APICs. Such a machine is not hardware-reduced.</summary>
    public bool HasPcInterruptControllers { get; init; }

    /// <summary>Whether there is a serial port.</summary>
    public bool HasSerial { get; init; } = true;

    /// <summary>The virtio-mmio slots that hold a device.</summary>
    public IReadOnlyList<VirtioMmioSlot> VirtioSlots { get; init; } = [];
}
