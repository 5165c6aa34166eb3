namespace Vmm.Acpi;

/// <summary>AML's NameString: a path in the ACPI namespace (ACPI 6.5 §20.2.2).</summary>
internal static class NameString
{
    private const int SegmentSize = 4;
    private const byte DualNamePrefix = 0x2E;
    private const byte MultiNamePrefix = 0x2F;
    private const byte NullName = 0x00;

    /// <summary>Adds <paramref name="path"/>, written as in ASL: <c>\</c> for the root or one <c>^</c> for each step up, then at
    /// most 255 segments, split by dots, of 1 to 4 capitals, digits and underscores that do not begin with a digit.</summary>
    /// <exception cref="ArgumentException">It is not such a path.</exception>
    public static void Write(TableBuffer aml, string path)
    {
        int prefix = path.StartsWith('\\') ? 1 : path.AsSpan().IndexOfAnyExcept('^') is var carets and >= 0 ? carets : path.Length;
        ReadOnlySpan<char> rest = path.AsSpan(prefix);
        int segments = rest.IsEmpty ? 0 : rest.Count('.') + 1;
        if (path.Length == 0 || segments > byte.MaxValue)
            throw new ArgumentException($"'{path}' is not an ACPI path", nameof(path));

        aml.Ascii(path.AsSpan(0, prefix), prefix);
        switch (segments)
        {
            case 0:
                aml.Byte(NullName);
                return;
            case 1:
                break;
            case 2:
                aml.Byte(DualNamePrefix);
                break;
            default:
                aml.Byte(MultiNamePrefix);
                aml.Byte((byte)segments);
                break;
        }
        foreach (Range range in rest.Split('.'))
            WriteSegment(aml, rest[range]);
    }

    private static void WriteSegment(TableBuffer aml, ReadOnlySpan<char> segment)
    {
        bool valid = segment.Length is > 0 and <= SegmentSize && !char.IsAsciiDigit(segment[0]);
        foreach (char c in segment)
            valid &= char.IsAsciiLetterUpper(c) || char.IsAsciiDigit(c) || c == '_';
        if (!valid)
            throw new ArgumentException($"'{segment}' is not a segment of an ACPI path", nameof(segment));
        aml.Ascii(segment, SegmentSize, '_');
    }
}
