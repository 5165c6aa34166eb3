using System.Buffers.Binary;

namespace Vmm.Boot.Payload;

/// <summary>CRC-32 as xz and gzip use it (IEEE 802.3, reflected), eight bytes at a time.</summary>
internal static class Crc32
{
    private const uint Polynomial = 0xEDB88320;
    private const int Slices = 8;

    /// <summary>The CRC of <paramref name="data"/>.</summary>
    public static uint Compute(ReadOnlySpan<byte> data)
    {
        uint[] table = MakeTable();
        uint crc = uint.MaxValue;
        while (data.Length >= Slices)
        {
            ulong word = BinaryPrimitives.ReadUInt64LittleEndian(data) ^ crc;
            crc = 0;
            for (int i = 0; i < Slices; i++)
                crc ^= table[((Slices - 1 - i) * 256) + (byte)(word >> (8 * i))];
            data = data[Slices..];
        }
        foreach (byte value in data)
            crc = table[(byte)(crc ^ value)] ^ (crc >> 8);
        return ~crc;
    }

    // Made anew each time: it is needed for one kernel in a run, and not worth 8 KiB for the rest of it.
    private static uint[] MakeTable()
    {
        uint[] table = new uint[Slices * 256];
        for (uint i = 0; i < 256; i++)
        {
            uint value = i;
            for (int bit = 0; bit < 8; bit++)
                value = (value >> 1) ^ ((value & 1) * Polynomial);
            table[i] = value;
        }
        // Row k: the effect of a byte that k more bytes follow.
        for (int i = 256; i < table.Length; i++)
            table[i] = (table[i - 256] >> 8) ^ table[(byte)table[i - 256]];
        return table;
    }
}
