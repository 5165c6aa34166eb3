using Vmm.Devices.Bus;

namespace Vmm.Devices.Platform;

/// <summary>The pvpanic device, by which a guest's kernel says that it panicked (QEMU docs/specs/pvpanic.rst): one byte, where a read
/// gives the events that are understood and a write reports them. A wider access acts on its lowest byte and reads as zeros above.</summary>
public sealed class PvPanic(IMachineEvents events) : IBusDevice
{
    private const byte Panicked = 1 << 0;
    private const byte CrashLoaded = 1 << 1;   // panicked, and a crash kernel takes over

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        data.Clear();
        if (offset == 0)
            data[0] = Panicked | CrashLoaded;
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset != 0)
            return;
        if ((data[0] & Panicked) != 0)
            events.Raise(MachineEvent.Panic);
        else if ((data[0] & CrashLoaded) != 0)
            events.Raise(MachineEvent.CrashKernel);
    }

    /// <inheritdoc/>
    public void Reset()
    {
    }
}
