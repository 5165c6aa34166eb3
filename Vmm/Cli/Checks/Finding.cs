namespace Vmm.Cli.Checks;

/// <summary>One line of <c>vmm check</c>.</summary>
/// <param name="Topic">What was looked at.</param>
/// <param name="State">Whether it is there.</param>
/// <param name="Detail">What was found, or what to do about it.</param>
internal sealed record Finding(string Topic, FindingState State, string Detail)
{
    /// <summary>Something that is there.</summary>
    public static Finding Ok(string topic, string detail) => new(topic, FindingState.Ok, detail);

    /// <summary>Something that Linux guests cannot run without.</summary>
    public static Finding Missing(string topic, string howToFix) => new(topic, FindingState.Missing, howToFix);

    /// <summary>Something that only some options need.</summary>
    public static Finding MissingOptional(string topic, string howToFix) => new(topic, FindingState.MissingOptional, howToFix);

    /// <inheritdoc/>
    public override string ToString() => State switch
    {
        FindingState.Ok => $"ok       {Topic}: {Detail}",
        FindingState.Missing => $"missing  {Topic}: {Detail}",
        _ => $"missing  {Topic} (optional): {Detail}",
    };
}

/// <summary>Whether something is there.</summary>
internal enum FindingState
{
    /// <summary>It is.</summary>
    Ok,

    /// <summary>It is not, and Linux guests cannot run without it.</summary>
    Missing,

    /// <summary>It is not, and only some options need it.</summary>
    MissingOptional,
}
