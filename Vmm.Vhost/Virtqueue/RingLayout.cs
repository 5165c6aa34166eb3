using Vmm.Vhost.Memory;

namespace Vmm.Vhost.Virtqueue;

/// <summary>Where a ring is and where to begin: what the device's side of a queue must know.</summary>
public readonly record struct RingLayout
{
    /// <summary>The most descriptors that a ring can have (VIRTIO 1.2 §2.7, §2.8.10.1).</summary>
    public const int MaxSize = 32768;

    /// <summary>The ring's number, for messages.</summary>
    public required int Index { get; init; }

    /// <summary>Descriptors in the ring, 1 to <see cref="MaxSize"/>; a power of two in a split ring.</summary>
    public required int Size { get; init; }

    /// <summary>The descriptor table (VIRTIO 1.2 §2.7.5), or the packed descriptor ring (§2.8).</summary>
    public required GuestAddress DescriptorArea { get; init; }

    /// <summary>The available ring (VIRTIO 1.2 §2.7.6), or the driver event suppression structure (§2.8.14).</summary>
    public required GuestAddress DriverArea { get; init; }

    /// <summary>The used ring (VIRTIO 1.2 §2.7.8), or the device event suppression structure (§2.8.14).</summary>
    public required GuestAddress DeviceArea { get; init; }

    /// <summary>Where to begin, as vhost-user.rst describes it for "Vring state": the index of the next request; with a packed ring bits
    /// 14:0 the place of the next request, 15 its wrap counter, 30:16 and 31 the same of what is given back next.</summary>
    public uint Base { get; init; }

    /// <summary>What of <paramref name="ring"/> is about the ring.</summary>
    public static RingLayout Of(in VringConfig ring) => new()
    {
        Index = ring.Index,
        Size = ring.Size,
        DescriptorArea = ring.DescriptorArea,
        DriverArea = ring.DriverArea,
        DeviceArea = ring.DeviceArea,
        Base = ring.Base,
    };
}
