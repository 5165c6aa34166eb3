namespace Vmm.Devices.Backends.Block;

/// <summary>A block device, and the image behind it.</summary>
public sealed record BlockOptions
{
    /// <summary>What <see cref="Path"/> begins with for a device without an image, behind it the size in bytes: its writes are dropped, its
    /// reads leave the buffers as they are. To measure by.</summary>
    public const string NullPrefix = "null:";

    /// <summary>The largest <see cref="Queues"/>.</summary>
    public const int MaxQueues = 64;

    /// <summary>The most characters of a <see cref="Serial"/>.</summary>
    public const int MaxSerial = 20;

    /// <summary>The largest <see cref="LogicalBlockSize"/>: more than a page is too much for Linux before 6.15.</summary>
    public const int MaxLogicalBlockSize = 4096;

    /// <summary>A raw image or a block device, or <c>null:SIZE</c>. Its content is never looked at to find out a format: a guest that writes
    /// another format's header into its disk would get at files of the host's by it.</summary>
    public required string Path { get; init; }

    /// <summary>Whether the guest may not write.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>Past the page cache (O_DIRECT).</summary>
    public bool Direct { get; init; }

    /// <summary>Request queues, 1 to <see cref="MaxQueues"/>.</summary>
    public int Queues { get; init; } = 1;

    /// <summary>What the guest reads as the disk's serial number, ASCII; null for one made from the file's identity.</summary>
    public string? Serial { get; init; }

    /// <summary>The sectors that the guest sees, in bytes: a power of two from 512 to <see cref="MaxLogicalBlockSize"/>; null for those of the block device, and
    /// 512 for a file.</summary>
    public int? LogicalBlockSize { get; init; }

    /// <summary>When the image is locked against other programs.</summary>
    public BlockLocking Locking { get; init; }

    /// <summary>What the disk at <see cref="Path"/> must be (<see cref="Vmm.Vhost.Native.DiskFile.Key"/>), for a back-end that takes the place of one that had it open; null for whatever
    /// is there.</summary>
    public string? Key { get; init; }

    /// <summary>Whether the guest can give parts of the disk back (VIRTIO_BLK_F_DISCARD): the image then takes less room on the host. If not, no
    /// request of the guest makes a hole in it.</summary>
    public bool Discard { get; init; } = true;

    /// <summary>What does the disk's reads, writes and flushes, so that no queue waits for them.</summary>
    public BlockEngineKind Engine { get; init; }
}
