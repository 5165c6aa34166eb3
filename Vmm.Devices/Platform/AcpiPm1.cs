using Vmm.Devices.Bus;
using Vmm.Vhost;

namespace Vmm.Devices.Platform;

/// <summary>The power management registers of a machine that is not hardware-reduced: PM1 status, enable and control, two bytes each
/// (ACPI 6.5 §4.8.3.1, §4.8.3.2). The machine is always in ACPI mode and has no fixed events, so its interrupt, the SCI, never comes.</summary>
/// <remarks>A wider access acts on consecutive registers; beyond the last one it reads as all ones.</remarks>
public sealed class AcpiPm1(IMachineEvents events) : IBusDevice
{
    /// <summary>Offset of the status register; the enable register follows it in the same block.</summary>
    public const int EventBlock = 0;

    /// <summary>Bytes of the status and enable registers: the FADT's PM1_EVT_LEN.</summary>
    public const int EventBlockLength = 4;

    /// <summary>Offset of the control register.</summary>
    public const int ControlBlock = EventBlock + EventBlockLength;

    /// <summary>Bytes of the control register: the FADT's PM1_CNT_LEN.</summary>
    public const int ControlBlockLength = 2;

    /// <summary>Ports: all registers.</summary>
    public const int PortCount = ControlBlock + ControlBlockLength;

    private const int EnableLow = 2;
    private const int EnableHigh = 3;
    private const int ControlLow = ControlBlock;
    private const int ControlHigh = ControlBlock + 1;

    private const byte SciEnable = 1 << 0;             // of the control register's low byte: always set, the mode is ACPI's
    private const int SleepTypeShift = 2;              // of its high byte
    private const byte SleepTypeMask = 0b111 << SleepTypeShift;
    private const byte SleepEnable = 1 << 5;           // write-only: reads 0

    private static readonly BoundedLog s_log = new("Vmm.Devices.Platform");

    private readonly byte[] _registers = new byte[PortCount];

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        for (int i = 0; i < data.Length; i++, offset++)
        {
            data[i] = offset switch
            {
                ControlLow => SciEnable,
                EnableLow or EnableHigh or ControlHigh => _registers[offset],
                < PortCount => 0,
                _ => 0xFF,
            };
        }
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        for (int i = 0; i < data.Length; i++, offset++)
        {
            if (offset is EnableLow or EnableHigh)
                _registers[offset] = data[i];
            else if (offset == ControlHigh)
                WriteControl(data[i]);
        }
    }

    /// <inheritdoc/>
    public void Reset() => Array.Clear(_registers);

    private void WriteControl(byte value)
    {
        _registers[ControlHigh] = (byte)(value & SleepTypeMask);
        if ((value & SleepEnable) == 0)
            return;
        int type = (value & SleepTypeMask) >> SleepTypeShift;
        if (type == AcpiPower.SoftOffType)
            events.Raise(MachineEvent.PowerOff);
        else if (s_log.IsDebugEnabled)
            s_log.Debug("the guest asked for sleep type {Type}, which the machine does not have", type);
    }
}
