namespace Vmm.Cli;

/// <summary>What the options of every verb have.</summary>
internal interface IVerbOptions
{
    /// <summary>The arguments that no option claims, which is a mistake. The parser alone would drop them silently.</summary>
    IEnumerable<string> Rest { get; }
}
