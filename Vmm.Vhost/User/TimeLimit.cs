namespace Vmm.Vhost.User;

/// <summary>Checks times that a caller gives.</summary>
internal static class TimeLimit
{
    // What poll(2) takes.
    private static readonly TimeSpan s_longest = TimeSpan.FromMilliseconds(int.MaxValue);

    /// <summary><paramref name="value"/>, if it is more than 0 and poll(2) can wait for it.</summary>
    /// <param name="value">What was given.</param>
    /// <param name="name">The property, for the error.</param>
    /// <param name="mayBeInfinite">Whether <see cref="Timeout.InfiniteTimeSpan"/> is a value, too.</param>
    /// <exception cref="ArgumentOutOfRangeException">It is not.</exception>
    public static TimeSpan Checked(TimeSpan value, string name, bool mayBeInfinite = false)
    {
        if ((value > TimeSpan.Zero && value <= s_longest) || (mayBeInfinite && value == Timeout.InfiniteTimeSpan))
            return value;
        throw new ArgumentOutOfRangeException(
            name, value, $"{name} must be more than 0 and at most 24 days" + (mayBeInfinite ? ", or Timeout.InfiniteTimeSpan" : ""));
    }
}
