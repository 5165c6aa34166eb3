namespace Vmm.Devices.Backends.Block;

/// <summary>Feature bits of a block device (VIRTIO 1.2 §5.2.3).</summary>
internal static class BlockFeatures
{
    public const ulong SegmentLimit = 1UL << 2;      // VIRTIO_BLK_F_SEG_MAX
    public const ulong ReadOnly = 1UL << 5;          // VIRTIO_BLK_F_RO
    public const ulong BlockSize = 1UL << 6;         // VIRTIO_BLK_F_BLK_SIZE
    public const ulong Flush = 1UL << 9;             // VIRTIO_BLK_F_FLUSH
    public const ulong Topology = 1UL << 10;         // VIRTIO_BLK_F_TOPOLOGY
    public const ulong WriteCacheSwitch = 1UL << 11; // VIRTIO_BLK_F_CONFIG_WCE
    public const ulong MultiQueue = 1UL << 12;       // VIRTIO_BLK_F_MQ
    public const ulong Discard = 1UL << 13;          // VIRTIO_BLK_F_DISCARD
    public const ulong WriteZeroes = 1UL << 14;      // VIRTIO_BLK_F_WRITE_ZEROES
}

/// <summary>What a request is (<c>virtio_blk_req.type</c>, VIRTIO 1.2 §5.2.6).</summary>
internal enum BlockRequestType : uint
{
    In = 0,
    Out = 1,
    Flush = 4,
    GetId = 8,
    Discard = 11,
    WriteZeroes = 13,
}

/// <summary>What became of a request (<c>virtio_blk_req.status</c>, VIRTIO 1.2 §5.2.6).</summary>
internal enum BlockStatus : byte
{
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}
