using Vmm.Devices.Bus;

namespace Vmm.Devices.Platform;

/// <summary>The one thing a PC without a keyboard still uses its keyboard controller (Intel 8042) for: resetting the machine.
/// Its two ports, 0x60 and 0x64, are devices of their own,
/// because port 0x61 between them belongs to the timer's speaker gate.</summary>
/// <remarks>The status reads 0 (nothing to read, ready for a command) and data read 0, so that a probe waits for no byte that never
/// comes longer than its own timeout, and finds neither keyboard nor mouse. Accesses wider than a port act on its lowest byte.</remarks>
public sealed class I8042Reset
{
    private const byte PulseResetLine = 0xFE;

    /// <summary>Makes the controller; the reset command goes to <paramref name="events"/>.</summary>
    public I8042Reset(IMachineEvents events)
    {
        DataPort = new Port(null);
        CommandPort = new Port(events);
    }

    /// <summary>The data port: one byte, reads 0.</summary>
    public IBusDevice DataPort { get; }

    /// <summary>The status (read) and command (write) port: one byte.</summary>
    public IBusDevice CommandPort { get; }

    private sealed class Port(IMachineEvents? events) : IBusDevice
    {
        public void Read(ulong offset, Span<byte> data) => data.Clear();

        public void Write(ulong offset, ReadOnlySpan<byte> data)
        {
            if (offset == 0 && data[0] == PulseResetLine)
                events?.Raise(MachineEvent.Reset);
        }

        public void Reset()
        {
        }
    }
}
