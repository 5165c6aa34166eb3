namespace Vmm.Boot.Payload;

/// <summary>Unpacks the compressed kernel in a bzImage. What is packed is not trusted: a decoder writes nothing outside its target, comes
/// to an end, and reports damage by an exception of any type with a message that says what is wrong.</summary>
internal abstract class PayloadDecoder
{
    /// <summary>Every format but gzip has the unpacked size appended; gzip ends with it anyway.</summary>
    protected const int SizeTrailer = 4;

    /// <summary>The format's usual name.</summary>
    public abstract string Format { get; }

    /// <summary>The decoder for what begins with these bytes, or null for a format that is left to the guest (lzo, or one of the future).</summary>
    public static PayloadDecoder? For(ReadOnlySpan<byte> packed) => packed switch
    {
        [0x02, 0x21, 0x4C, 0x18, ..] => new Lz4Decoder(),
        [0x1F, 0x8B, ..] => new GzipDecoder(),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => new ZstdDecoder(),
        [0xFD, (byte)'7', (byte)'z', (byte)'X', (byte)'Z', 0x00, ..] => new XzDecoder(),
        [0x5D, 0x00, 0x00, ..] => new LzmaDecoder(),
        [(byte)'B', (byte)'Z', (byte)'h', ..] => new Bzip2Decoder(),
        _ => null,
    };

    /// <summary>Unpacks only the first bytes, enough to fill <paramref name="head"/>.</summary>
    public abstract void DecodeHead(in MappedRange packed, Span<byte> head);

    /// <summary>Unpacks all of it.</summary>
    /// <param name="packed">What to unpack.</param>
    /// <param name="length">How many bytes it must unpack to.</param>
    /// <param name="sink">Takes them: all that it takes was there, but whether the whole is sound is known only when this returns.</param>
    public abstract void Decode(in MappedRange packed, int length, IPayloadSink sink);
}
