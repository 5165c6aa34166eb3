namespace Vmm.Vhost.User.Protocol;

/// <summary>Protocol features (vhost-user.rst, "Protocol features"): what front-end and back-end may say to each other. Bits that are
/// not here are masked when they are offered, never refused.</summary>
[Flags]
public enum VhostUserProtocolFeatures : ulong
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>VHOST_USER_PROTOCOL_F_MQ: <see cref="VhostUserRequest.GetQueueNum"/> is there. Not needed to have several queues.</summary>
    Mq = 1UL << 0,

    /// <summary>VHOST_USER_PROTOCOL_F_LOG_SHMFD: the dirty log is shared memory.</summary>
    LogShmFd = 1UL << 1,

    /// <summary>VHOST_USER_PROTOCOL_F_RARP.</summary>
    Rarp = 1UL << 2,

    /// <summary>VHOST_USER_PROTOCOL_F_REPLY_ACK: any request may ask for a reply.</summary>
    ReplyAck = 1UL << 3,

    /// <summary>VHOST_USER_PROTOCOL_F_MTU.</summary>
    Mtu = 1UL << 4,

    /// <summary>VHOST_USER_PROTOCOL_F_BACKEND_REQ: there is a channel for the back-end's requests.</summary>
    BackendReq = 1UL << 5,

    /// <summary>VHOST_USER_PROTOCOL_F_CROSS_ENDIAN.</summary>
    CrossEndian = 1UL << 6,

    /// <summary>VHOST_USER_PROTOCOL_F_CRYPTO_SESSION.</summary>
    CryptoSession = 1UL << 7,

    /// <summary>VHOST_USER_PROTOCOL_F_PAGEFAULT: postcopy.</summary>
    PageFault = 1UL << 8,

    /// <summary>VHOST_USER_PROTOCOL_F_CONFIG: the back-end has the configuration space.</summary>
    Config = 1UL << 9,

    /// <summary>VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD: the back-end's requests may carry descriptors.</summary>
    BackendSendFd = 1UL << 10,

    /// <summary>VHOST_USER_PROTOCOL_F_HOST_NOTIFIER.</summary>
    HostNotifier = 1UL << 11,

    /// <summary>VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD: what is in flight survives the back-end.</summary>
    InflightShmFd = 1UL << 12,

    /// <summary>VHOST_USER_PROTOCOL_F_RESET_DEVICE.</summary>
    ResetDevice = 1UL << 13,

    /// <summary>VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS: kicks and calls by message; only with <see cref="BackendReq"/> and
    /// <see cref="ReplyAck"/>.</summary>
    InbandNotifications = 1UL << 14,

    /// <summary>VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS: memory regions come and go one by one.</summary>
    ConfigureMemSlots = 1UL << 15,

    /// <summary>VHOST_USER_PROTOCOL_F_STATUS: the back-end is told the virtio status.</summary>
    Status = 1UL << 16,

    /// <summary>VHOST_USER_PROTOCOL_F_XEN_MMAP.</summary>
    XenMmap = 1UL << 17,

    /// <summary>VHOST_USER_PROTOCOL_F_SHARED_OBJECT.</summary>
    SharedObject = 1UL << 18,

    /// <summary>VHOST_USER_PROTOCOL_F_DEVICE_STATE: the back-end's inner state can be saved and restored.</summary>
    DeviceState = 1UL << 19,

    /// <summary>VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT.</summary>
    GetVringBaseInflight = 1UL << 20,

    /// <summary>VHOST_USER_PROTOCOL_F_GPA_ADDRESSES: ring addresses are guest-physical. rust-vmm's vhost 0.16 means
    /// <see cref="Shmem"/> by this bit.</summary>
    GpaAddresses = 1UL << 21,

    /// <summary>VHOST_USER_PROTOCOL_F_SHMEM: the back-end maps files into shared-memory regions of the device.</summary>
    Shmem = 1UL << 22,

    /// <summary>VHOST_USER_PROTOCOL_F_GET_VRING_BASE_SKIP_DRAIN; only with <see cref="GetVringBaseInflight"/> and
    /// <see cref="InflightShmFd"/>.</summary>
    GetVringBaseSkipDrain = 1UL << 23,
}
