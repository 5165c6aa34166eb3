namespace Vmm.Acpi;

/// <summary>AML's PkgLength: the length of a block, the bytes of the PkgLength itself included (ACPI 6.5 §20.2.4).</summary>
internal static class PkgLength
{
    /// <summary>At most this many bytes.</summary>
    public const int MaxSize = 4;

    /// <summary>The longest block, without its PkgLength, in bytes.</summary>
    public const int MaxBody = (1 << 28) - 1 - MaxSize;

    /// <summary>Writes the PkgLength of a block of <paramref name="body"/> bytes in its shortest form.</summary>
    /// <returns>How many of <paramref name="destination"/>'s bytes it took, 1 to <see cref="MaxSize"/>.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The block is longer than <see cref="MaxBody"/>.</exception>
    public static int Encode(Span<byte> destination, int body)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(body);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(body, MaxBody);
        // One byte has 6 bits for the length. Several have 4 in the lead byte, the lowest ones, and 8 in each that follows.
        if (body + 1 < 1 << 6)
        {
            destination[0] = (byte)(body + 1);
            return 1;
        }
        int size = body + 2 < 1 << 12 ? 2 : body + 3 < 1 << 20 ? 3 : 4;
        int length = body + size;
        destination[0] = (byte)(((size - 1) << 6) | (length & 0xF));
        for (int i = 1; i < size; i++)
            destination[i] = (byte)(length >> (8 * i - 4));
        return size;
    }
}
