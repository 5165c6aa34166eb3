namespace Vmm.Cli;

/// <summary>Options of a verb behind which a command may stand, after <c>--</c>.</summary>
internal interface ICommandOptions
{
    /// <summary>The command and its arguments; none if there is none.</summary>
    IReadOnlyList<string> Command { get; set; }
}
