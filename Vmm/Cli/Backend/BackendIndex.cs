using CommandLine;

namespace Vmm.Cli.Backend;

/// <summary>Stands for <c>vmm backend</c> among the verbs; a device follows, whose options are a class of their own.</summary>
[Verb("backend", HelpText = "Serve a device to a virtual machine monitor by vhost-user.")]
internal sealed class BackendIndex : IVerbOptions
{
    [Value(0, Hidden = true)]
    public IEnumerable<string> Rest { get; set; } = [];
}
