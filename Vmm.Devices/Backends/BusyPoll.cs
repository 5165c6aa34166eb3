using System.Diagnostics;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends;

/// <summary>How long a thread looks for the next request before it sleeps. To be woken costs the thread several microseconds, and the driver a
/// system call. So looking pays where sleeps turn out to be short, and only there.
/// <para>Between two looks the thread offers its processor to other threads (<c>sched_yield</c>). The driver may have the same processor. Where another thread
/// takes the processor and computes or spins, each request would wait for a time slice. Then the thread does better to sleep: the scheduler
/// prefers a thread that was woken.</para>
/// <para>On a machine with one processor the thread does not look: nobody could make a request meanwhile.</para></summary>
/// <param name="clock">The time, as <see cref="Stopwatch.GetTimestamp"/> says it.</param>
/// <param name="yield">Offers the processor to others.</param>
/// <param name="processors">Those of the machine, <see cref="Processors.CountOnline"/>.</param>
internal sealed class BusyPoll(Func<long> clock, Action yield, int processors)
{
    private const int MaxFailures = 8;
    private const int ShortestPause = 256;      // sleeps without looking, after that many in vain; twice as many the next time
    private const int LongestPause = 16384;

    private static readonly long s_longest = Stopwatch.Frequency / 20_000;      // 50 us
    private static readonly long s_shortest = Stopwatch.Frequency / 200_000;    // 5 us
    private static readonly long s_lost = Stopwatch.Frequency / 10_000;         // 100 us
    private static readonly long s_gain = Stopwatch.Frequency / 100_000;        // 10 us: what a request saves that is found by looking
    private static readonly long s_mostDebt = Stopwatch.Frequency / 100;        // 10 ms

    private long _window;
    private long _idleSince;
    private long _sleptAt;
    private long _debt;         // what looking has lost while others had the processor, less what it has gained since
    private int _failures;
    private int _pause;
    private int _nextPause = ShortestPause;

    /// <summary>By the real clock.</summary>
    public BusyPoll(int processors)
        : this(Stopwatch.GetTimestamp, static () => Thread.Yield(), processors)
    {
    }

    /// <summary>There may be something to do; a sleep has ended, if one had begun.</summary>
    public void Begin()
    {
        _idleSince = 0;
        if (_sleptAt == 0)
            return;
        bool wasShort = clock() - _sleptAt < s_longest;
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
        _debt = Math.Max(0, _debt - s_gain);
        if (_nextPause > ShortestPause)
            _nextPause--;
    }

    /// <summary>There was nothing to do: whether to look again.</summary>
    public bool ShouldGoOn()
    {
        if (_window == 0)
            return false;
        long now = clock();
        if (_idleSince == 0)
            _idleSince = now;
        if (now - _idleSince >= _window)
        {
            if (++_failures >= MaxFailures)
                GiveUp();
            return false;
        }
        yield();
        // Looked at before the ring: when a processor is taken for long, there is something to do most times when it comes back.
        long taken = clock() - now;
        if (taken > s_lost && (_debt += taken) >= s_mostDebt)
        {
            _debt = s_mostDebt;     // what is lost before it is paid back is too much
            GiveUp();
        }
        return true;
    }

    /// <summary>A sleep begins.</summary>
    public void End() => _sleptAt = processors > 1 ? clock() : 0;

    private void GiveUp()
    {
        _failures = 0;
        _window = 0;
        _pause = _nextPause;
        _nextPause = Math.Min(2 * _nextPause, LongestPause);
    }
}
