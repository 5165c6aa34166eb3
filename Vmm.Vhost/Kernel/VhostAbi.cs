using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Vmm.Vhost.Kernel;

// The structures of linux/vhost.h and linux/vhost_types.h, named as there. A test compares sizes, offsets and request
// numbers with the C headers.

/// <summary>struct vhost_vring_state.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct VhostVringState
{
    public uint Index;
    public uint Num;
}

/// <summary>struct vhost_vring_file.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct VhostVringFile
{
    /// <summary>VHOST_FILE_UNBIND: no file any more.</summary>
    public const int Unbind = -1;

    public uint Index;
    public int Fd;
}

/// <summary>struct vhost_vring_addr.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct VhostVringAddr
{
    public uint Index;
    public uint Flags;
    public ulong DescUserAddr;
    public ulong UsedUserAddr;
    public ulong AvailUserAddr;
    public ulong LogGuestAddr;
}

/// <summary>struct vhost_worker_state.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct VhostWorkerState
{
    public uint WorkerId;
}

/// <summary>struct vhost_vring_worker.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct VhostVringWorker
{
    public uint Index;
    public uint WorkerId;
}

/// <summary>The fixed part of struct vhost_memory; <see cref="VhostMemoryRegion"/>s follow.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct VhostMemory
{
    public uint Nregions;
    public uint Padding;
}

/// <summary>struct vhost_memory_region.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct VhostMemoryRegion
{
    public ulong GuestPhysAddr;
    public ulong MemorySize;
    public ulong UserspaceAddr;
    public ulong FlagsPadding;
}

/// <summary>struct vhost_iotlb_msg.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct VhostIotlbMsg
{
    /// <summary>VHOST_ACCESS_RW.</summary>
    public const byte AccessReadWrite = 3;

    /// <summary>VHOST_IOTLB_UPDATE: map.</summary>
    public const byte Update = 2;

    /// <summary>VHOST_IOTLB_INVALIDATE: unmap.</summary>
    public const byte Invalidate = 3;

    /// <summary>VHOST_IOTLB_BATCH_BEGIN.</summary>
    public const byte BatchBegin = 5;

    /// <summary>VHOST_IOTLB_BATCH_END.</summary>
    public const byte BatchEnd = 6;

    public ulong Iova;
    public ulong Size;
    public ulong Uaddr;
    public byte Perm;
    public byte Type;
}

/// <summary>struct vhost_msg_v2.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct VhostMsgV2
{
    /// <summary>VHOST_IOTLB_MSG_V2.</summary>
    public const uint IotlbMessage = 2;

    public uint Type;
    public uint Asid;
    public VhostIotlbMsg Iotlb;
    public Padding32 Padding;

    // The message is a union with 64 bytes of padding.
    [InlineArray(32)]
    public struct Padding32
    {
        private byte _element;
    }
}

/// <summary>The fixed part of struct vhost_features_array; 64-bit words of features follow.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct VhostFeaturesArray
{
    public ulong Count;
}

/// <summary>struct vhost_scsi_target.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct VhostScsiTarget
{
    /// <summary>VHOST_SCSI_ABI_VERSION.</summary>
    public const int CurrentAbi = 1;

    public int AbiVersion;
    public Wwpn VhostWwpn;
    public ushort VhostTpgt;
    public ushort Reserved;

    /// <summary>The name, ended by a zero byte.</summary>
    [InlineArray(Length)]
    public struct Wwpn
    {
        public const int Length = 224;
        private byte _element;
    }
}

/// <summary>The fixed part of struct vhost_vdpa_config; the bytes follow.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct VhostVdpaConfig
{
    public uint Off;
    public uint Len;
}

/// <summary>struct vhost_vdpa_iova_range: the first and the last address that can be mapped.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct VhostVdpaIovaRange
{
    public ulong First;
    public ulong Last;
}

/// <summary>What VHOST_GET_BACKEND_FEATURES tells: the bits VHOST_BACKEND_F_*, numbered in linux/vhost_types.h.</summary>
internal static class VhostBackendFeatures
{
    /// <summary>VHOST_BACKEND_F_IOTLB_MSG_V2.</summary>
    public const ulong IotlbMsgV2 = 1UL << 1;

    /// <summary>VHOST_BACKEND_F_IOTLB_BATCH.</summary>
    public const ulong IotlbBatch = 1UL << 2;

    /// <summary>VHOST_BACKEND_F_SUSPEND.</summary>
    public const ulong Suspend = 1UL << 4;
}
