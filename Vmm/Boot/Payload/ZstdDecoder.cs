using ZstdSharp;
using ZstdSharp.Unsafe;

namespace Vmm.Boot.Payload;

/// <summary>Zstandard (RFC 8878). Decoded in one call, which needs no window beside the target.</summary>
internal sealed class ZstdDecoder : WholeDecoder
{
    private const int LargestWindow = 31;   // 2 GiB, of which only what is decoded is touched; the tool's --long=31

    /// <inheritdoc/>
    public override string Format => "zstd";

    /// <inheritdoc/>
    public override void DecodeHead(in MappedRange packed, Span<byte> head)
    {
        using Stream source = packed.Slice(0, packed.Length - SizeTrailer).OpenStream();
        using var stream = new DecompressionStream(source);
        stream.SetParameter(ZSTD_dParameter.ZSTD_d_windowLogMax, LargestWindow);
        stream.ReadExactly(head);
    }

    /// <inheritdoc/>
    protected override void Decode(in MappedRange packed, Span<byte> target)
    {
        using var decompressor = new Decompressor();
        int size = decompressor.Unwrap(packed.Bytes[..^SizeTrailer], target);
        if (size != target.Length)
            throw new InvalidDataException($"{size} bytes instead of {target.Length}");
    }
}
