using Vmm.Devices.Net;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio.Net;

/// <summary>A network device on a tap or macvtap interface, its packets moved by the kernel's vhost-net.</summary>
public sealed record NetDeviceOptions : VirtioDeviceOptions
{
    /// <summary>The largest <see cref="QueuePairs"/>: with the control queue, no device has more queues than 256.</summary>
    public const int MaxQueuePairs = 127;

    /// <summary>The tap's name, or null: the interface of <see cref="Fds"/>, or else one that is made.</summary>
    public string? Tap { get; init; }

    /// <summary>Inherited descriptors of one tap or macvtap interface, one for each pair of queues; empty where there are none.</summary>
    public IReadOnlyList<int> Fds { get; init; } = [];

    /// <summary>The guest's address; null for a random one.</summary>
    public MacAddress? Mac { get; init; }

    /// <summary>Pairs of a receive and a transmit queue, 1 to <see cref="MaxQueuePairs"/>.</summary>
    public int QueuePairs { get; init; } = 1;

    /// <summary>Descriptors in each queue at most: a power of two up to 32768.</summary>
    public int QueueSize { get; init; } = 256;

    /// <summary>The largest packet without Ethernet's header, in bytes, 68 to 65535 (VIRTIO 1.2 §5.1.4.1). It is told to the guest and set on the
    /// interface; null to leave both alone.</summary>
    public int? Mtu { get; init; }

    /// <inheritdoc/>
    public override string Label => "--net";

    /// <inheritdoc/>
    public override IReadOnlyList<int> InheritedDescriptors => Fds;

    /// <inheritdoc/>
    public override VirtioDevice Open(EventLoop events, CancellationToken cancellation = default) => new NetDevice(this, events);
}
