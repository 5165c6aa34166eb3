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
}
