using System.Text;
using Vmm.Vhost.Native;

namespace Vmm.Cli;

/// <summary>Text to standard output or standard error, one write(2) for each call.</summary>
/// <remarks>Instead of System.Console, which on first use starts a thread, takes over SIGINT, SIGCONT and SIGCHLD and the terminal's
/// settings, and sends the terminal an escape sequence. The terminal belongs to the guest.</remarks>
internal sealed class StandardWriter : TextWriter
{
    private readonly FileDescriptor? _descriptor;
    private readonly string _name;

    private StandardWriter(int number, string name)
    {
        // Not ours to close: whatever is opened next would get the number, and with it the messages.
        _descriptor = StandardStream.Of(number);
        _name = name;
    }

    /// <summary>Writes to descriptor 2. Where that is closed or full, nobody is told, and the exit status has to do.</summary>
    public static void TryTell(string text)
    {
        try
        {
            Error().Write(text);
        }
        catch (ErrnoException)
        {
            // Standard error is gone.
        }
    }

    /// <inheritdoc/>
    public override Encoding Encoding => Encoding.UTF8;

    /// <summary>Writes to descriptor 1.</summary>
    public static StandardWriter Output() => new(1, "standard output");

    /// <summary>Writes to descriptor 2.</summary>
    public static StandardWriter Error() => new(2, "standard error");

    /// <inheritdoc/>
    /// <exception cref="ErrnoException">write(2) failed, or the process was started without the stream.</exception>
    public override void Write(string? value) =>
        (_descriptor ?? throw new ErrnoException($"cannot write to {_name}", Errnos.Ebadf)).WriteAll(Encoding.UTF8.GetBytes(value ?? ""), _name);

    /// <inheritdoc/>
    public override void Write(char value) => Write(value.ToString());

    /// <inheritdoc/>
    public override void WriteLine(string? value) => Write(value + "\n");
}
