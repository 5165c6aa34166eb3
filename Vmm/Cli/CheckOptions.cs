using CommandLine;

namespace Vmm.Cli;

/// <summary>The options of <c>vmm check</c>: none.</summary>
[Verb("check", HelpText = "Say what this host offers to guests, and how to get what is missing.")]
internal sealed class CheckOptions : IVerbOptions
{
    [Value(0, Hidden = true)]
    public IEnumerable<string> Rest { get; set; } = [];
}
