using System.Buffers.Binary;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Devices.Backends.Block;

/// <summary>Reads requests out of descriptor chains, however the driver has cut them up (VIRTIO 1.2 §2.6.4), and checks what they ask for.</summary>
internal static class BlockRequestParser
{
    private const int HeaderSize = 16;      // struct virtio_blk_req up to the data (VIRTIO 1.2 §5.2.6)
    private const int RangeSize = 16;       // struct virtio_blk_discard_write_zeroes
    private const uint UnmapFlag = 1;
    private const ulong MaxLength = 1 << 30;

    /// <summary>Finds the last byte that the device may write: the status.</summary>
    /// <returns>False if there is none.</returns>
    public static bool TryFindStatus(in DescriptorChain chain, out GuestBuffer status)
    {
        for (int i = chain.Writable.Length - 1; i >= 0; i--)
        {
            GuestBuffer buffer = chain.Writable[i];
            if (buffer.Length > 0)
            {
                status = new GuestBuffer(buffer.Address + (nint)(buffer.Length - 1), 1);
                return true;
            }
        }
        status = default;
        return false;
    }

    /// <summary>Makes <paramref name="request"/> what the chain asks for.</summary>
    /// <param name="chain">The chain; it has a status.</param>
    /// <param name="image">The disk that it is measured by.</param>
    /// <param name="features">What the driver accepted.</param>
    /// <param name="request">Filled in as far as the operation, unless there is nothing more to be done.</param>
    /// <param name="status">The answer, unless there is something to be done.</param>
    /// <returns>Whether there is something to be done.</returns>
    public static bool TryParse(in DescriptorChain chain, BlockImage image, ulong features, BlockRequest request, out BlockStatus status)
    {
        status = BlockStatus.IoError;
        Span<byte> copy = stackalloc byte[HeaderSize];
        if (chain.Readable.Length > 0 && chain.Readable[0].Length >= HeaderSize)
            chain.Readable[0].Span[..HeaderSize].CopyTo(copy);
        else if (chain.Read(0, copy) != HeaderSize)
            return false;
        request.Type = (BlockRequestType)BinaryPrimitives.ReadUInt32LittleEndian(copy);
        ulong sector = BinaryPrimitives.ReadUInt64LittleEndian(copy[8..]);
        switch (request.Type)
        {
            case BlockRequestType.In:
                return TryParseTransfer(chain.Writable, 0, chain.WritableLength - 1, sector, image, BlockOperation.Read, request);
            case BlockRequestType.Out:
                return !image.IsReadOnly
                    && TryParseTransfer(chain.Readable, HeaderSize, chain.ReadableLength - HeaderSize, sector, image, BlockOperation.Write, request);
            case BlockRequestType.Flush:
                request.Operation = BlockOperation.Sync;
                return true;
            case BlockRequestType.GetId:
                status = WriteId(in chain, image.Serial, request);
                return false;
            case BlockRequestType.Discard when (features & BlockFeatures.Discard) != 0:
                return !image.IsReadOnly && TryParseRanges(in chain, image, 0, request, out status);
            case BlockRequestType.WriteZeroes when (features & BlockFeatures.WriteZeroes) != 0:
                return !image.IsReadOnly && TryParseRanges(in chain, image, UnmapFlag, request, out status);
            default:
                status = BlockStatus.Unsupported;
                return false;
        }
    }

    private static bool TryParseTransfer(ReadOnlySpan<GuestBuffer> buffers, ulong skip, ulong length, ulong sector, BlockImage image,
        BlockOperation operation, BlockRequest request)
    {
        if (length > MaxLength || !IsInside(image, sector, length))
            return false;
        request.Operation = operation;
        request.Offset = sector * BlockImage.SectorSize;
        request.IsUnaligned = !image.IsWhole(request.Offset, length);
        return request.TryGather(buffers, skip, length);
    }

    // Compared by division and subtraction, so nothing can wrap.
    private static bool IsInside(BlockImage image, ulong sector, ulong length)
    {
        ulong capacity = image.Capacity;
        ulong sectors = length / BlockImage.SectorSize;
        ulong block = (ulong)image.BlockSize;
        return length % block == 0 && sectors <= capacity && sector <= capacity - sectors && sector * BlockImage.SectorSize % block == 0;
    }

    private static bool TryParseRanges(in DescriptorChain chain, BlockImage image, uint allowedFlags, BlockRequest request, out BlockStatus status)
    {
        status = BlockStatus.IoError;
        ulong length = chain.ReadableLength - HeaderSize;
        if (length == 0 || length % RangeSize != 0 || length / RangeSize > BlockConfigSpace.MaxRanges)
            return false;
        Span<byte> data = stackalloc byte[BlockConfigSpace.MaxRanges * RangeSize];
        data = data[..(int)length];
        _ = chain.Read(HeaderSize, data);
        for (; !data.IsEmpty; data = data[RangeSize..])
        {
            ulong sector = BinaryPrimitives.ReadUInt64LittleEndian(data);
            uint sectors = BinaryPrimitives.ReadUInt32LittleEndian(data[8..]);
            uint flags = BinaryPrimitives.ReadUInt32LittleEndian(data[12..]);
            if ((flags & ~allowedFlags) != 0)
            {
                status = BlockStatus.Unsupported;   // VIRTIO 1.2 §5.2.6.2
                return false;
            }
            if (sectors > BlockConfigSpace.MaxRangeSectors || !IsInside(image, sector, (ulong)sectors * BlockImage.SectorSize))
                return false;
            if (sectors > 0)
            {
                request.AddRange(new BlockRange(sector * BlockImage.SectorSize, (ulong)sectors * BlockImage.SectorSize, (flags & UnmapFlag) != 0));
            }
        }
        status = BlockStatus.Ok;    // of nothing
        return request.Ranges.Length > 0;
    }

    private static BlockStatus WriteId(in DescriptorChain chain, string serial, BlockRequest request)
    {
        // 20 bytes, with zeros behind what is shorter (VIRTIO 1.2 §5.2.6).
        Span<byte> id = stackalloc byte[BlockOptions.MaxSerial];
        id.Clear();
        for (int i = 0; i < Math.Min(serial.Length, id.Length); i++)
            id[i] = serial[i] is >= ' ' and <= '~' ? (byte)serial[i] : (byte)'?';
        int room = (int)Math.Min(chain.WritableLength - 1, (ulong)id.Length);
        request.Filled = (uint)chain.Write(0, id[..room]);
        return BlockStatus.Ok;
    }
}
