using System.Runtime.InteropServices;

namespace Vmm.Vhost.User.Protocol;

// The payloads of messages as they are on the wire, in the byte order of the host.

/// <summary>A ring and a number (vhost-user.rst, "A vring state description").</summary>
/// <param name="Index">The ring.</param>
/// <param name="Num">A size, a base, or 0 or 1.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct VringState(uint Index, uint Num)
{
    /// <summary>Bytes on the wire.</summary>
    public const int WireSize = 8;
}

/// <summary>Where a ring is (vhost-user.rst, "A vring address description"), in the front-end's addresses (or, with GPA_ADDRESSES,
/// guest-physical ones).</summary>
/// <param name="Index">The ring.</param>
/// <param name="Flags">Bit 0: writes to the used ring are logged at <paramref name="Log"/>.</param>
/// <param name="Descriptor">The descriptor table.</param>
/// <param name="Used">The used ring.</param>
/// <param name="Available">The available ring.</param>
/// <param name="Log">The used ring's guest-physical address, for the log.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct VringAddress(uint Index, uint Flags, ulong Descriptor, ulong Used, ulong Available, ulong Log)
{
    /// <summary>Bytes on the wire.</summary>
    public const int WireSize = 40;

    /// <summary>VHOST_VRING_F_LOG.</summary>
    public const uint FlagLog = 1;
}

/// <summary>A piece of memory (vhost-user.rst, "Memory region description").</summary>
/// <param name="GuestAddress">Where the guest sees it.</param>
/// <param name="Size">Bytes.</param>
/// <param name="UserAddress">Where it is in the front-end's addresses; a name, not to be used as an address by a back-end.</param>
/// <param name="MmapOffset">Where it begins in its file.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct MemoryRegionPayload(ulong GuestAddress, ulong Size, ulong UserAddress, ulong MmapOffset)
{
    /// <summary>Bytes on the wire.</summary>
    public const int WireSize = 32;
}

/// <summary>What a memory table begins with; the regions follow (vhost-user.rst, "Multiple Memory regions description").</summary>
/// <param name="RegionCount">Regions.</param>
/// <param name="Padding">0.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct MemoryTableHeader(uint RegionCount, uint Padding)
{
    /// <summary>Bytes on the wire.</summary>
    public const int WireSize = 8;

    /// <summary>The most regions that any back-end takes in one table.</summary>
    public const int MaxRegions = 8;
}

/// <summary>One piece of memory by itself (vhost-user.rst, "Single memory region description").</summary>
/// <param name="Padding">0.</param>
/// <param name="Region">The region.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct SingleMemoryRegion(ulong Padding, MemoryRegionPayload Region)
{
    /// <summary>Bytes on the wire.</summary>
    public const int WireSize = 40;
}

/// <summary>The dirty log (vhost-user.rst, "Log description").</summary>
/// <param name="Size">Bytes.</param>
/// <param name="Offset">Where it begins in its file.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct LogPayload(ulong Size, ulong Offset)
{
    /// <summary>Bytes on the wire.</summary>
    public const int WireSize = 16;
}

/// <summary>An entry of the IOTLB that is wanted, given or taken away (vhost-user.rst, "An IOTLB message"; struct vhost_iotlb_msg).</summary>
/// <param name="Iova">The device's address.</param>
/// <param name="Size">Bytes.</param>
/// <param name="UserAddress">The front-end's address.</param>
/// <param name="Permissions">1 read, 2 write, 3 both.</param>
/// <param name="Type">1 miss, 2 update, 3 invalidate, 4 access failed.</param>
[StructLayout(LayoutKind.Sequential, Size = WireSize)]
public readonly record struct IotlbPayload(ulong Iova, ulong Size, ulong UserAddress, byte Permissions, byte Type)
{
    /// <summary>Bytes on the wire.</summary>
    public const int WireSize = 32;
}

/// <summary>What a piece of the configuration space begins with; the bytes follow (vhost-user.rst, "Virtio device config space").</summary>
/// <param name="Offset">Where it begins.</param>
/// <param name="Size">Bytes.</param>
/// <param name="Flags">0: the driver writes what it may; 1: live migration. Peers of rust-vmm's make send 1 for "writable" and 2.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct ConfigHeader(uint Offset, uint Size, uint Flags)
{
    /// <summary>Bytes on the wire, without the configuration.</summary>
    public const int WireSize = 12;

    /// <summary>VHOST_USER_MAX_CONFIG_SIZE: more than this, QEMU's implementations take from nobody.</summary>
    public const int MaxConfigSize = 256;
}

/// <summary>A piece of a file that notifies a queue (vhost-user.rst, "Vring area description").</summary>
/// <param name="Queue">Bits 7:0 the ring, bit 8 no descriptor.</param>
/// <param name="Size">Bytes.</param>
/// <param name="Offset">Where it begins in the file.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct VringArea(ulong Queue, ulong Size, ulong Offset)
{
    /// <summary>Bytes on the wire.</summary>
    public const int WireSize = 24;
}

/// <summary>The memory that keeps track of requests in flight (vhost-user.rst, "Inflight description").</summary>
/// <param name="MmapSize">Bytes.</param>
/// <param name="MmapOffset">Where it begins in its file.</param>
/// <param name="RingCount">Rings.</param>
/// <param name="QueueSize">Descriptors in a ring.</param>
[StructLayout(LayoutKind.Sequential, Size = WireSize)]
public readonly record struct InflightPayload(ulong MmapSize, ulong MmapOffset, ushort RingCount, ushort QueueSize)
{
    /// <summary>Bytes on the wire: 20 of contents, sent as 24 as a C compiler lays it out. libvhost-user aborts on 20.</summary>
    public const int WireSize = 24;

    /// <summary>The bytes that mean something: so many must be there at least.</summary>
    public const int MinWireSize = 20;
}

/// <summary>Which way the device's inner state goes (vhost-user.rst, "Device state transfer parameters").</summary>
/// <param name="Direction">0 save, 1 load.</param>
/// <param name="Phase">0: the device is stopped.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct DeviceStatePayload(uint Direction, uint Phase)
{
    /// <summary>Bytes on the wire.</summary>
    public const int WireSize = 8;
}

/// <summary>A mapping in a shared-memory region of the device (vhost-user.rst, "MMap description").</summary>
/// <param name="ShmId">The region; the upper 7 bytes are padding.</param>
/// <param name="FdOffset">Where it begins in the file.</param>
/// <param name="ShmOffset">Where it begins in the region.</param>
/// <param name="Length">Bytes.</param>
/// <param name="Flags">Bit 0: may be written.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct ShmemMapPayload(ulong ShmId, ulong FdOffset, ulong ShmOffset, ulong Length, ulong Flags)
{
    /// <summary>Bytes on the wire.</summary>
    public const int WireSize = 40;

    /// <summary>VHOST_USER_FLAG_MAP_RW.</summary>
    public const ulong FlagWritable = 1;
}

/// <summary>Sizes of payloads that have no structure here.</summary>
public static class PayloadSize
{
    /// <summary>A number of 64 bits.</summary>
    public const int U64 = 8;

    /// <summary>The UUID of a shared object.</summary>
    public const int Uuid = 16;

    /// <summary>Shared-memory regions: their number, padding, and 256 sizes by id (vhost-user.rst, "Shared memory configuration").</summary>
    public const int ShmemConfig = 8 + 256 * 8;
}

/// <summary>The number that comes with kick, call and err (vhost-user.rst, "A u64 integer" of VHOST_USER_SET_VRING_KICK).</summary>
public static class VringDescriptor
{
    /// <summary>The ring's index, 8 bits: a device has at most 256 rings.</summary>
    public const ulong IndexMask = 0xFF;

    /// <summary>No descriptor comes with the message.</summary>
    public const ulong NoFd = 1 << 8;
}
