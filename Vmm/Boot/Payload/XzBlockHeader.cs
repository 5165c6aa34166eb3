using System.Buffers.Binary;

namespace Vmm.Boot.Payload;

/// <summary>How a block of an xz stream is packed (The .xz File Format 1.2.1, §3.1).</summary>
/// <param name="DictionaryProperty">LZMA2's one property byte: the size of the dictionary.</param>
/// <param name="HasX86Filter">Whether branch targets were made absolute before packing.</param>
internal readonly record struct XzBlockHeader(byte DictionaryProperty, bool HasX86Filter)
{
    private const ulong FilterX86 = 0x04;
    private const ulong FilterLzma2 = 0x21;
    private const byte LargestProperty = 40;
    private const int HasPackedSize = 0x40;
    private const int HasUnpackedSize = 0x80;
    private const int FilterCountMask = 0x03;
    private const int ReservedFlags = 0x3C;
    private const int CrcSize = 4;

    /// <summary>The size of the dictionary in bytes.</summary>
    public uint DictionarySize => (uint)SizeOf(DictionaryProperty);

    /// <summary>Reads the header of the next block.</summary>
    /// <returns>Null at the index, which follows the last block.</returns>
    /// <exception cref="InvalidDataException">It is damaged, or names filters that the kernel does not use.</exception>
    public static XzBlockHeader? Read(StrictStream source)
    {
        int first = source.ReadByte();
        if (first == 0)
            return null;
        byte[] header = new byte[(first + 1) * 4];
        header[0] = (byte)first;
        source.ReadExactly(header, 1, header.Length - 1);
        if (Crc32.Compute(header.AsSpan(..^CrcSize)) != BinaryPrimitives.ReadUInt32LittleEndian(header.AsSpan(^CrcSize..)))
            throw new InvalidDataException("block header: wrong CRC");

        ReadOnlySpan<byte> rest = header.AsSpan(1..^CrcSize);
        int flags = rest[0];
        rest = rest[1..];
        if ((flags & ReservedFlags) != 0)
            throw new InvalidDataException($"block header: flags 0x{flags:x}");
        if ((flags & HasPackedSize) != 0)
            _ = ReadNumber(ref rest);
        if ((flags & HasUnpackedSize) != 0)
            _ = ReadNumber(ref rest);
        return ReadFilters(rest, (flags & FilterCountMask) + 1);
    }

    private static XzBlockHeader ReadFilters(ReadOnlySpan<byte> rest, int count)
    {
        bool x86 = false;
        for (int i = 0; i < count; i++)
        {
            ulong filter = ReadNumber(ref rest);
            ulong size = ReadNumber(ref rest);
            if (size > (ulong)rest.Length)
                throw new InvalidDataException("block header: filter properties beyond its end");
            ReadOnlySpan<byte> properties = rest[..(int)size];
            rest = rest[(int)size..];
            bool isLast = i == count - 1;
            if (isLast && filter == FilterLzma2 && properties.Length == 1)
                return new XzBlockHeader(CheckDictionary(properties[0]), x86);
            if (isLast || x86 || filter != FilterX86 || properties.IndexOfAnyExcept((byte)0) >= 0)
                throw new InvalidDataException($"block header: filter 0x{filter:x}; LZMA2, alone or behind x86, is what Linux uses");
            x86 = true;
        }
        throw new InvalidDataException("block header: no filter");
    }

    private static byte CheckDictionary(byte property) =>
        property <= LargestProperty && SizeOf(property) <= LzmaDictionary.MaxSize
            ? property
            : throw new InvalidDataException(
                $"block header: dictionary property {property}; at most {LzmaDictionary.MaxSize >> 20} MiB are possible");

    private static ulong SizeOf(byte property) => (2UL | (property & 1u)) << ((property / 2) + 11);

    private static ulong ReadNumber(ref ReadOnlySpan<byte> rest)
    {
        ulong value = 0;
        for (int i = 0; i < 9 && i < rest.Length; i++)
        {
            value |= (ulong)(rest[i] & 0x7F) << (7 * i);
            if (rest[i] < 0x80)
            {
                rest = rest[(i + 1)..];
                return value;
            }
        }
        throw new InvalidDataException("block header: a number does not end");
    }
}
