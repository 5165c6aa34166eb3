namespace Vmm.Devices.Bus;

/// <summary>A device with registers on a bus. Calls for one device come from any vCPU thread, possibly at once:
/// a device locks what it must. Offsets and contents come from the guest; no access may throw.</summary>
public interface IBusDevice
{
    /// <summary>Fills <paramref name="data"/> (1 to 8 bytes) from the registers at <paramref name="offset"/> bytes from the device's start.</summary>
    void Read(ulong offset, Span<byte> data);

    /// <summary>Writes <paramref name="data"/> (1 to 8 bytes) to the registers at <paramref name="offset"/> bytes from the device's start.</summary>
    void Write(ulong offset, ReadOnlySpan<byte> data);

    /// <summary>Takes the device to its power-on state. No vCPU runs meanwhile.</summary>
    void Reset();
}
