namespace Vmm.Vhost.User.Protocol;

/// <summary>What a front-end asks of its back-end (vhost-user.rst, "Front-end message types"). An open enumeration: a number that is
/// not here may arrive, and is refused where it does.</summary>
public enum VhostUserRequest : uint
{
    /// <summary>VHOST_USER_GET_FEATURES.</summary>
    GetFeatures = 1,

    /// <summary>VHOST_USER_SET_FEATURES.</summary>
    SetFeatures = 2,

    /// <summary>VHOST_USER_SET_OWNER: begins a session.</summary>
    SetOwner = 3,

    /// <summary>VHOST_USER_RESET_OWNER, deprecated: never sent, and understood as "stop all rings".</summary>
    ResetOwner = 4,

    /// <summary>VHOST_USER_SET_MEM_TABLE.</summary>
    SetMemTable = 5,

    /// <summary>VHOST_USER_SET_LOG_BASE.</summary>
    SetLogBase = 6,

    /// <summary>VHOST_USER_SET_LOG_FD.</summary>
    SetLogFd = 7,

    /// <summary>VHOST_USER_SET_VRING_NUM.</summary>
    SetVringNum = 8,

    /// <summary>VHOST_USER_SET_VRING_ADDR.</summary>
    SetVringAddr = 9,

    /// <summary>VHOST_USER_SET_VRING_BASE.</summary>
    SetVringBase = 10,

    /// <summary>VHOST_USER_GET_VRING_BASE: stops a ring.</summary>
    GetVringBase = 11,

    /// <summary>VHOST_USER_SET_VRING_KICK: starts a ring.</summary>
    SetVringKick = 12,

    /// <summary>VHOST_USER_SET_VRING_CALL.</summary>
    SetVringCall = 13,

    /// <summary>VHOST_USER_SET_VRING_ERR.</summary>
    SetVringErr = 14,

    /// <summary>VHOST_USER_GET_PROTOCOL_FEATURES.</summary>
    GetProtocolFeatures = 15,

    /// <summary>VHOST_USER_SET_PROTOCOL_FEATURES.</summary>
    SetProtocolFeatures = 16,

    /// <summary>VHOST_USER_GET_QUEUE_NUM: a maximum, not a count.</summary>
    GetQueueNum = 17,

    /// <summary>VHOST_USER_SET_VRING_ENABLE.</summary>
    SetVringEnable = 18,

    /// <summary>VHOST_USER_SEND_RARP.</summary>
    SendRarp = 19,

    /// <summary>VHOST_USER_NET_SET_MTU.</summary>
    NetSetMtu = 20,

    /// <summary>VHOST_USER_SET_BACKEND_REQ_FD.</summary>
    SetBackendReqFd = 21,

    /// <summary>VHOST_USER_IOTLB_MSG.</summary>
    IotlbMsg = 22,

    /// <summary>VHOST_USER_SET_VRING_ENDIAN.</summary>
    SetVringEndian = 23,

    /// <summary>VHOST_USER_GET_CONFIG.</summary>
    GetConfig = 24,

    /// <summary>VHOST_USER_SET_CONFIG.</summary>
    SetConfig = 25,

    /// <summary>VHOST_USER_CREATE_CRYPTO_SESSION.</summary>
    CreateCryptoSession = 26,

    /// <summary>VHOST_USER_CLOSE_CRYPTO_SESSION.</summary>
    CloseCryptoSession = 27,

    /// <summary>VHOST_USER_POSTCOPY_ADVISE.</summary>
    PostcopyAdvise = 28,

    /// <summary>VHOST_USER_POSTCOPY_LISTEN.</summary>
    PostcopyListen = 29,

    /// <summary>VHOST_USER_POSTCOPY_END.</summary>
    PostcopyEnd = 30,

    /// <summary>VHOST_USER_GET_INFLIGHT_FD.</summary>
    GetInflightFd = 31,

    /// <summary>VHOST_USER_SET_INFLIGHT_FD.</summary>
    SetInflightFd = 32,

    /// <summary>VHOST_USER_GPU_SET_SOCKET.</summary>
    GpuSetSocket = 33,

    /// <summary>VHOST_USER_RESET_DEVICE.</summary>
    ResetDevice = 34,

    /// <summary>VHOST_USER_VRING_KICK: a kick in the band.</summary>
    VringKick = 35,

    /// <summary>VHOST_USER_GET_MAX_MEM_SLOTS.</summary>
    GetMaxMemSlots = 36,

    /// <summary>VHOST_USER_ADD_MEM_REG.</summary>
    AddMemReg = 37,

    /// <summary>VHOST_USER_REM_MEM_REG.</summary>
    RemMemReg = 38,

    /// <summary>VHOST_USER_SET_STATUS.</summary>
    SetStatus = 39,

    /// <summary>VHOST_USER_GET_STATUS.</summary>
    GetStatus = 40,

    /// <summary>VHOST_USER_GET_SHARED_OBJECT.</summary>
    GetSharedObject = 41,

    /// <summary>VHOST_USER_SET_DEVICE_STATE_FD.</summary>
    SetDeviceStateFd = 42,

    /// <summary>VHOST_USER_CHECK_DEVICE_STATE.</summary>
    CheckDeviceState = 43,

    /// <summary>VHOST_USER_GET_SHMEM_CONFIG.</summary>
    GetShmemConfig = 44,

    /// <summary>VHOST_USER_GET_VRING_BASE_SKIP_DRAIN: stops a ring without waiting for what it has in flight.</summary>
    GetVringBaseSkipDrain = 45,
}

/// <summary>What a back-end asks of its front-end, on the channel of <see cref="VhostUserRequest.SetBackendReqFd"/> (vhost-user.rst,
/// "Back-end message types").</summary>
public enum VhostUserBackendRequest : uint
{
    /// <summary>VHOST_USER_BACKEND_IOTLB_MSG.</summary>
    IotlbMsg = 1,

    /// <summary>VHOST_USER_BACKEND_CONFIG_CHANGE_MSG.</summary>
    ConfigChange = 2,

    /// <summary>VHOST_USER_BACKEND_VRING_HOST_NOTIFIER_MSG.</summary>
    VringHostNotifier = 3,

    /// <summary>VHOST_USER_BACKEND_VRING_CALL: a call in the band.</summary>
    VringCall = 4,

    /// <summary>VHOST_USER_BACKEND_VRING_ERR: an error in the band.</summary>
    VringErr = 5,

    /// <summary>VHOST_USER_BACKEND_SHARED_OBJECT_ADD.</summary>
    SharedObjectAdd = 6,

    /// <summary>VHOST_USER_BACKEND_SHARED_OBJECT_REMOVE.</summary>
    SharedObjectRemove = 7,

    /// <summary>VHOST_USER_BACKEND_SHARED_OBJECT_LOOKUP.</summary>
    SharedObjectLookup = 8,

    /// <summary>VHOST_USER_BACKEND_SHMEM_MAP.</summary>
    ShmemMap = 9,

    /// <summary>VHOST_USER_BACKEND_SHMEM_UNMAP.</summary>
    ShmemUnmap = 10,
}
