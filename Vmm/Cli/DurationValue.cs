using System.Globalization;

namespace Vmm.Cli;

/// <summary>Lengths of time: seconds, or a number with ms, s, m or h.</summary>
internal static class DurationValue
{
    private static readonly (string Suffix, TimeSpan Unit)[] s_units =
    [
        ("ms", TimeSpan.FromMilliseconds(1)), ("s", TimeSpan.FromSeconds(1)), ("m", TimeSpan.FromMinutes(1)), ("h", TimeSpan.FromHours(1)), ("", TimeSpan.FromSeconds(1)),
    ];

    /// <summary>The time that <paramref name="value"/> says, 1 ms to 1 hour.</summary>
    /// <exception cref="UsageException">It is none, or out of range.</exception>
    public static TimeSpan Parse(OptionValue value) => Parse(value, TimeSpan.FromHours(1), "3600s");

    /// <summary>The time that <paramref name="value"/> says, 1 ms to <paramref name="max"/>.</summary>
    /// <param name="value">The value.</param>
    /// <param name="max">The longest, at most some years.</param>
    /// <param name="maxName">How a message says that.</param>
    /// <exception cref="UsageException">It is none, or out of range.</exception>
    public static TimeSpan Parse(OptionValue value, TimeSpan max, string maxName)
    {
        (string suffix, TimeSpan unit) = Array.Find(s_units, unit => value.Text.EndsWith(unit.Suffix, StringComparison.Ordinal));
        if (!uint.TryParse(value.Text[..^suffix.Length], NumberStyles.None, CultureInfo.InvariantCulture, out uint number))
            throw value.Refuse("is not a time: write seconds, or a number with ms, s, m or h, such as 5s");
        return number > 0 && number <= max.Ticks / unit.Ticks ? number * unit : throw value.Refuse($"is out of range: 1ms to {maxName}");
    }
}
