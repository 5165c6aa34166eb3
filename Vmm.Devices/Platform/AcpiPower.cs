using Vmm.Devices.Bus;
using Vmm.Vhost;

namespace Vmm.Devices.Platform;

/// <summary>Power-off and reset of a hardware-reduced ACPI machine: the sleep control and status registers (ACPI 6.5 §4.8.3.7) and the
/// reset register (§4.8.3.6) that the FADT points at, one byte each. A wider access acts on consecutive registers; beyond the last
/// one it reads as all ones.</summary>
public sealed class AcpiPower(IMachineEvents events) : IBusDevice
{
    /// <summary>Offset of the sleep control register.</summary>
    public const int SleepControl = 0;

    /// <summary>Offset of the sleep status register.</summary>
    public const int SleepStatus = 1;

    /// <summary>Offset of the reset register.</summary>
    public const int ResetRegister = 2;

    /// <summary>Registers, each one byte wide.</summary>
    public const int RegisterCount = 3;

    /// <summary>The sleep type of S5, soft off: what the DSDT's <c>\_S5</c> package must hold.</summary>
    public const byte SoftOffType = 5;

    /// <summary>What written to the reset register resets the machine: the FADT's RESET_VALUE.</summary>
    public const byte ResetValue = 1;

    private const int SleepTypeShift = 2;
    private const byte SleepTypeMask = 0b111 << SleepTypeShift;
    private const byte SleepEnable = 1 << 5;   // write-only: reads 0

    private static readonly BoundedLog s_log = new("Vmm.Devices.Platform");

    private byte _sleepControl;

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        for (int i = 0; i < data.Length; i++, offset++)
        {
            data[i] = offset switch
            {
                SleepControl => _sleepControl,
                SleepStatus or ResetRegister => 0,   // WAK is never set: nothing is ever woken from sleep
                _ => 0xFF,
            };
        }
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        for (int i = 0; i < data.Length; i++, offset++)
        {
            if (offset == SleepControl)
                WriteSleepControl(data[i]);
            else if (offset == ResetRegister && data[i] == ResetValue)
                events.Raise(MachineEvent.Reset);
        }
    }

    /// <inheritdoc/>
    public void Reset() => _sleepControl = 0;

    private void WriteSleepControl(byte value)
    {
        _sleepControl = (byte)(value & SleepTypeMask);
        if ((value & SleepEnable) == 0)
            return;
        int type = _sleepControl >> SleepTypeShift;
        if (type == SoftOffType)
            events.Raise(MachineEvent.PowerOff);
        else if (s_log.IsDebugEnabled)
            s_log.Debug("the guest asked for sleep type {Type}, which the machine does not have", type);
    }
}
