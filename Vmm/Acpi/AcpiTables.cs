using Vmm.Vhost;
using Vmm.Vhost.Memory;

namespace Vmm.Acpi;

/// <summary>Tells the guest what machine it is on, by ACPI tables in its memory.</summary>
internal static class AcpiTables
{
    private const int Alignment = 16;     // the RSDP's (ACPI 6.5 §5.2.5.1); the others would be content with less

    /// <summary>Writes all tables into <paramref name="memory"/> from <see cref="AddressMap.AcpiTablesStart"/> on.</summary>
    /// <returns>The RSDP's address.</returns>
    /// <exception cref="VmmException">They do not fit: too many CPUs.</exception>
    /// <exception cref="ArgumentException">The configuration describes no machine of ours: a mistake of the caller.</exception>
    /// <exception cref="GuestMemoryException">There is no RAM for them.</exception>
    public static GuestAddress Write(GuestMemory memory, AcpiConfig config)
    {
        Check(config);
        var rsdp = new GuestAddress(AddressMap.AcpiTablesStart);
        Span<byte> area = memory.Slice(rsdp, (int)(AddressMap.AcpiTablesEnd - AddressMap.AcpiTablesStart));

        // A table is placed before those that point to it, and all after the RSDP, which has the first place.
        int next = Align.Up(Rsdp.Size, Alignment);
        GuestAddress dsdt = Place(area, ref next, Dsdt.Build(config), config);
        GuestAddress facs = default;
        if (config.HasPcInterruptControllers)
        {
            next = Align.Up(next, Facs.Alignment);
            facs = Place(area, ref next, Facs.Build(), config);
        }
        GuestAddress fadt = Place(area, ref next, Fadt.Build(config, dsdt, facs), config);
        GuestAddress madt = Place(area, ref next, Madt.Build(config), config);
        GuestAddress xsdt = Place(area, ref next, Xsdt.Build([fadt, madt]), config);
        Rsdp.Build(xsdt).Written.CopyTo(area);
        return rsdp;
    }

    private static GuestAddress Place(Span<byte> area, ref int next, TableBuffer table, AcpiConfig config)
    {
        if (next > area.Length || table.Length > area.Length - next)
            throw TooMany(config);
        table.Written.CopyTo(area[next..]);
        var address = new GuestAddress(AddressMap.AcpiTablesStart + (ulong)next);
        next = Align.Up(next + table.Length, Alignment);
        return address;
    }

    private static void Check(AcpiConfig config)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(config.Cpus, 1, nameof(config));
        if (config.Cpus > Dsdt.MaxCpus)
            throw TooMany(config);
        for (int i = 0; i < config.VirtioSlots.Count; i++)
        {
            VirtioMmioSlot slot = config.VirtioSlots[i];
            if (slot.Length == 0 || slot.Address.Value > AddressMap.HighRamStart - slot.Length
                || slot.Gsi - AddressMap.IoApicGsiBase >= AddressMap.IoApicInputs)
            {
                throw new ArgumentException($"bad virtio-mmio slot: {slot}", nameof(config));
            }
            for (int j = 0; j < i; j++)
            {
                if (config.VirtioSlots[j].Uid == slot.Uid)
                    throw new ArgumentException($"two virtio-mmio slots have UID {slot.Uid}", nameof(config));
            }
        }
    }

    private static VmmException TooMany(AcpiConfig config) =>
        new($"the ACPI tables for {config.Cpus} CPUs and {config.VirtioSlots.Count} virtio-mmio devices do not fit below 1 MiB: "
            + "give the guest fewer CPUs");
}
