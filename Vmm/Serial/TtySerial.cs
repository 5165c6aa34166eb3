using Vmm.Devices.Platform;
using Vmm.Vhost.Native;

namespace Vmm.Serial;

/// <summary>A serial port on standard input and output, or descriptors like them. If the input is a terminal it is raw meanwhile and
/// Ctrl-A is the VMM's key (<see cref="EscapeFilter"/>); anything else is passed through as it is.</summary>
internal sealed class TtySerial : ISerialBackend
{
    private readonly OutputDrain? _output;
    private readonly InputPump? _input;

    /// <summary>Connects <paramref name="input"/> and <paramref name="output"/>, which stay the caller's to close after this; either may
    /// be missing. <paramref name="quit"/> is called on Ctrl-A x, on the input thread: it must not wait for this object.</summary>
    public TtySerial(FileDescriptor? input, FileDescriptor? output, Action quit)
    {
        if (output is not null)
            _output = new OutputDrain(output, "standard output");
        if (input is not null)
            _input = new InputPump(input, new EscapeFilter(quit, PrintHelp, ProcessStop.StopJob));
    }

    /// <summary>How often the input thread was woken: a test of idleness.</summary>
    internal int InputWakes => _input?.Wakes ?? 0;

    /// <inheritdoc/>
    public bool TryWrite(byte value) => _output?.TryWrite(value) ?? true;

    /// <inheritdoc/>
    public void Start(Uart16550 uart)
    {
        _output?.Start(uart);
        _input?.Start(uart);
    }

    /// <inheritdoc/>
    public void Suspend() => _input?.RestoreTerminal();

    /// <inheritdoc/>
    public void Resume() => _input?.TakeTerminal();

    /// <inheritdoc/>
    public void Dispose()
    {
        _input?.Dispose();
        _output?.Dispose();
        _input?.RestoreTerminal();   // last, so that what the guest still says is shown as the rest was
    }

    private void PrintHelp()
    {
        foreach (byte value in EscapeFilter.HelpText)
            TryWrite(value);
    }
}
