using System.Buffers.Binary;
using Vmm.Devices.Platform;
using Vmm.Vhost.Memory;

namespace Vmm.Acpi;

/// <summary>The Fixed ACPI Description Table (ACPI 6.5 §5.2.9). A machine without a PC's interrupt controllers is hardware-reduced (§4.1): no SCI, no
/// event registers, but a register to sleep. One with them is not, because Linux uses no 8259 and no 8254 on a hardware-reduced machine; it has
/// the PM1 registers and an SCI that never comes. Both have a reset register and a PM timer. What is not set here is zero: absent.</summary>
/// <remarks>A hardware-reduced machine need not have a PM timer, and the specification has a guest ignore it there. Linux uses it.</remarks>
internal static class Fadt
{
    private const byte MajorVersion = 6;
    private const byte MinorVersion = 5;
    private const int Size = 276;

    private const int SciInterruptOffset = 46;
    private const int Pm1EventBlockOffset = 56;
    private const int Pm1ControlBlockOffset = 64;
    private const int PmTimerBlockOffset = 76;
    private const int Pm1EventLengthOffset = 88;
    private const int Pm1ControlLengthOffset = 89;
    private const int PmTimerLengthOffset = 91;
    private const int C2LatencyOffset = 96;
    private const int C3LatencyOffset = 98;
    private const int BootArchitectureOffset = 109;
    private const int FlagsOffset = 112;
    private const int ResetRegisterOffset = 116;
    private const int ResetValueOffset = 128;
    private const int MinorVersionOffset = 131;
    private const int FacsOffset = 132;                 // X_FIRMWARE_CTRL; the 32-bit field stays 0, as only one of them may count
    private const int DsdtOffset = 140;                 // X_DSDT, likewise
    private const int ExtendedPm1EventBlockOffset = 148;
    private const int ExtendedPm1ControlBlockOffset = 172;
    private const int ExtendedPmTimerBlockOffset = 208;
    private const int SleepControlRegisterOffset = 244;
    private const int SleepStatusRegisterOffset = 256;

    private const ushort NoSuchState = 0xFFF;           // a latency in µs that means: the processors have no C2, no C3

    // IAPC_BOOT_ARCH (Table 5.11). Clear: legacy devices (the DSDT has them all), 8042 (so that Linux does not probe for a
    // keyboard), CMOS RTC not present (it is present).
    private const ushort VgaNotPresent = 1 << 2;

    // Flags (Table 5.10). A set button flag means: no fixed-hardware button. The power button is a device in the DSDT; there is no sleep button.
    private const uint WriteBackInvalidate = 1 << 0;
    private const uint NoFixedPowerButton = 1 << 4;
    private const uint NoFixedSleepButton = 1 << 5;
    private const uint NoFixedRtcWake = 1 << 6;
    private const uint TimerOf32Bits = 1 << 8;
    private const uint ResetRegisterSupported = 1 << 10;
    private const uint HardwareReducedAcpi = 1 << 20;

    private const byte SystemIoSpace = 1;

    /// <summary>Makes the FADT for a DSDT at <paramref name="dsdt"/>.</summary>
    /// <param name="config">The machine.</param>
    /// <param name="dsdt">Where the DSDT is.</param>
    /// <param name="facs">Where the FACS is, if the machine is not hardware-reduced.</param>
    public static TableBuffer Build(AcpiConfig config, GuestAddress dsdt, GuestAddress facs)
    {
        bool isReduced = !config.HasPcInterruptControllers;
        TableBuffer fadt = SystemDescriptionTable.Begin("FACP", MajorVersion);
        fadt.Zeroes(Size - fadt.Length);
        Span<byte> fields = fadt.Written;
        BinaryPrimitives.WriteUInt16LittleEndian(fields[BootArchitectureOffset..], VgaNotPresent);
        BinaryPrimitives.WriteUInt32LittleEndian(
            fields[FlagsOffset..],
            WriteBackInvalidate | NoFixedPowerButton | NoFixedSleepButton | NoFixedRtcWake | TimerOf32Bits
            | ResetRegisterSupported | (isReduced ? HardwareReducedAcpi : 0));
        WriteRegister(fields[ResetRegisterOffset..], AddressMap.ResetPort, size: 1);
        fields[ResetValueOffset] = AcpiPower.ResetValue;
        fields[MinorVersionOffset] = MinorVersion;
        BinaryPrimitives.WriteUInt64LittleEndian(fields[DsdtOffset..], dsdt.Value);
        BinaryPrimitives.WriteUInt32LittleEndian(fields[PmTimerBlockOffset..], AddressMap.PmTimerPort);
        fields[PmTimerLengthOffset] = AcpiPmTimer.PortCount;
        WriteRegister(fields[ExtendedPmTimerBlockOffset..], AddressMap.PmTimerPort, size: 4);
        if (isReduced)
        {
            WriteRegister(fields[SleepControlRegisterOffset..], AddressMap.SleepControlPort, size: 1);
            WriteRegister(fields[SleepStatusRegisterOffset..], AddressMap.SleepStatusPort, size: 1);
        }
        else
            WriteFixedHardware(fields, facs);
        SystemDescriptionTable.End(fadt);
        return fadt;
    }

    private static void WriteFixedHardware(Span<byte> fields, GuestAddress facs)
    {
        const ushort eventBlock = AddressMap.Pm1Port + AcpiPm1.EventBlock;
        const ushort controlBlock = AddressMap.Pm1Port + AcpiPm1.ControlBlock;
        BinaryPrimitives.WriteUInt64LittleEndian(fields[FacsOffset..], facs.Value);
        BinaryPrimitives.WriteUInt16LittleEndian(fields[SciInterruptOffset..], (ushort)AddressMap.SciGsi);
        BinaryPrimitives.WriteUInt32LittleEndian(fields[Pm1EventBlockOffset..], eventBlock);
        BinaryPrimitives.WriteUInt32LittleEndian(fields[Pm1ControlBlockOffset..], controlBlock);
        fields[Pm1EventLengthOffset] = AcpiPm1.EventBlockLength;
        fields[Pm1ControlLengthOffset] = AcpiPm1.ControlBlockLength;
        BinaryPrimitives.WriteUInt16LittleEndian(fields[C2LatencyOffset..], NoSuchState);
        BinaryPrimitives.WriteUInt16LittleEndian(fields[C3LatencyOffset..], NoSuchState);
        WriteRegister(fields[ExtendedPm1EventBlockOffset..], eventBlock, AcpiPm1.EventBlockLength, accessSize: 2);
        WriteRegister(fields[ExtendedPm1ControlBlockOffset..], controlBlock, AcpiPm1.ControlBlockLength);
    }

    /// <summary>Writes the Generic Address Structure, 12 bytes, of a register of <paramref name="size"/> bytes at <paramref name="port"/>
    /// (ACPI 6.5 §5.2.3.2), which is accessed as a whole if nothing else is said.</summary>
    private static void WriteRegister(Span<byte> structure, ushort port, int size, int accessSize = 0)
    {
        structure[0] = SystemIoSpace;
        structure[1] = (byte)(8 * size);
        structure[2] = 0;               // first bit
        structure[3] = (accessSize == 0 ? size : accessSize) switch { 1 => 1, 2 => 2, _ => 3 };   // byte, word, double word
        BinaryPrimitives.WriteUInt64LittleEndian(structure[4..], port);
    }
}
