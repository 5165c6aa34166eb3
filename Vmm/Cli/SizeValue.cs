using System.Globalization;

namespace Vmm.Cli;

/// <summary>Sizes in bytes, with the binary suffixes K, M, G and T.</summary>
internal static class SizeValue
{
    private const string Expected = "is not a size: write a number of bytes, or a number with K, M, G or T, such as 512M";

    /// <summary>The size that <paramref name="value"/> says, in bytes.</summary>
    /// <exception cref="UsageException">It is no size, is zero, or exceeds 2^64 - 1 bytes.</exception>
    public static ulong Parse(OptionValue value)
    {
        ReadOnlySpan<char> digits = value.Text;
        int shift = 0;
        if (digits.Length > 0)
        {
            shift = digits[^1] switch { 'K' or 'k' => 10, 'M' or 'm' => 20, 'G' or 'g' => 30, 'T' or 't' => 40, _ => 0 };
            if (shift != 0)
                digits = digits[..^1];
        }
        if (digits.IsEmpty || digits.ContainsAnyExceptInRange('0', '9'))
            throw value.Refuse(Expected);
        if (!ulong.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out ulong number) || number > ulong.MaxValue >> shift)
            throw value.Refuse("is too large");
        return number != 0 ? number << shift : throw value.Refuse("is zero");
    }
}
