using Vmm.Vhost.Native;

namespace Vmm.Guest;

/// <summary>This process's standard streams, as they are for a command in a guest.</summary>
internal sealed class HostStreams : IDisposable
{
    private readonly Terminal? _terminal;
    private readonly bool _isRaw;
    // Opened now: later this process may be confined.
    private readonly FileDescriptor? _nothing;
    private readonly FileDescriptor? _ownOutput, _ownError;
    private readonly Lock _lock = new();     // around what follows, and the terminal's settings
    private bool _isTaken;
    private bool _isSuspended;

    /// <summary>Takes what is given. Input that is null has ended; output that is null is thrown away.</summary>
    /// <param name="input">Standard input.</param>
    /// <param name="output">Standard output.</param>
    /// <param name="error">Standard error.</param>
    /// <param name="hasTerminal">Whether the command has a terminal: ours, if the input is one, becomes raw.</param>
    /// <param name="closesOutput">Whether whoever reads the output is told of its end before this process ends.</param>
    public HostStreams(FileDescriptor? input, FileDescriptor? output, FileDescriptor? error, bool hasTerminal, bool closesOutput)
    {
        _terminal = input is null ? null : Terminal.TryOpen(input);
        _isRaw = hasTerminal && _terminal is not null;
        Input = new InputStream(input, _terminal, _isRaw);
        if (closesOutput)
            _nothing = FileDescriptor.Open("/dev/null", OpenMode.ReadWrite);
        (_ownOutput, _ownError) = (OpenOwn(output), OpenOwn(error));
        Output = new OutputStream(AgentStream.Output, _ownOutput ?? output, IsFile(output), _nothing is null ? null : EndOutput);
        Error = new OutputStream(AgentStream.Error, _ownError ?? error, IsFile(error));
    }

    /// <summary>The command's input.</summary>
    public InputStream Input { get; }

    /// <summary>Its output.</summary>
    public OutputStream Output { get; }

    /// <summary>Its errors.</summary>
    public OutputStream Error { get; }

    /// <summary>Whether the input is a terminal, whose settings and size are asked for, and may be changed.</summary>
    public bool HasTerminal => _terminal is not null;

    /// <summary>Whether output waits to be written.</summary>
    public bool HasWork => (Output.HasWork && Output.Target is not null) || (Error.HasWork && Error.Target is not null);

    /// <summary>The output that was lost because the host's file did not take it, and the error number; null if none was.</summary>
    public (string Name, int Error)? Failure =>
        Output.Failure != 0 ? ("standard output", Output.Failure) : Error.Failure != 0 ? ("standard error", Error.Failure) : null;

    /// <summary>Rows and columns of the terminal; zeros without one.</summary>
    public (ushort Rows, ushort Columns) TerminalSize => _terminal?.Size ?? default;

    /// <summary>Makes the terminal raw, if the command has it and it is not raw yet. In the background that waits.</summary>
    public void TakeTerminal()
    {
        if (!_isRaw)
            return;
        lock (_lock)
        {
            if (_isTaken || _isSuspended)
                return;
            _terminal!.SetRaw(keepsOutput: false);    // the guest's terminal has worked on it
            _isTaken = true;
        }
    }

    /// <summary>Gives the terminal its settings back; from any thread.</summary>
    public void RestoreTerminal()
    {
        lock (_lock)
        {
            _terminal?.Restore();
            _isTaken = false;
        }
    }

    /// <summary>Gives the terminal its settings back, until <see cref="TerminalMayHaveChanged"/>; from any thread.</summary>
    public void SuspendTerminal()
    {
        lock (_lock)
        {
            _isSuspended = true;
            RestoreTerminal();
        }
    }

    /// <summary>Somebody may have changed the terminal: it is made raw again, when that is its turn; from any thread.</summary>
    public void TerminalMayHaveChanged()
    {
        lock (_lock)
            _isTaken = _isSuspended = false;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _nothing?.Dispose();
        _ownOutput?.Dispose();
        _ownError?.Dispose();
    }

    // Whoever reads the output sees its end once nobody has it open.
    private void EndOutput()
    {
        StandardStream.Replace(1, _nothing!);
        _ownOutput?.Dispose();
    }

    // A terminal that has room for one byte counts as writable, and holds up whoever writes more. So does a pipe into which somebody else has written meanwhile. By an opening of its own
    // that never waits this process goes on, and the others that have the terminal or the pipe are not concerned. Null if it is neither, or may not be opened, as after su: then it is
    // written as it is.
    private static FileDescriptor? OpenOwn(FileDescriptor? output)
    {
        if (output is null || (Terminal.TryOpen(output) is null && !FileKind.IsPipe(output)))
            return null;
        try
        {
            using HeldDescriptor held = output.Hold();
            return FileDescriptor.Open($"/proc/self/fd/{held.Number}", OpenMode.WriteNonBlocking);
        }
        catch (ErrnoException)
        {
            return null;
        }
    }

    private static bool IsFile(FileDescriptor? descriptor) => descriptor is not null && FileKind.TryGetSize(descriptor, out _, out _);
}
