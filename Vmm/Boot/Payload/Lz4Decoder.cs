using System.Buffers.Binary;
using K4os.Compression.LZ4;
using Vmm.Vhost.Native;

namespace Vmm.Boot.Payload;

/// <summary>The legacy LZ4 frame that the kernel's build makes (lz4_Frame_format.md 1.6.4, "Legacy frame"): a magic number, then blocks of
/// 8 MiB before compression, each behind its compressed size. Blocks do not refer to each other.</summary>
internal sealed class Lz4Decoder : PayloadDecoder
{
    private const uint Magic = 0x184C2102;
    private const int BlockSize = 8 << 20;
    private const int MaxPackedBlock = BlockSize + (BlockSize / 255) + 16;   // what incompressible bytes grow to

    /// <inheritdoc/>
    public override string Format => "lz4";

    /// <inheritdoc/>
    public override void DecodeHead(in MappedRange packed, Span<byte> head)
    {
        ReadOnlySpan<byte> rest = packed.Bytes[..^SizeTrailer];
        if (LZ4Codec.PartialDecode(NextBlock(ref rest), head) != head.Length)
            throw new InvalidDataException("block 0 does not decode");
    }

    /// <inheritdoc/>
    public override void Decode(in MappedRange packed, int length, IPayloadSink sink)
    {
        ReadOnlySpan<byte> rest = packed.Bytes[..^SizeTrailer];
        using MemoryMapping buffer = MemoryMapping.Allocate((uint)Math.Min(length, BlockSize));
        buffer.PreferHugePages();
        for (int done = 0; done < length; done += BlockSize)
        {
            Span<byte> piece = buffer.AsSpan()[..Math.Min(length - done, BlockSize)];
            if (LZ4Codec.Decode(NextBlock(ref rest), piece) != piece.Length)
                throw new InvalidDataException($"block {done / BlockSize} does not decode to {piece.Length} bytes");
            sink.Write(done, piece);
        }
        if (!rest.IsEmpty)
            throw new InvalidDataException($"{rest.Length} bytes are left after the unpacked size is reached");
    }

    private static ReadOnlySpan<byte> NextBlock(ref ReadOnlySpan<byte> rest)
    {
        // A frame may follow a frame, each with its magic number.
        while (rest.Length >= sizeof(uint) && BinaryPrimitives.ReadUInt32LittleEndian(rest) == Magic)
            rest = rest[sizeof(uint)..];
        if (rest.Length < sizeof(uint))
            throw new InvalidDataException("truncated");
        uint size = BinaryPrimitives.ReadUInt32LittleEndian(rest);
        rest = rest[sizeof(uint)..];
        if (size is 0 or > MaxPackedBlock || size > (uint)rest.Length)
            throw new InvalidDataException($"a block has {size} bytes, {rest.Length} are left");
        ReadOnlySpan<byte> block = rest[..(int)size];
        rest = rest[(int)size..];
        return block;
    }
}
