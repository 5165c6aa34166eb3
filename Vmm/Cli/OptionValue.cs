namespace Vmm.Cli;

/// <summary>A value on the command line and where it stands, so that a complaint about it can name both.</summary>
/// <param name="Option">The option with its dashes, such as <c>--memory</c>.</param>
/// <param name="Key">The key in the option's key=value list; null where the value is the option's own.</param>
/// <param name="Text">What the user wrote.</param>
internal readonly record struct OptionValue(string Option, string? Key, string Text)
{
    /// <summary>The exception that says why the value cannot be used: <c>--memory: size='x' is not a size</c>.</summary>
    public UsageException Refuse(string why) => new($"{Option}: {(Key is null ? "" : Key + "=")}'{Text}' {why}");
}
