using Vmm.Devices.Net;
using Vmm.Devices.Spawning;
using Vmm.Devices.Virtio.Net;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio.VhostUser;

/// <summary>A network device, its packets moved by a vhost-user back-end: a switch.</summary>
public sealed record VhostUserNetDeviceOptions : VirtioDeviceOptions
{
    /// <summary>The back-end.</summary>
    public required VhostUserPeer Peer { get; init; }

    /// <summary>The guest's address; null for a random one.</summary>
    public MacAddress? Mac { get; init; }

    /// <summary>Pairs of a receive and a transmit queue, 1 to <see cref="NetDeviceOptions.MaxQueuePairs"/>.</summary>
    public int QueuePairs { get; init; } = 1;

    /// <summary>The largest packet without Ethernet's header, in bytes, 68 to 65535 (VIRTIO 1.2 §5.1.4.1). It is told to the guest and to the
    /// back-end; null to leave both alone.</summary>
    public int? Mtu { get; init; }

    /// <inheritdoc/>
    public override string Label => "--net";

    /// <inheritdoc/>
    public override IReadOnlyList<int> InheritedDescriptors => Peer.InheritedDescriptors;

    /// <inheritdoc/>
    public override VirtioDeviceOptions With(Func<ISpawner> spawner) => this with { Peer = Peer.With(spawner) };

    /// <inheritdoc/>
    public override VirtioDevice Open(EventLoop events, CancellationToken cancellation = default) => new VhostUserNetDevice(this, events, cancellation);
}
