using System.Buffers.Binary;
using SharpCompress.Compressors.LZMA;

namespace Vmm.Boot.Payload;

/// <summary>The old .lzma format: 5 bytes of properties, 8 of unpacked size, then the LZMA stream (LZMA SDK, lzma-specification.txt).</summary>
internal sealed class LzmaDecoder : StreamDecoder
{
    private const int PropertiesSize = 5;
    private const int HeaderSize = 13;

    /// <inheritdoc/>
    public override string Format => "lzma";

    /// <inheritdoc/>
    public override void DecodeHead(in MappedRange packed, Span<byte> head)
    {
        base.DecodeHead(packed, head);
        LzmaDictionary.Release(DictionarySize(packed));
    }

    /// <inheritdoc/>
    public override void Decode(in MappedRange packed, int length, IPayloadSink sink)
    {
        base.Decode(packed, length, sink);
        LzmaDictionary.Release(DictionarySize(packed));
    }

    /// <inheritdoc/>
    protected override Stream Open(in MappedRange packed)
    {
        uint dictionary = DictionarySize(packed);
        if (dictionary is 0 or > LzmaDictionary.MaxSize)
            throw new InvalidDataException($"dictionary of {dictionary} bytes; at most {LzmaDictionary.MaxSize} are possible");
        long size = BinaryPrimitives.ReadInt64LittleEndian(packed.Bytes[PropertiesSize..]);   // -1: an end marker ends it
        MappedRange body = packed.Slice(HeaderSize, packed.Length - HeaderSize - SizeTrailer);
        return LzmaStream.Create(
            packed.Bytes[..PropertiesSize].ToArray(), new StrictStream(body.OpenStream()), -1, size < 0 ? -1 : size, null, false);
    }

    private static uint DictionarySize(in MappedRange packed) => BinaryPrimitives.ReadUInt32LittleEndian(packed.Bytes[1..]);
}
