using CommandLine;
using Vmm.Devices.Backends;
using Vmm.Devices.Backends.Console;

namespace Vmm.Cli.Backend;

/// <summary>The options of <c>vmm backend console</c>.</summary>
[Verb("console", HelpText = "A console: hvc0 of Linux guests.")]
internal sealed class ConsoleOptions : BackendOptions
{
    [Option("path", MetaValue = "PATH|pty", HelpText = "A file that takes the output, or pty for a new pseudo-terminal, whose path is printed.")]
    public string? Path { get; set; }

    [Option("truncate", HelpText = "The file is emptied first (default: the output is added at its end).")]
    public bool Truncate { get; set; }

    /// <inheritdoc/>
    public override Func<ServedDevice> Read()
    {
        string path = RequirePath("--path", Path);
        if (path == "pty" && Truncate)
            throw new UsageException("--truncate: has no effect with --path pty: leave it out");
        if (path != "pty")
            return Opened("--path", () => new ServedDevice(ConsoleBackend.IntoFile(path, Truncate), new Confinement()));
        return () =>
        {
            ConsoleBackend console = ConsoleBackend.OnTerminal();
            return new ServedDevice(console, new Confinement { Calls = ConsoleBackend.TerminalCalls }, console.Path);
        };
    }
}
