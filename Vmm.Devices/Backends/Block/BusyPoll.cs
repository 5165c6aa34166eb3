using System.Diagnostics;

namespace Vmm.Devices.Backends.Block;

/// <summary>How long to look for the next request before sleeping. Being woken costs several microseconds, and the driver a system call;
/// so it pays where sleeps turn out to be short, and only there. Between two looks the processor is offered to others: to the driver, where
/// both have the same one.</summary>
internal sealed class BusyPoll
{
    private const int MaxFailures = 8;
    private const int ShortestPause = 256;      // sleeps without looking, after that many in vain; twice as many the next time
    private const int LongestPause = 16384;

    private static readonly long s_longest = Stopwatch.Frequency / 20_000;      // 50 us
    private static readonly long s_shortest = Stopwatch.Frequency / 200_000;    // 5 us
    private static readonly long s_lost = Stopwatch.Frequency / 10_000;         // 100 us

    private long _window;
    private long _idleSince;
    private long _looked;
    private long _sleptAt;
    private int _failures;
    private int _pause;
    private int _nextPause = ShortestPause;

    /// <summary>There may be something to do; a sleep has ended, if one had begun.</summary>
    public void Begin()
    {
        _idleSince = 0;
        if (_sleptAt == 0)
            return;
        bool wasShort = Stopwatch.GetTimestamp() - _sleptAt < s_longest;
        _sleptAt = 0;
        if (_pause > 0)
            _pause--;
        else
            _window = wasShort ? Math.Clamp(2 * _window, s_shortest, s_longest) : 0;
    }

    /// <summary>There was something to do.</summary>
    public void Restart()
    {
        if (_idleSince == 0)
            return;
        _idleSince = 0;
        _failures = 0;
        if (_nextPause > ShortestPause)
            _nextPause--;
    }

    /// <summary>There was nothing to do: whether to look again.</summary>
    public bool ShouldGoOn()
    {
        if (_window == 0)
            return false;
        long now = Stopwatch.GetTimestamp();
        if (_idleSince == 0)
            _idleSince = _looked = now;
        // Somebody took the processor that was offered, and not only for the length of a request: it is wanted.
        bool isWanted = now - _looked > s_lost;
        _looked = now;
        if (!isWanted && now - _idleSince < _window)
        {
            Thread.Yield();
            return true;
        }
        if (isWanted || ++_failures >= MaxFailures)
        {
            _failures = 0;
            _window = 0;
            _pause = _nextPause;
            _nextPause = Math.Min(2 * _nextPause, LongestPause);
        }
        return false;
    }

    /// <summary>A sleep begins.</summary>
    public void End() => _sleptAt = Stopwatch.GetTimestamp();
}
