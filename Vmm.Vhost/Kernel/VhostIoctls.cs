using Vmm.Vhost.Native;

namespace Vmm.Vhost.Kernel;

/// <summary>The ioctl requests of linux/vhost.h, as of Linux 6.18.</summary>
internal static class VhostIoctls
{
    private const byte VhostVirtio = 0xAF;

    // on every device
    public static readonly IoctlRequest GetFeatures = IoctlRequest.Ior<ulong>(VhostVirtio, 0x00, "VHOST_GET_FEATURES");
    public static readonly IoctlRequest SetFeatures = IoctlRequest.Iow<ulong>(VhostVirtio, 0x00, "VHOST_SET_FEATURES");
    public static readonly IoctlRequest SetOwner = IoctlRequest.Io(VhostVirtio, 0x01, "VHOST_SET_OWNER");
    public static readonly IoctlRequest ResetOwner = IoctlRequest.Io(VhostVirtio, 0x02, "VHOST_RESET_OWNER");
    public static readonly IoctlRequest SetMemTable = IoctlRequest.Iow<VhostMemory>(VhostVirtio, 0x03, "VHOST_SET_MEM_TABLE");
    public static readonly IoctlRequest SetLogBase = IoctlRequest.Iow<ulong>(VhostVirtio, 0x04, "VHOST_SET_LOG_BASE");
    public static readonly IoctlRequest SetLogFd = IoctlRequest.Iow<int>(VhostVirtio, 0x07, "VHOST_SET_LOG_FD");
    public static readonly IoctlRequest NewWorker = IoctlRequest.Ior<VhostWorkerState>(VhostVirtio, 0x08, "VHOST_NEW_WORKER");
    public static readonly IoctlRequest FreeWorker = IoctlRequest.Iow<VhostWorkerState>(VhostVirtio, 0x09, "VHOST_FREE_WORKER");
    public static readonly IoctlRequest GetBackendFeatures = IoctlRequest.Ior<ulong>(VhostVirtio, 0x26, "VHOST_GET_BACKEND_FEATURES");
    public static readonly IoctlRequest SetBackendFeatures = IoctlRequest.Iow<ulong>(VhostVirtio, 0x25, "VHOST_SET_BACKEND_FEATURES");
    public static readonly IoctlRequest GetFeaturesArray = IoctlRequest.Ior<VhostFeaturesArray>(VhostVirtio, 0x83, "VHOST_GET_FEATURES_ARRAY");
    public static readonly IoctlRequest SetFeaturesArray = IoctlRequest.Iow<VhostFeaturesArray>(VhostVirtio, 0x83, "VHOST_SET_FEATURES_ARRAY");
    public static readonly IoctlRequest SetForkFromOwner = IoctlRequest.Iow<byte>(VhostVirtio, 0x84, "VHOST_SET_FORK_FROM_OWNER");
    public static readonly IoctlRequest GetForkFromOwner = IoctlRequest.Ior<byte>(VhostVirtio, 0x85, "VHOST_GET_FORK_FROM_OWNER");

    // on a ring
    public static readonly IoctlRequest SetVringNum = IoctlRequest.Iow<VhostVringState>(VhostVirtio, 0x10, "VHOST_SET_VRING_NUM");
    public static readonly IoctlRequest SetVringAddr = IoctlRequest.Iow<VhostVringAddr>(VhostVirtio, 0x11, "VHOST_SET_VRING_ADDR");
    public static readonly IoctlRequest SetVringBase = IoctlRequest.Iow<VhostVringState>(VhostVirtio, 0x12, "VHOST_SET_VRING_BASE");
    public static readonly IoctlRequest GetVringBase = IoctlRequest.Iowr<VhostVringState>(VhostVirtio, 0x12, "VHOST_GET_VRING_BASE");
    public static readonly IoctlRequest SetVringEndian = IoctlRequest.Iow<VhostVringState>(VhostVirtio, 0x13, "VHOST_SET_VRING_ENDIAN");
    public static readonly IoctlRequest GetVringEndian = IoctlRequest.Iow<VhostVringState>(VhostVirtio, 0x14, "VHOST_GET_VRING_ENDIAN");
    public static readonly IoctlRequest AttachVringWorker = IoctlRequest.Iow<VhostVringWorker>(VhostVirtio, 0x15, "VHOST_ATTACH_VRING_WORKER");
    public static readonly IoctlRequest GetVringWorker = IoctlRequest.Iowr<VhostVringWorker>(VhostVirtio, 0x16, "VHOST_GET_VRING_WORKER");
    public static readonly IoctlRequest SetVringKick = IoctlRequest.Iow<VhostVringFile>(VhostVirtio, 0x20, "VHOST_SET_VRING_KICK");
    public static readonly IoctlRequest SetVringCall = IoctlRequest.Iow<VhostVringFile>(VhostVirtio, 0x21, "VHOST_SET_VRING_CALL");
    public static readonly IoctlRequest SetVringErr = IoctlRequest.Iow<VhostVringFile>(VhostVirtio, 0x22, "VHOST_SET_VRING_ERR");
    public static readonly IoctlRequest SetVringBusyloopTimeout = IoctlRequest.Iow<VhostVringState>(VhostVirtio, 0x23, "VHOST_SET_VRING_BUSYLOOP_TIMEOUT");
    public static readonly IoctlRequest GetVringBusyloopTimeout = IoctlRequest.Iow<VhostVringState>(VhostVirtio, 0x24, "VHOST_GET_VRING_BUSYLOOP_TIMEOUT");

    // on /dev/vhost-net
    public static readonly IoctlRequest NetSetBackend = IoctlRequest.Iow<VhostVringFile>(VhostVirtio, 0x30, "VHOST_NET_SET_BACKEND");

    // on /dev/vhost-scsi
    public static readonly IoctlRequest ScsiSetEndpoint = IoctlRequest.Iow<VhostScsiTarget>(VhostVirtio, 0x40, "VHOST_SCSI_SET_ENDPOINT");
    public static readonly IoctlRequest ScsiClearEndpoint = IoctlRequest.Iow<VhostScsiTarget>(VhostVirtio, 0x41, "VHOST_SCSI_CLEAR_ENDPOINT");
    public static readonly IoctlRequest ScsiGetAbiVersion = IoctlRequest.Iow<int>(VhostVirtio, 0x42, "VHOST_SCSI_GET_ABI_VERSION");
    public static readonly IoctlRequest ScsiSetEventsMissed = IoctlRequest.Iow<uint>(VhostVirtio, 0x43, "VHOST_SCSI_SET_EVENTS_MISSED");
    public static readonly IoctlRequest ScsiGetEventsMissed = IoctlRequest.Iow<uint>(VhostVirtio, 0x44, "VHOST_SCSI_GET_EVENTS_MISSED");

    // on /dev/vhost-vsock
    public static readonly IoctlRequest VsockSetGuestCid = IoctlRequest.Iow<ulong>(VhostVirtio, 0x60, "VHOST_VSOCK_SET_GUEST_CID");
    public static readonly IoctlRequest VsockSetRunning = IoctlRequest.Iow<int>(VhostVirtio, 0x61, "VHOST_VSOCK_SET_RUNNING");

    // on /dev/vhost-vdpa-N
    public static readonly IoctlRequest VdpaGetDeviceId = IoctlRequest.Ior<uint>(VhostVirtio, 0x70, "VHOST_VDPA_GET_DEVICE_ID");
    public static readonly IoctlRequest VdpaGetStatus = IoctlRequest.Ior<byte>(VhostVirtio, 0x71, "VHOST_VDPA_GET_STATUS");
    public static readonly IoctlRequest VdpaSetStatus = IoctlRequest.Iow<byte>(VhostVirtio, 0x72, "VHOST_VDPA_SET_STATUS");
    public static readonly IoctlRequest VdpaGetConfig = IoctlRequest.Ior<VhostVdpaConfig>(VhostVirtio, 0x73, "VHOST_VDPA_GET_CONFIG");
    public static readonly IoctlRequest VdpaSetConfig = IoctlRequest.Iow<VhostVdpaConfig>(VhostVirtio, 0x74, "VHOST_VDPA_SET_CONFIG");
    public static readonly IoctlRequest VdpaSetVringEnable = IoctlRequest.Iow<VhostVringState>(VhostVirtio, 0x75, "VHOST_VDPA_SET_VRING_ENABLE");
    public static readonly IoctlRequest VdpaGetVringNum = IoctlRequest.Ior<ushort>(VhostVirtio, 0x76, "VHOST_VDPA_GET_VRING_NUM");
    public static readonly IoctlRequest VdpaSetConfigCall = IoctlRequest.Iow<int>(VhostVirtio, 0x77, "VHOST_VDPA_SET_CONFIG_CALL");
    public static readonly IoctlRequest VdpaGetIovaRange = IoctlRequest.Ior<VhostVdpaIovaRange>(VhostVirtio, 0x78, "VHOST_VDPA_GET_IOVA_RANGE");
    public static readonly IoctlRequest VdpaGetConfigSize = IoctlRequest.Ior<uint>(VhostVirtio, 0x79, "VHOST_VDPA_GET_CONFIG_SIZE");
    public static readonly IoctlRequest VdpaGetAsNum = IoctlRequest.Ior<uint>(VhostVirtio, 0x7A, "VHOST_VDPA_GET_AS_NUM");
    public static readonly IoctlRequest VdpaGetVringGroup = IoctlRequest.Iowr<VhostVringState>(VhostVirtio, 0x7B, "VHOST_VDPA_GET_VRING_GROUP");
    public static readonly IoctlRequest VdpaSetGroupAsid = IoctlRequest.Iow<VhostVringState>(VhostVirtio, 0x7C, "VHOST_VDPA_SET_GROUP_ASID");
    public static readonly IoctlRequest VdpaSuspend = IoctlRequest.Io(VhostVirtio, 0x7D, "VHOST_VDPA_SUSPEND");
    public static readonly IoctlRequest VdpaResume = IoctlRequest.Io(VhostVirtio, 0x7E, "VHOST_VDPA_RESUME");
    public static readonly IoctlRequest VdpaGetVringDescGroup = IoctlRequest.Iowr<VhostVringState>(VhostVirtio, 0x7F, "VHOST_VDPA_GET_VRING_DESC_GROUP");
    public static readonly IoctlRequest VdpaGetVqsCount = IoctlRequest.Ior<uint>(VhostVirtio, 0x80, "VHOST_VDPA_GET_VQS_COUNT");
    public static readonly IoctlRequest VdpaGetGroupNum = IoctlRequest.Ior<uint>(VhostVirtio, 0x81, "VHOST_VDPA_GET_GROUP_NUM");
    public static readonly IoctlRequest VdpaGetVringSize = IoctlRequest.Iowr<VhostVringState>(VhostVirtio, 0x82, "VHOST_VDPA_GET_VRING_SIZE");
}
