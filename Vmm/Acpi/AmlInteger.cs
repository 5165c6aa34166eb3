using System.Buffers.Binary;

namespace Vmm.Acpi;

/// <summary>AML's integer constants (ACPI 6.5 §20.2.3), of 64 bits: the table's revision is at least 2.</summary>
internal static class AmlInteger
{
    /// <summary>At most this many bytes.</summary>
    public const int MaxSize = 9;

    private const byte ZeroOp = 0x00;
    private const byte OneOp = 0x01;
    private const byte BytePrefix = 0x0A;
    private const byte WordPrefix = 0x0B;
    private const byte DWordPrefix = 0x0C;
    private const byte QWordPrefix = 0x0E;
    private const byte OnesOp = 0xFF;

    /// <summary>Writes <paramref name="value"/> in its shortest form.</summary>
    /// <returns>How many of <paramref name="destination"/>'s bytes it took, 1 to <see cref="MaxSize"/>.</returns>
    public static int Encode(Span<byte> destination, ulong value)
    {
        (byte op, int size) = value switch
        {
            0 => (ZeroOp, 0),
            1 => (OneOp, 0),
            <= byte.MaxValue => (BytePrefix, 1),
            <= ushort.MaxValue => (WordPrefix, 2),
            <= uint.MaxValue => (DWordPrefix, 4),
            ulong.MaxValue => (OnesOp, 0),
            _ => (QWordPrefix, 8),
        };
        Span<byte> littleEndian = stackalloc byte[sizeof(ulong)];
        BinaryPrimitives.WriteUInt64LittleEndian(littleEndian, value);
        destination[0] = op;
        littleEndian[..size].CopyTo(destination[1..]);
        return 1 + size;
    }
}
