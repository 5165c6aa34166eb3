using Vmm.Devices.Platform;
using Vmm.Vhost.Native;

namespace Vmm.Serial;

/// <summary>A serial port whose output goes to a file; there is no input.</summary>
internal sealed class FileSerial(FileDescriptor file, string name) : ISerialBackend
{
    private readonly OutputDrain _drain = new(file, name);

    /// <inheritdoc/>
    public bool TryWrite(byte value) => _drain.TryWrite(value);

    /// <inheritdoc/>
    public void Start(Uart16550 uart) => _drain.Start(uart);

    /// <inheritdoc/>
    public void Dispose()
    {
        _drain.Dispose();
        if (_drain.HasEnded)
            file.Dispose();
    }
}
