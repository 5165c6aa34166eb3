using System.Buffers.Binary;
using Vmm.Devices.Platform;
using Vmm.Machine;
using Vmm.Vhost.Memory;

namespace Vmm.Acpi;

/// <summary>The Fixed ACPI Description Table of a hardware-reduced machine (ACPI 6.5 §5.2.9, §4.1): no SCI, no PM timer, no
/// event registers, but a register to sleep, one to reset, and where the DSDT is. What is not set here is zero: absent.</summary>
internal static class Fadt
{
    private const byte MajorVersion = 6;
    private const byte MinorVersion = 5;
    private const int Size = 276;

    private const int BootArchitectureOffset = 109;
    private const int FlagsOffset = 112;
    private const int ResetRegisterOffset = 116;
    private const int ResetValueOffset = 128;
    private const int MinorVersionOffset = 131;
    private const int DsdtOffset = 140;                 // X_DSDT; the 32-bit field stays 0, as only one of them may count
    private const int SleepControlRegisterOffset = 244;
    private const int SleepStatusRegisterOffset = 256;

    // IAPC_BOOT_ARCH (Table 5.11). Clear: legacy devices (the DSDT has them all), 8042 (so that Linux does not probe for a
    // keyboard), CMOS RTC not present (it is present).
    private const ushort VgaNotPresent = 1 << 2;

    // Flags (Table 5.10). A set button flag means: no fixed-hardware button; there is no other either.
    private const uint WriteBackInvalidate = 1 << 0;
    private const uint NoFixedPowerButton = 1 << 4;
    private const uint NoFixedSleepButton = 1 << 5;
    private const uint NoFixedRtcWake = 1 << 6;
    private const uint ResetRegisterSupported = 1 << 10;
    private const uint HardwareReducedAcpi = 1 << 20;

    private const byte SystemIoSpace = 1;
    private const byte ByteAccess = 1;

    /// <summary>Makes the FADT for a DSDT at <paramref name="dsdt"/>.</summary>
    public static TableBuffer Build(GuestAddress dsdt)
    {
        TableBuffer fadt = SystemDescriptionTable.Begin("FACP", MajorVersion);
        fadt.Zeroes(Size - fadt.Length);
        Span<byte> fields = fadt.Written;
        BinaryPrimitives.WriteUInt16LittleEndian(fields[BootArchitectureOffset..], VgaNotPresent);
        BinaryPrimitives.WriteUInt32LittleEndian(
            fields[FlagsOffset..],
            WriteBackInvalidate | NoFixedPowerButton | NoFixedSleepButton | NoFixedRtcWake
            | ResetRegisterSupported | HardwareReducedAcpi);
        WriteByteRegister(fields[ResetRegisterOffset..], AddressMap.ResetPort);
        fields[ResetValueOffset] = AcpiPower.ResetValue;
        fields[MinorVersionOffset] = MinorVersion;
        BinaryPrimitives.WriteUInt64LittleEndian(fields[DsdtOffset..], dsdt.Value);
        WriteByteRegister(fields[SleepControlRegisterOffset..], AddressMap.SleepControlPort);
        WriteByteRegister(fields[SleepStatusRegisterOffset..], AddressMap.SleepStatusPort);
        SystemDescriptionTable.End(fadt);
        return fadt;
    }

    /// <summary>Writes the Generic Address Structure, 12 bytes, of a register of 8 bits at <paramref name="port"/> (ACPI 6.5 §5.2.3.2).</summary>
    private static void WriteByteRegister(Span<byte> structure, ushort port)
    {
        structure[0] = SystemIoSpace;
        structure[1] = 8;               // width in bits
        structure[2] = 0;               // first bit
        structure[3] = ByteAccess;
        BinaryPrimitives.WriteUInt64LittleEndian(structure[4..], port);
    }
}
