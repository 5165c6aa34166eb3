using System.Diagnostics;

namespace Vmm.Vhost.User.Frontend;

/// <summary>The time that several waits have together.</summary>
/// <param name="Total">How long, from now on.</param>
internal readonly record struct Deadline(TimeSpan Total)
{
    private readonly long _start = Stopwatch.GetTimestamp();

    /// <summary>What is left of it, 0 or more.</summary>
    public TimeSpan Left
    {
        get
        {
            TimeSpan left = Total - Stopwatch.GetElapsedTime(_start);
            return left > TimeSpan.Zero ? left : TimeSpan.Zero;
        }
    }
}
