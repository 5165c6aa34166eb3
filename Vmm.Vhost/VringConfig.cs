using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Vhost;

/// <summary>Everything a back-end must know to work a ring. Whoever makes one has checked it: the size is a power of two (split
/// ring), the three areas are aligned and lie each in one region of guest memory.</summary>
public readonly record struct VringConfig
{
    /// <summary>The ring's number, counted from 0 among the rings of the back-end.</summary>
    public required int Index { get; init; }

    /// <summary>Descriptors in the ring, 1 to 32768.</summary>
    public required int Size { get; init; }

    /// <summary>The descriptor table (VIRTIO 1.2 §2.7.5), or the packed descriptor ring (§2.8).</summary>
    public required GuestAddress DescriptorArea { get; init; }

    /// <summary>The available ring (VIRTIO 1.2 §2.7.6), or the driver event suppression structure.</summary>
    public required GuestAddress DriverArea { get; init; }

    /// <summary>The used ring (VIRTIO 1.2 §2.7.8), or the device event suppression structure.</summary>
    public required GuestAddress DeviceArea { get; init; }

    /// <summary>Where the back-end begins. Split ring: the index of the next request in the available ring, 0 to 65535. Packed ring: the next
    /// available descriptor in bits 0 to 14 with its wrap counter in bit 15, and the next used one with its in bits 16 to 31 (vhost-user.rst,
    /// "Vring state"). For a ring that was stopped it is what <see cref="IVhostBackend.Stop"/> returned. For a new split ring it is 0.</summary>
    public uint Base { get; init; }

    /// <summary>Signalled by the driver: there is something in the ring.</summary>
    public required EventFd Kick { get; init; }

    /// <summary>Signalled by the back-end: something was used. Several rings may share it.</summary>
    public required EventFd Call { get; init; }

    /// <summary>Signalled by the back-end when it cannot go on with the ring; null where nobody wants to know.</summary>
    public EventFd? Error { get; init; }
}
