using System.Buffers.Binary;
using System.Numerics;

namespace Vmm.Devices.Backends.Block;

/// <summary>The configuration of a block device, <c>struct virtio_blk_config</c> (VIRTIO 1.2 §5.2.4), as far as write zeroes.</summary>
internal static class BlockConfigSpace
{
    /// <summary>Bytes.</summary>
    public const int Size = 60;

    /// <summary>Where <c>writeback</c> is, the only field that a driver may write.</summary>
    public const int WriteCacheOffset = 32;

    /// <summary>Buffers of data in a request.</summary>
    public const int MaxSegments = 126;

    /// <summary>Ranges in a discard or write zeroes.</summary>
    public const int MaxRanges = 16;

    /// <summary>The most sectors of such a range: just below 2 GiB. The driver is told of fewer, as <see cref="WholeRange"/> says.</summary>
    public const uint MaxRangeSectors = 0x3FFFFF;

    /// <summary>Fills <paramref name="config"/>, or as much of it as there is room for.</summary>
    public static void Write(Span<byte> config, BlockImage image, int queues, bool writeCache)
    {
        Span<byte> all = stackalloc byte[Size];
        all.Clear();
        int blockSize = image.BlockSize;
        BinaryPrimitives.WriteUInt64LittleEndian(all, image.Capacity);
        BinaryPrimitives.WriteUInt32LittleEndian(all[12..], MaxSegments);
        BinaryPrimitives.WriteUInt32LittleEndian(all[20..], (uint)blockSize);
        all[24] = (byte)BitOperations.Log2((uint)(image.PhysicalBlockSize / blockSize));
        BinaryPrimitives.WriteUInt16LittleEndian(all[26..], (ushort)Math.Clamp((image.File?.MinimumTransfer ?? 0) / blockSize, 1, ushort.MaxValue));
        BinaryPrimitives.WriteUInt32LittleEndian(all[28..], (uint)((image.File?.OptimalTransfer ?? 0) / blockSize));
        all[WriteCacheOffset] = writeCache ? (byte)1 : (byte)0;
        BinaryPrimitives.WriteUInt16LittleEndian(all[34..], (ushort)queues);
        if (image.CanDiscard)
        {
            int granularity = Math.Max(image.File?.DiscardGranularity ?? 0, image.PhysicalBlockSize);
            BinaryPrimitives.WriteUInt32LittleEndian(all[36..], WholeRange(granularity));
            BinaryPrimitives.WriteUInt32LittleEndian(all[40..], MaxRanges);
            BinaryPrimitives.WriteUInt32LittleEndian(all[44..], (uint)(granularity / BlockImage.SectorSize));
            all[56] = 1;    // write_zeroes_may_unmap
        }
        BinaryPrimitives.WriteUInt32LittleEndian(all[48..], WholeRange(image.PhysicalBlockSize));
        BinaryPrimitives.WriteUInt32LittleEndian(all[52..], MaxRanges);
        all[..Math.Min(config.Length, Size)].CopyTo(config);
    }

    // The longest range of whole units. A driver cuts what is longer into pieces of just this length, and each of them has to begin with a block.
    private static uint WholeRange(int unit)
    {
        uint sectors = (uint)unit / BlockImage.SectorSize;
        return MaxRangeSectors - MaxRangeSectors % sectors;
    }
}
