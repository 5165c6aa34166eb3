namespace Vmm.Vhost;

/// <summary>The feature bits that belong to no device type (VIRTIO 1.2 §6), and those that vhost put in their places.</summary>
public static class VirtioFeatures
{
    /// <summary>VIRTIO_F_NOTIFY_ON_EMPTY, of legacy devices only; vhost offers it.</summary>
    public const ulong NotifyOnEmpty = 1UL << 24;

    /// <summary>VHOST_F_LOG_ALL: not for drivers; tells vhost to log every page it writes (linux/vhost_types.h).</summary>
    public const ulong LogAll = 1UL << 26;

    /// <summary>VIRTIO_F_ANY_LAYOUT of legacy devices. For vhost-net it means VHOST_NET_F_VIRTIO_NET_HDR instead.</summary>
    public const ulong AnyLayout = 1UL << 27;

    /// <summary>VIRTIO_F_INDIRECT_DESC.</summary>
    public const ulong IndirectDescriptors = 1UL << 28;

    /// <summary>VIRTIO_F_EVENT_IDX.</summary>
    public const ulong EventIndex = 1UL << 29;

    /// <summary>VHOST_USER_F_PROTOCOL_FEATURES: between a vhost-user front-end and its back-end, never shown to a driver
    /// (vhost-user.rst, "Feature bits").</summary>
    public const ulong VhostUserProtocolFeatures = 1UL << 30;

    /// <summary>VIRTIO_F_VERSION_1: the device is no legacy device.</summary>
    public const ulong Version1 = 1UL << 32;

    /// <summary>VIRTIO_F_ACCESS_PLATFORM: addresses are not simply physical ones.</summary>
    public const ulong AccessPlatform = 1UL << 33;

    /// <summary>VIRTIO_F_RING_PACKED.</summary>
    public const ulong RingPacked = 1UL << 34;

    /// <summary>VIRTIO_F_IN_ORDER.</summary>
    public const ulong InOrder = 1UL << 35;

    /// <summary>VIRTIO_F_ORDER_PLATFORM.</summary>
    public const ulong OrderPlatform = 1UL << 36;

    /// <summary>VIRTIO_F_NOTIFICATION_DATA.</summary>
    public const ulong NotificationData = 1UL << 38;

    /// <summary>VIRTIO_F_NOTIF_CONFIG_DATA.</summary>
    public const ulong NotificationConfigData = 1UL << 39;

    /// <summary>VIRTIO_F_RING_RESET: a queue can be reset by itself.</summary>
    public const ulong RingReset = 1UL << 40;

    /// <summary>Bits of a back-end's that a driver must not see: those with a meaning of vhost's own, and those that only legacy devices have.</summary>
    internal const ulong Hidden = NotifyOnEmpty | LogAll | AnyLayout | VhostUserProtocolFeatures | AccessPlatform;

    /// <summary>Makes sure that a driver has accepted what there is, and is none for legacy devices.</summary>
    /// <param name="accepted">What it accepted.</param>
    /// <param name="offered">What it was offered.</param>
    /// <param name="name">The back-end, for messages.</param>
    /// <exception cref="VhostException">It has not.</exception>
    internal static void CheckAccepted(ulong accepted, ulong offered, string name)
    {
        if ((accepted & ~offered) != 0)
            throw new VhostException($"{name}: does not have the features 0x{accepted & ~offered:x}");
        if ((accepted & Version1) == 0)
            throw new VhostException($"{name}: the driver is one for legacy devices (no VIRTIO_F_VERSION_1), which are not supported");
    }
}
