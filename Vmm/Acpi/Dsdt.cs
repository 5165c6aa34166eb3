using Vmm.Devices.Platform;

namespace Vmm.Acpi;

/// <summary>The Differentiated System Description Table: every device there is, and nothing else (ACPI 6.5 §5.2.11.1).</summary>
internal static class Dsdt
{
    /// <summary>As many CPUs have a name, C000 to CFFF.</summary>
    public const int MaxCpus = 0x1000;

    private const byte ButtonPressed = 0x80;      // ACPI 6.5 §5.6.6, Table 5.138

    private const byte Revision = 2;              // since ACPI 2.0: integers have 64 bits
    private const ulong PresentEnabledShownFunctioning = 0x0F;

    /// <summary>Makes the DSDT.</summary>
    public static TableBuffer Build(AcpiConfig config)
    {
        TableBuffer dsdt = SystemDescriptionTable.Begin("DSDT", Revision);
        var aml = new AmlWriter(dsdt);
        using (aml.Scope(@"\_SB"))
        {
            for (int cpu = 0; cpu < config.Cpus; cpu++)
                AddCpu(aml, cpu);
            if (config.HasSerial)
                AddSerial(aml);
            AddRtc(aml);
            AddPvpanic(aml);
            AddPowerButton(aml);
            foreach (VirtioMmioSlot slot in config.VirtioSlots)
                AddVirtioMmio(aml, slot);
        }
        AddSoftOff(aml);
        SystemDescriptionTable.End(dsdt);
        return dsdt;
    }

    private static void AddCpu(AmlWriter aml, int cpu)
    {
        using (aml.Device($"C{cpu:X3}"))
        {
            aml.Name("_HID").String("ACPI0007");
            aml.Name("_UID").Integer((ulong)cpu);
        }
    }

    private static void AddSerial(AmlWriter aml)
    {
        using (aml.Device("COM1"))
        {
            aml.Name("_HID").EisaId("PNP0501");
            aml.Name("_UID").Integer(0);
            using (aml.Name("_CRS").ResourceTemplate())
            {
                aml.Io(AddressMap.SerialPort, (byte)Uart16550.RegisterCount);
                aml.Interrupt(AddressMap.SerialGsi);
            }
        }
    }

    private static void AddRtc(AmlWriter aml)
    {
        using (aml.Device("RTC"))
        {
            aml.Name("_HID").EisaId("PNP0B00");
            using (aml.Name("_CRS").ResourceTemplate())
                aml.Io(AddressMap.RtcPort, (byte)Rtc.PortCount);
        }
    }

    private static void AddPvpanic(AmlWriter aml)
    {
        using (aml.Device("PEVT"))
        {
            aml.Name("_HID").String("QEMU0001");
            aml.Name("_STA").Integer(PresentEnabledShownFunctioning);
            using (aml.Name("_CRS").ResourceTemplate())
                aml.Io(AddressMap.PvpanicPort, 1);
        }
    }

    // Without fixed hardware a button is a device (ACPI 6.5 §4.8.2.2.1.2), and an interrupt of the generic event device (§5.6.9) means that it was
    // pressed. There is one such interrupt only, so the method need not look which one it is.
    private static void AddPowerButton(AmlWriter aml)
    {
        using (aml.Device("PWRB"))
            aml.Name("_HID").EisaId("PNP0C0C");
        using (aml.Device("GED"))
        {
            aml.Name("_HID").String("ACPI0013");
            aml.Name("_UID").Integer(0);
            using (aml.Name("_CRS").ResourceTemplate())
                aml.Interrupt(AddressMap.PowerButtonGsi);
            using (aml.Method("_EVT", arguments: 1))
                aml.Notify(@"\_SB.PWRB", ButtonPressed);
        }
    }

    private static void AddVirtioMmio(AmlWriter aml, VirtioMmioSlot slot)
    {
        using (aml.Device($"VR{slot.Uid:X2}"))
        {
            aml.Name("_HID").String("LNRO0005");
            aml.Name("_UID").Integer(slot.Uid);
            aml.Name("_CCA").Integer(1);          // what a device writes to RAM is coherent with the CPUs' caches
            using (aml.Name("_CRS").ResourceTemplate())
            {
                aml.Memory32Fixed(checked((uint)slot.Address.Value), slot.Length);
                aml.Interrupt(slot.Gsi);
            }
        }
    }

    // The value for SLP_TYP stands first; the second is for PM1b, which a hardware-reduced machine lacks (ACPI 6.5 §7.4.2.6).
    private static void AddSoftOff(AmlWriter aml)
    {
        using (aml.Name(@"\_S5").Package(4))
        {
            aml.Integer(AcpiPower.SoftOffType);
            aml.Integer(0);
            aml.Integer(0);
            aml.Integer(0);
        }
    }
}
