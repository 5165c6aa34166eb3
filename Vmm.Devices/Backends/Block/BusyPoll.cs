using System.Diagnostics;

namespace Vmm.Devices.Backends.Block;

/// <summary>How long to look for the next request before sleeping. Being woken costs several microseconds, and the driver a system call;
/// so it pays where sleeps turn out to be short, and only there.</summary>
internal sealed class BusyPoll
{
    private const int MaxFailures = 8;
    private const int Pause = 256;          // sleeps without looking, after that many in vain

    private static readonly long s_longest = Stopwatch.Frequency / 20_000;      // 50 us
    private static readonly long s_shortest = Stopwatch.Frequency / 200_000;    // 5 us

    private long _window;
    private long _idleSince;
    private long _sleptAt;
    private int _failures;
    private int _pause;

    /// <summary>There may be something to do; a sleep has ended, if one had begun.</summary>
    public void Begin()
    {
        _idleSince = 0;
        if (_sleptAt == 0)
            return;
        bool wasShort = Stopwatch.GetTimestamp() - _sleptAt < s_longest;
        _sleptAt = 0;
        if (!wasShort)
            _window = 0;
        else if (_pause > 0)
            _pause--;
        else
            _window = Math.Clamp(2 * _window, s_shortest, s_longest);
    }

    /// <summary>There was something to do.</summary>
    public void Restart()
    {
        if (_idleSince == 0)
            return;
        _idleSince = 0;
        _failures = 0;
    }

    /// <summary>There was nothing to do: whether to look again.</summary>
    public bool ShouldGoOn()
    {
        if (_window == 0)
            return false;
        long now = Stopwatch.GetTimestamp();
        if (_idleSince == 0)
        {
            _idleSince = now;
            return true;
        }
        if (now - _idleSince < _window)
            return true;
        if (++_failures >= MaxFailures)
        {
            _failures = 0;
            _window = 0;
            _pause = Pause;
        }
        return false;
    }

    /// <summary>A sleep begins.</summary>
    public void End() => _sleptAt = Stopwatch.GetTimestamp();
}
