using Vmm.Devices.Spawning;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio.VhostUser;

/// <summary>A file system of the host's, by a virtio-fs daemon.</summary>
public sealed record FsDeviceOptions : VirtioDeviceOptions
{
    /// <summary>The largest <see cref="Queues"/>: no device has more queues than 256.</summary>
    public const int MaxQueues = 255;

    /// <summary>By what name the guest mounts it, up to <see cref="FsConfig.MaxTagBytes"/>; null for the daemon's.</summary>
    public string? Tag { get; init; }

    /// <summary>The daemon.</summary>
    public required VhostUserPeer Peer { get; init; }

    /// <summary>What to start the daemon for; null where <see cref="VhostUserPeer.Endpoint"/> leads to one.</summary>
    public FsSource? Source { get; init; }

    /// <summary>Request queues, 1 to <see cref="MaxQueues"/>.</summary>
    public int Queues { get; init; } = 1;

    /// <summary>Whether the daemon may map files into the guest (DAX).</summary>
    public bool Dax { get; init; }

    /// <inheritdoc/>
    public override string Label => "--fs";

    /// <inheritdoc/>
    public override IReadOnlyList<int> InheritedDescriptors => Peer.InheritedDescriptors;

    /// <inheritdoc/>
    public override VirtioDeviceOptions With(Func<ISpawner> spawner) => this with { Peer = Peer.With(spawner) };

    /// <inheritdoc/>
    public override VirtioDevice Open(EventLoop events, CancellationToken cancellation = default) => new FsDevice(this, events, cancellation);
}

/// <summary>A directory that a virtio-fs daemon of somebody else's shares.</summary>
/// <param name="Path">The directory.</param>
/// <param name="Sandbox">How the daemon confines itself to it: "namespace" or "chroot".</param>
/// <param name="Daemon">The daemon's program: QEMU's, which is in a directory of the name qemu, or the one in Rust.</param>
public sealed record FsSource(string Path, string Sandbox, string Daemon);
