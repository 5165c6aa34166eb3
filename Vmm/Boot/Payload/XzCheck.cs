using System.Buffers.Binary;

namespace Vmm.Boot.Payload;

/// <summary>The check value behind each block of an xz stream (The .xz File Format 1.2.1, §2.1.1.2). CRC-32, the one that Linux uses, is
/// verified; others are skipped.</summary>
internal readonly struct XzCheck(byte type)
{
    private const byte Crc32Type = 1;
    private const int MaxSize = 64;

    private int Size => type switch
    {
        0 => 0,
        <= 3 => 4,
        <= 6 => 8,
        <= 9 => 16,
        <= 12 => 32,
        <= 15 => MaxSize,
        _ => throw new InvalidDataException($"stream header: check type {type}"),
    };

    /// <summary>Reads the value from <paramref name="source"/> and compares it with that of <paramref name="data"/>.</summary>
    public void Verify(Stream source, ReadOnlySpan<byte> data)
    {
        Span<byte> stored = stackalloc byte[MaxSize];
        stored = stored[..Size];
        source.ReadExactly(stored);
        if (type == Crc32Type && BinaryPrimitives.ReadUInt32LittleEndian(stored) != Crc32.Compute(data))
            throw new InvalidDataException("wrong CRC");
    }
}
