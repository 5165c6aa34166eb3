using Vmm.Devices.Platform;

namespace Vmm.Serial;

/// <summary>A serial port that is connected to nothing.</summary>
internal sealed class NullSerial : ISerialBackend
{
    /// <inheritdoc/>
    public bool TryWrite(byte value) => true;

    /// <inheritdoc/>
    public void Start(Uart16550 uart)
    {
    }

    /// <inheritdoc/>
    public void Dispose()
    {
    }
}
