using Vmm.Devices.Spawning;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio.VhostUser;

/// <summary>A device of whatever type, by a vhost-user back-end that knows the type.</summary>
public sealed record GenericDeviceOptions : VirtioDeviceOptions
{
    /// <summary>The device's type.</summary>
    public required DeviceKind Kind { get; init; }

    /// <summary>The back-end.</summary>
    public required VhostUserPeer Peer { get; init; }

    /// <summary>How many queues there are of those whose number varies; null for <see cref="DeviceKind.Queues"/>.</summary>
    public int? Queues { get; init; }

    /// <summary>Bytes of configuration space; null for <see cref="DeviceKind.ConfigSize"/>.</summary>
    public int? ConfigSize { get; init; }

    /// <inheritdoc/>
    public override string Label => Peer.Program is null ? "--vhost-user" : $"--{Kind.Word}";

    /// <inheritdoc/>
    public override IReadOnlyList<int> InheritedDescriptors => Peer.InheritedDescriptors;

    /// <inheritdoc/>
    public override VirtioDeviceOptions With(Func<ISpawner> spawner) => this with { Peer = Peer.With(spawner) };

    /// <inheritdoc/>
    public override VirtioDevice Open(EventLoop events, CancellationToken cancellation = default) => new GenericDevice(this, events, cancellation);
}
