using Vmm.Devices.Spawning;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio.VhostUser;

/// <summary>A disk, by a vhost-user-blk back-end.</summary>
public sealed record BlockDeviceOptions : VirtioDeviceOptions
{
    /// <summary>The largest <see cref="Queues"/>.</summary>
    public const int MaxQueues = 256;

    /// <summary>The back-end.</summary>
    public required VhostUserPeer Peer { get; init; }

    /// <summary>Request queues, 1 to <see cref="MaxQueues"/>.</summary>
    public int Queues { get; init; } = 1;

    /// <summary>Whether the guest is told not to write.</summary>
    public bool IsReadOnly { get; init; }

    /// <inheritdoc/>
    public override string Label => "--disk";

    /// <inheritdoc/>
    public override IReadOnlyList<int> InheritedDescriptors => Peer.InheritedDescriptors;

    /// <inheritdoc/>
    public override VirtioDeviceOptions With(Func<ISpawner> spawner) => this with { Peer = Peer.With(spawner) };

    /// <inheritdoc/>
    public override VirtioDevice Open(EventLoop events, CancellationToken cancellation = default) => new BlockDevice(this, events, cancellation);
}
