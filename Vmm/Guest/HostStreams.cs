using Vmm.Vhost.Native;

namespace Vmm.Guest;

/// <summary>This process's standard streams, as they are for a command in a guest.</summary>
internal sealed class HostStreams : IDisposable
{
    private readonly Terminal? _terminal;
    private readonly Terminal? _outputTerminal;     // where the command has a terminal, and the input is none
    private readonly bool _isRaw;
    // Opened now: later this process may be confined.
    private readonly FileDescriptor? _nothing;
    private readonly FileDescriptor? _ownInput, _ownOutput, _ownError;
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
        _outputTerminal = !hasTerminal || _isRaw || output is null ? null : Terminal.TryOpen(output);
        if (closesOutput)
            _nothing = FileDescriptor.Open("/dev/null", OpenMode.ReadWrite);
        (_ownInput, _ownOutput, _ownError) = (OpenOwn(input, OpenMode.ReadNonBlocking), OpenOwn(output, OpenMode.WriteNonBlocking), OpenOwn(error, OpenMode.WriteNonBlocking));
        Input = new InputStream(input, _ownInput, _terminal, _isRaw);
        Output = new OutputStream(AgentStream.Output, _ownOutput ?? output, IsFile(output), _nothing is null ? null : EndOutput);
        Error = new OutputStream(AgentStream.Error, _ownError ?? error, IsFile(error));
    }

    /// <summary>The command's input.</summary>
    public InputStream Input { get; }

    /// <summary>Its output.</summary>
    public OutputStream Output { get; }

    /// <summary>Its errors.</summary>
    public OutputStream Error { get; }

    /// <summary>Whether there is a terminal that is asked for its settings or its size, and whose settings may be changed.</summary>
    public bool HasTerminal => _terminal is not null || _outputTerminal is not null;

    /// <summary>Whether output waits to be written.</summary>
    public bool HasWork => (Output.HasWork && Output.Target is not null) || (Error.HasWork && Error.Target is not null);

    /// <summary>The end of a command whose output was lost because the host's file did not take it, or that did not get its input because that could not be read; null if none of
    /// that happened.</summary>
    public CommandEnd? Failure =>
        Output.Failure != 0 ? new CommandEnd(CommandEndKind.OutputLost, Output.Failure, "standard output")
        : Error.Failure != 0 ? new CommandEnd(CommandEndKind.OutputLost, Error.Failure, "standard error")
        : Input.Failure != 0 ? new CommandEnd(CommandEndKind.InputLost, Input.Failure, "standard input")
        : null;

    /// <summary>Rows and columns of the terminal; zeros without one.</summary>
    public (ushort Rows, ushort Columns) TerminalSize => (_terminal ?? _outputTerminal)?.Size ?? default;

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
        _ownInput?.Dispose();
        _ownOutput?.Dispose();
        _ownError?.Dispose();
    }

    // Whoever reads the output sees its end once nobody has it open.
    private void EndOutput()
    {
        StandardStream.Replace(1, _nothing!);
        _ownOutput?.Dispose();
    }

    // A terminal that has room for one byte counts as writable, and holds up whoever writes more. So does a pipe into which somebody else has written meanwhile, and a terminal or a
    // pipe that somebody else has read. By an opening of its own that never waits this process goes on, and the others that have the terminal or the pipe are not concerned. Null if it is
    // neither, or may not be opened, as after su: then it is used as it is. So is the master of a pseudo-terminal: who opens that once more gets another terminal.
    private static FileDescriptor? OpenOwn(FileDescriptor? stream, OpenMode mode)
    {
        if (stream is null || (Terminal.TryOpen(stream) is null && !FileKind.IsPipe(stream)) || TerminalMaster.Is(stream))
            return null;
        try
        {
            using HeldDescriptor held = stream.Hold();
            return FileDescriptor.Open($"/proc/self/fd/{held.Number}", mode);
        }
        catch (ErrnoException)
        {
            return null;
        }
    }

    private static bool IsFile(FileDescriptor? descriptor) => descriptor is not null && FileKind.TryGetSize(descriptor, out _, out _);
}
