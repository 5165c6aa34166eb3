using System.Diagnostics;
using System.Globalization;
using Vmm.Devices;
using Vmm.Vhost.Native;

namespace Vmm.Cli.Exec;

/// <summary>One variant of <c>--matrix</c>: a <c>vmm exec</c> of its own.</summary>
internal sealed class MatrixRun : IDisposable
{
    /// <summary>The option, without its dashes, by which one of <c>--matrix</c> is told its parent's id. It is killed with it.</summary>
    public const string ParentOption = "matrix-process";

    private const int KeptOutput = 256 << 10;
    private const int MaxRead = 64 << 10;       // at once, while it runs: it may write faster than it is read, and it is not the only one
    private const int MaxRest = 1 << 20;        // what the pipe of one that has ended holds at most (pipe-max-size of an ordinary user)

    private readonly ByteQueue _output = new(KeptOutput);
    private readonly IStartedProcess _process;
    private readonly Action _terminate;
    private readonly long _start = Stopwatch.GetTimestamp();

    /// <summary>Starts it.</summary>
    /// <param name="variant">Which.</param>
    /// <param name="memory">How much memory it takes, in bytes.</param>
    /// <param name="arguments">The command line of the whole, without what is only for the matrix.</param>
    /// <exception cref="ErrnoException">It cannot be started.</exception>
    public MatrixRun(MatrixVariant variant, ulong memory, IReadOnlyList<string> arguments)
    {
        (Variant, Memory) = (variant, memory);
        using FileDescriptor nothing = FileDescriptor.Open("/dev/null", OpenMode.ReadOnly);
        var process = ChildProcess.Start(OwnProgram.Path, [.. OwnProgram.Arguments, "exec", $"--only={variant.Name}", $"--{ParentOption}", $"{Environment.ProcessId}", .. arguments], nothing);
        (_process, _terminate) = (process, process.Terminate);
    }

    /// <summary>The same for a process that a test has started.</summary>
    internal MatrixRun(MatrixVariant variant, IStartedProcess process) => (Variant, _process, _terminate) = (variant, process, () => { });

    /// <summary>Which it is.</summary>
    public MatrixVariant Variant { get; }

    /// <summary>How much memory it takes, in bytes.</summary>
    public ulong Memory { get; }

    /// <summary>Its exit status; null while it runs.</summary>
    public int? Status { get; private set; }

    /// <summary>How long it took, or has taken so far.</summary>
    public TimeSpan Time { get; private set; }

    /// <summary>The end of what it has written.</summary>
    public string Output { get; private set; } = "";

    /// <summary>Readable when <see cref="Happened"/> has something to do.</summary>
    public (FileDescriptor Output, FileDescriptor Ended) Descriptors => (_process.Output, _process.Ended);

    /// <summary>Takes what it has written, and sees whether it has ended.</summary>
    public void Happened()
    {
        string? end = _process.End;     // first: what it has written before is all there then
        Span<byte> buffer = stackalloc byte[4096];
        int count;
        for (int left = end is null ? MaxRead : MaxRest; left > 0 && (count = _process.Output.TryRead(buffer)) > 0; left -= count)
            _output.AddLatest(buffer[..count]);
        if (Status is not null || end is null)
            return;
        Time = Stopwatch.GetElapsedTime(_start);
        Status = end.Split(' ') is [var kind, var text] && int.TryParse(text, CultureInfo.InvariantCulture, out int number)
            ? kind == "status" ? number : ExitCode.OfKilled(number)     // "status N" or "signal N"
            : ExitCode.ExecFailure;     // nobody knows
        Output = _output.ToText();
    }

    /// <summary>Tells it to end.</summary>
    public void Terminate() => _terminate();

    /// <inheritdoc/>
    public void Dispose() => _process.Dispose();
}
