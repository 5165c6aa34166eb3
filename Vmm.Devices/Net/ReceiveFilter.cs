namespace Vmm.Devices.Net;

/// <summary>What a driver wants to receive (VIRTIO 1.2 §5.1.6.5.1 and §5.1.6.5.2): everything until it says otherwise.</summary>
internal sealed record ReceiveFilter
{
    /// <summary>More addresses are not looked at: the filter opens instead.</summary>
    public const int MaxAddresses = 64;

    /// <summary>Everything.</summary>
    public bool Promiscuous { get; init; } = true;

    /// <summary>Every group.</summary>
    public bool AllMulticast { get; init; }

    /// <summary>Addresses of its own and of groups; null where there were more than are looked at, so that all pass.</summary>
    public IReadOnlyList<MacAddress>? Addresses { get; init; } = [];
}
