using System.Buffers.Binary;
using System.Text;

namespace Vmm.Acpi;

/// <summary>A growing run of bytes, integers in little-endian order, that becomes an ACPI table.</summary>
internal sealed class TableBuffer
{
    private byte[] _bytes = new byte[512];

    /// <summary>Bytes so far.</summary>
    public int Length { get; private set; }

    /// <summary>The bytes so far, for reading and patching; valid until the next call that adds some.</summary>
    public Span<byte> Written => _bytes.AsSpan(0, Length);

    /// <summary>Adds a byte.</summary>
    public void Byte(byte value) => Extend(1)[0] = value;

    /// <summary>Adds a word, two bytes.</summary>
    public void Word(ushort value) => BinaryPrimitives.WriteUInt16LittleEndian(Extend(2), value);

    /// <summary>Adds a double word, four bytes.</summary>
    public void DWord(uint value) => BinaryPrimitives.WriteUInt32LittleEndian(Extend(4), value);

    /// <summary>Adds a quad word, eight bytes.</summary>
    public void QWord(ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(Extend(8), value);

    /// <summary>Adds <paramref name="text"/>, all ASCII, without a terminator, filled up to <paramref name="width"/> bytes.</summary>
    public void Ascii(ReadOnlySpan<char> text, int width, char fill = '\0')
    {
        Span<byte> field = Extend(width);
        int length = Encoding.ASCII.GetBytes(text, field);
        field[length..].Fill((byte)fill);
    }

    /// <summary>Adds <paramref name="count"/> zeroes.</summary>
    public void Zeroes(int count) => Extend(count);

    /// <summary>Adds <paramref name="bytes"/>.</summary>
    public void Bytes(ReadOnlySpan<byte> bytes) => bytes.CopyTo(Extend(bytes.Length));

    /// <summary>Makes room at <paramref name="position"/> for <paramref name="bytes"/>, moves what follows and puts them there.</summary>
    public void Insert(int position, ReadOnlySpan<byte> bytes)
    {
        Extend(bytes.Length);
        Span<byte> tail = Written[position..];
        tail[..^bytes.Length].CopyTo(tail[bytes.Length..]);
        bytes.CopyTo(tail);
    }

    private Span<byte> Extend(int count)
    {
        if (count > _bytes.Length - Length)
            Array.Resize(ref _bytes, Math.Max(checked(Length + count), 2 * _bytes.Length));
        Span<byte> added = _bytes.AsSpan(Length, count);
        Length += count;
        return added;
    }
}
