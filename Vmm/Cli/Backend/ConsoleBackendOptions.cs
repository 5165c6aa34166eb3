using System.Numerics;
using CommandLine;
using Vmm.Devices.Backends;
using Vmm.Devices.Backends.Console;

namespace Vmm.Cli.Backend;

/// <summary>The options of <c>vmm backend console</c>.</summary>
[Verb("console", HelpText = "A console: hvc0 of Linux guests.")]
internal sealed class ConsoleBackendOptions : BackendOptions
{
    [Option("path", MetaValue = "PATH|pty", HelpText = "A file that takes the output, or pty for a new pseudo-terminal, whose path is printed.")]
    public string? Path { get; set; }

    [Option("truncate", HelpText = "The file is emptied first (default: the output is added at its end).")]
    public bool Truncate { get; set; }

    [Option("keep", MetaValue = "SIZE", HelpText = "How much output of what nobody reads a terminal keeps, the latest: a power of two from 4K to 64M (default: 64K).")]
    public string? Keep { get; set; }

    /// <inheritdoc/>
    public override Func<ServedDevice> Read()
    {
        string path = RequirePath("--path", Path);
        if (path == "pty" && Truncate)
            throw new UsageException("--truncate: has no effect with --path pty: leave it out");
        if (path != "pty" && Keep is not null)
            throw new UsageException("--keep: has no effect with a file, which keeps all: leave it out");
        if (path != "pty")
        {
            return Opened("--path", () =>
            {
                ConsoleBackend file = ConsoleBackend.IntoFile(path);
                // Not before the socket is there: what cannot be served leaves it as it is.
                return new ServedDevice(file, new Confinement(), Prepare: Truncate ? file.Empty : null);
            });
        }
        int keep = Keep is string text ? ParseKeep(new OptionValue("--keep", null, text)) : ConsoleBackend.DefaultKept;
        return () =>
        {
            ConsoleBackend console = ConsoleBackend.OnTerminal(keep);
            return new ServedDevice(console, new Confinement { Calls = ConsoleBackend.TerminalCalls }, console.Path);
        };
    }

    /// <summary>How much a terminal keeps.</summary>
    /// <exception cref="UsageException">The value is no such size.</exception>
    public static int ParseKeep(OptionValue value)
    {
        ulong size = SizeValue.Parse(value);
        return BitOperations.IsPow2(size) && size is >= 4096 and <= ConsoleBackend.MostKept
            ? (int)size
            : throw value.Refuse("is not a power of two from 4K to 64M");
    }
}
