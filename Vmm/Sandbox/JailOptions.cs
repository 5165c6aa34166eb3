namespace Vmm.Sandbox;

/// <summary>What a process that root has started becomes, once all is open.</summary>
internal sealed record JailOptions
{
    /// <summary>The user's number and the group's; null to stay who it is.</summary>
    public (uint User, uint Group)? Identity { get; init; }

    /// <summary>The directory that becomes the root of its file system, with a full path; null for none.</summary>
    public string? Root { get; init; }
}
