using System.Numerics;
using System.Runtime.InteropServices;

namespace Vmm.Boot.Cache;

/// <summary>Tells a file that was written in part, or has changed, from one that is sound: four CRC-32C of every fourth word each, so that a processor can work on
/// all of them at a time. It is no protection against somebody who changes the file on purpose.</summary>
internal struct PageChecksum
{
    /// <summary>Bytes of a checksum, and what it is taken over is a multiple of it.</summary>
    public const int Step = 4 * sizeof(ulong), Size = 4 * sizeof(uint);

    private uint _first = uint.MaxValue, _second = uint.MaxValue, _third = uint.MaxValue, _fourth = uint.MaxValue;

    /// <summary>The checksum of nothing.</summary>
    public PageChecksum()
    {
    }

    /// <summary>Goes on with <paramref name="bytes"/>, a multiple of <see cref="Step"/>.</summary>
    public void Add(ReadOnlySpan<byte> bytes)
    {
        ArgumentOutOfRangeException.ThrowIfNotEqual(bytes.Length % Step, 0);
        (uint first, uint second, uint third, uint fourth) = (_first, _second, _third, _fourth);
        for (ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(bytes); words.Length >= 4; words = words[4..])
        {
            first = BitOperations.Crc32C(first, words[0]);
            second = BitOperations.Crc32C(second, words[1]);
            third = BitOperations.Crc32C(third, words[2]);
            fourth = BitOperations.Crc32C(fourth, words[3]);
        }
        (_first, _second, _third, _fourth) = (first, second, third, fourth);
    }

    /// <summary>The result so far.</summary>
    public readonly UInt128 Value => new(((ulong)_first << 32) | _second, ((ulong)_third << 32) | _fourth);
}
