using System.Globalization;

namespace Vmm.Cli;

/// <summary>Lengths of time: seconds, or a number with s or ms.</summary>
internal static class DurationValue
{
    private static readonly TimeSpan s_max = TimeSpan.FromHours(1);

    /// <summary>The time that <paramref name="value"/> says, 1 ms to 1 hour.</summary>
    /// <exception cref="UsageException">It is none, or out of range.</exception>
    public static TimeSpan Parse(OptionValue value)
    {
        bool isMilliseconds = value.Text.EndsWith("ms", StringComparison.Ordinal);
        string digits = isMilliseconds ? value.Text[..^2] : value.Text.EndsWith('s') ? value.Text[..^1] : value.Text;
        if (!uint.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out uint number))
            throw value.Refuse("is not a time: write seconds, or a number with s or ms, such as 5s");
        TimeSpan time = isMilliseconds ? TimeSpan.FromMilliseconds(number) : TimeSpan.FromSeconds((long)number);
        return time > TimeSpan.Zero && time <= s_max ? time : throw value.Refuse("is out of range: 1ms to 3600s");
    }
}
