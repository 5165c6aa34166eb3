using Vmm.Devices.Platform;
using Vmm.Vhost.Native;

namespace Vmm.Serial;

/// <summary>A serial port whose output goes to a file; there is no input.</summary>
/// <param name="file">The file.</param>
/// <param name="name">Its path.</param>
/// <param name="truncate">Whether it is emptied when the machine starts, and not before: a machine that cannot be had leaves it as it is.</param>
internal sealed class FileSerial(FileDescriptor file, string name, bool truncate) : ISerialBackend
{
    private readonly OutputDrain _drain = new(file, name);

    /// <inheritdoc/>
    public bool TryWrite(byte value) => _drain.TryWrite(value);

    /// <inheritdoc/>
    public void Start(Uart16550 uart)
    {
        try
        {
            if (truncate)
                file.Empty(name);
        }
        catch (ErrnoException e)
        {
            throw new VmmException($"--serial file={name}: {e.Message}", e);
        }
        _drain.Start(uart);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _drain.Dispose();
        if (_drain.HasEnded)
            file.Dispose();
    }
}
