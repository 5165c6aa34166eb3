using CommandLine;
using Vmm.Devices.Backends;
using Vmm.Devices.Backends.Rng;

namespace Vmm.Cli.Backend;

/// <summary>The options of <c>vmm backend rng</c>.</summary>
[Verb("rng", HelpText = "Random numbers.")]
internal sealed class RngBackendOptions : BackendOptions
{
    /// <summary>The largest limit.</summary>
    public const ulong MostBytesPerSecond = 1UL << 40;

    [Option("source", MetaValue = "PATH", HelpText = "Where they come from (default: /dev/urandom).")]
    public string? Source { get; set; }

    [Option("max-bytes-per-second", MetaValue = "N", HelpText = "No more than so many (default: no limit).")]
    public string? MaxBytesPerSecond { get; set; }

    /// <inheritdoc/>
    public override Func<ServedDevice> Read()
    {
        string source = RequirePath("--source", Source ?? RngBackend.DefaultSource);
        ulong? limit = MaxBytesPerSecond is string text
            ? NumberValue.Parse(new OptionValue("--max-bytes-per-second", null, text), 1, MostBytesPerSecond)
            : null;
        return Opened("--source", () => new ServedDevice(new RngBackend(source, limit), new Confinement { Calls = RngBackend.SystemCalls }));
    }
}
