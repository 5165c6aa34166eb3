
namespace Vmm.Acpi;

/// <summary>The Multiple APIC Description Table: the CPUs and the interrupt controllers (ACPI 6.5 §5.2.12).</summary>
internal static class Madt
{
    private const byte Revision = 6;

    private const uint PcatCompatible = 1 << 0;

    private const byte LocalApicType = 0;
    private const byte IoApicType = 1;
    private const byte SourceOverrideType = 2;
    private const byte LocalApicNmiType = 4;
    private const byte LocalX2ApicType = 9;
    private const byte LocalX2ApicNmiType = 10;

    private const uint Enabled = 1 << 0;
    private const int FirstX2ApicId = 255;        // 255 addresses all CPUs in an 8-bit APIC id, so it is nobody's
    private const ushort AsTheBusHasIt = 0;       // MPS INTI flags: polarity and trigger mode
    private const ushort ActiveHighLevel = 0xD;
    private const byte NmiInput = 1;              // LINT1

    /// <summary>Makes the MADT; all CPUs are enabled, CPU n with APIC id n and processor UID n.</summary>
    public static TableBuffer Build(AcpiConfig config)
    {
        int cpus = config.Cpus;
        TableBuffer madt = SystemDescriptionTable.Begin("APIC", Revision);
        madt.DWord((uint)AddressMap.LocalApicAddress);
        madt.DWord(config.HasPcInterruptControllers ? PcatCompatible : 0);
        for (int cpu = 0; cpu < cpus; cpu++)
        {
            if (cpu < FirstX2ApicId)
                AddLocalApic(madt, (byte)cpu);
            else
                AddLocalX2Apic(madt, (uint)cpu);
        }
        AddIoApic(madt);
        if (config.HasPcInterruptControllers)
            AddSci(madt);
        AddLocalApicNmi(madt);
        if (cpus > FirstX2ApicId)
            AddLocalX2ApicNmi(madt);
        SystemDescriptionTable.End(madt);
        return madt;
    }

    private static void AddLocalApic(TableBuffer madt, byte cpu)
    {
        madt.Byte(LocalApicType);
        madt.Byte(8);
        madt.Byte(cpu);       // processor UID
        madt.Byte(cpu);       // APIC id
        madt.DWord(Enabled);
    }

    private static void AddLocalX2Apic(TableBuffer madt, uint cpu)
    {
        madt.Byte(LocalX2ApicType);
        madt.Byte(16);
        madt.Word(0);
        madt.DWord(cpu);      // x2APIC id
        madt.DWord(Enabled);
        madt.DWord(cpu);      // processor UID
    }

    private static void AddIoApic(TableBuffer madt)
    {
        madt.Byte(IoApicType);
        madt.Byte(12);
        madt.Byte(AddressMap.IoApicId);
        madt.Byte(0);
        madt.DWord((uint)AddressMap.IoApicAddress);
        madt.DWord(AddressMap.IoApicGsiBase);
    }

    // Without it a guest would take the SCI for active low, as on the PCI bus.
    private static void AddSci(TableBuffer madt)
    {
        madt.Byte(SourceOverrideType);
        madt.Byte(10);
        madt.Byte(0);         // the ISA bus
        madt.Byte((byte)AddressMap.SciGsi);
        madt.DWord(AddressMap.SciGsi);
        madt.Word(ActiveHighLevel);
    }

    private static void AddLocalApicNmi(TableBuffer madt)
    {
        madt.Byte(LocalApicNmiType);
        madt.Byte(6);
        madt.Byte(0xFF);      // of all CPUs
        madt.Word(AsTheBusHasIt);
        madt.Byte(NmiInput);
    }

    private static void AddLocalX2ApicNmi(TableBuffer madt)
    {
        madt.Byte(LocalX2ApicNmiType);
        madt.Byte(12);
        madt.Word(AsTheBusHasIt);
        madt.DWord(0xFFFF_FFFF);      // of all CPUs
        madt.Byte(NmiInput);
        madt.Zeroes(3);
    }
}
