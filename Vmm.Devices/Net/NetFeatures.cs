namespace Vmm.Devices.Net;

/// <summary>Feature bits of network devices (VIRTIO 1.2 §5.1.3).</summary>
public static class NetFeatures
{
    /// <summary>VIRTIO_NET_F_CSUM: the device takes packets with partial checksums.</summary>
    public const ulong Csum = 1UL << 0;

    /// <summary>VIRTIO_NET_F_GUEST_CSUM: the driver takes packets with partial checksums.</summary>
    public const ulong GuestCsum = 1UL << 1;

    /// <summary>VIRTIO_NET_F_CTRL_GUEST_OFFLOADS: the driver's offloads can be changed while the device runs.</summary>
    public const ulong CtrlGuestOffloads = 1UL << 2;

    /// <summary>VIRTIO_NET_F_MTU: the device says its largest MTU.</summary>
    public const ulong Mtu = 1UL << 3;

    /// <summary>VIRTIO_NET_F_MAC: the device has an address.</summary>
    public const ulong Mac = 1UL << 5;

    /// <summary>VIRTIO_NET_F_GUEST_TSO4: the driver takes large TCP packets over IPv4.</summary>
    public const ulong GuestTso4 = 1UL << 7;

    /// <summary>VIRTIO_NET_F_GUEST_TSO6: the same over IPv6.</summary>
    public const ulong GuestTso6 = 1UL << 8;

    /// <summary>VIRTIO_NET_F_GUEST_ECN: those may have ECN.</summary>
    public const ulong GuestEcn = 1UL << 9;

    /// <summary>VIRTIO_NET_F_GUEST_UFO: the driver takes large UDP packets.</summary>
    public const ulong GuestUfo = 1UL << 10;

    /// <summary>VIRTIO_NET_F_HOST_TSO4: the device takes large TCP packets over IPv4.</summary>
    public const ulong HostTso4 = 1UL << 11;

    /// <summary>VIRTIO_NET_F_HOST_TSO6: the same over IPv6.</summary>
    public const ulong HostTso6 = 1UL << 12;

    /// <summary>VIRTIO_NET_F_HOST_ECN: those may have ECN.</summary>
    public const ulong HostEcn = 1UL << 13;

    /// <summary>VIRTIO_NET_F_HOST_UFO: the device takes large UDP packets.</summary>
    public const ulong HostUfo = 1UL << 14;

    /// <summary>VIRTIO_NET_F_MRG_RXBUF: a received packet may take several buffers.</summary>
    public const ulong MrgRxbuf = 1UL << 15;

    /// <summary>VIRTIO_NET_F_STATUS: the configuration tells the link's state.</summary>
    public const ulong Status = 1UL << 16;

    /// <summary>VIRTIO_NET_F_CTRL_VQ: there is a control queue.</summary>
    public const ulong CtrlVq = 1UL << 17;

    /// <summary>VIRTIO_NET_F_CTRL_RX: it takes receive modes.</summary>
    public const ulong CtrlRx = 1UL << 18;

    /// <summary>VIRTIO_NET_F_CTRL_VLAN: it takes VLAN filters.</summary>
    public const ulong CtrlVlan = 1UL << 19;

    /// <summary>VIRTIO_NET_F_CTRL_RX_EXTRA: it takes more receive modes.</summary>
    public const ulong CtrlRxExtra = 1UL << 20;

    /// <summary>VIRTIO_NET_F_GUEST_ANNOUNCE: the driver can announce itself.</summary>
    public const ulong GuestAnnounce = 1UL << 21;

    /// <summary>VIRTIO_NET_F_MQ: there are several pairs of queues.</summary>
    public const ulong Mq = 1UL << 22;

    /// <summary>VIRTIO_NET_F_CTRL_MAC_ADDR: the control queue takes addresses.</summary>
    public const ulong CtrlMacAddr = 1UL << 23;

    /// <summary>Those of <see cref="CtrlGuestOffloads"/>: what the driver takes (VIRTIO 1.2 §5.1.6.5.6).</summary>
    public const ulong GuestOffloads = GuestCsum | GuestTso4 | GuestTso6 | GuestEcn | GuestUfo;
}
