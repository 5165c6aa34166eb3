using System.Diagnostics;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;

namespace Vmm.Devices.Backends;

/// <summary>Whether a ring's thread lets the guest go on when the guest wakes it, on a machine with one processor. There only one of the two can run. By default
/// the thread takes the processor at each kick, does one request and wakes the guest: best for a guest that waits for each request. A guest with many requests
/// on their way is faster where it may make them all before the thread runs: one kick, one interrupt and two changes of thread for all of them. Which of the two
/// a guest is cannot be seen in the ring, so both ways are measured by turns, and the better one is kept for a while.</summary>
/// <remarks>A machine with more processors has none of this: there the thread runs beside the guest, see <see cref="BusyPoll"/>.</remarks>
/// <param name="clock">The time, as <see cref="Stopwatch.GetTimestamp"/> says it.</param>
/// <param name="trySetPreemption"><see cref="ThreadScheduling.TrySetWakeupPreemption"/> for the ring's thread.</param>
/// <param name="isEnabled">Whether anything is done at all.</param>
internal sealed class KickGathering(Func<long> clock, Func<bool, bool> trySetPreemption, bool isEnabled)
{
    /// <summary>The system calls that it makes on a machine with one processor.</summary>
    public static readonly IReadOnlyList<SystemCallRule> SystemCalls =
    [
        new(SystemCallNumber.SchedSetscheduler, "pid is 0, policy is SCHED_OTHER or SCHED_BATCH", ArgumentCondition.IsOneOf(0, 0), ArgumentCondition.IsOneOf(1, SchedOther, SchedBatch)),
    ];

    private const uint SchedOther = 0, SchedBatch = 3;      // of linux/sched.h
    private const int Window = 64;              // requests of one measurement
    private const int SoonTrial = 2;            // windows before the other way is tried with a load that is new
    private const int ShortestPause = 16;       // windows between two trials; twice as many after each that was in vain
    private const int LongestPause = 256;

    private static volatile bool s_isInUse;

    private static readonly long s_idle = Stopwatch.Frequency / 20;     // 50 ms without a request: the guest wanted nothing

    private bool _isEnabled = isEnabled;
    private bool _gathers;
    private bool _isTrial;
    private int _requests;
    private long _begun;
    private long _last;
    private long _cost;             // of a request, in the last window that was no trial
    private int _pause = ShortestPause;
    private int _left = SoonTrial;

    /// <summary>By the real clock, for the thread that counts.</summary>
    /// <param name="processors">Those of the machine, <see cref="Processors.CountOnline"/>.</param>
    public KickGathering(int processors)
        : this(Stopwatch.GetTimestamp, ThreadScheduling.TrySetWakeupPreemption, processors == 1 && ThreadScheduling.IsDefault)
    {
        if (_isEnabled)
            s_isInUse = true;
    }

    /// <summary>The first that a thread does which a ring's thread may have begun: it has inherited how that one was scheduled at that moment, and is to take the processor when it is
    /// woken.</summary>
    public static void BeginWorker()
    {
        if (s_isInUse)
            ThreadScheduling.TrySetWakeupPreemption(true);
    }

    /// <summary>The system calls that it makes on a machine with so many processors.</summary>
    public static IReadOnlyList<SystemCallRule> CallsOn(int processors) => processors == 1 ? SystemCalls : [];

    /// <summary>So many requests were found; at least 1.</summary>
    public void Count(int requests)
    {
        if (!_isEnabled)
            return;
        long now = clock();
        bool wasIdle = now - _last > s_idle;
        _last = now;
        if (wasIdle)
        {
            // Whatever comes now is a new load, and a guest with little to do is not to wait for others each time.
            if (_gathers)
                Change(isTrial: false);
            (_isTrial, _left, _pause) = (false, SoonTrial, ShortestPause);
            Restart(now);
            return;
        }
        _requests += requests;
        if (_requests < Window)
            return;
        Judge((now - _begun) / _requests);
        Restart(now);
    }

    private void Restart(long now)
    {
        _begun = now;
        _requests = 0;
    }

    private void Judge(long cost)
    {
        if (!_isTrial)
        {
            // Another load: what a trial said before means nothing now.
            if (cost > 2 * _cost || cost < _cost / 2)
                (_left, _pause) = (Math.Min(_left, SoonTrial), ShortestPause);
            _cost = cost;
            if (--_left <= 0)
                Change(isTrial: true);
        }
        else if (cost < _cost - (_cost / 8))
        {
            _isTrial = false;
            _cost = cost;
            _left = _pause = ShortestPause;
        }
        else
        {
            Change(isTrial: false);
            _left = _pause = Math.Min(2 * _pause, LongestPause);
        }
    }

    private void Change(bool isTrial)
    {
        _isTrial = isTrial;
        _gathers = !_gathers;
        _isEnabled = trySetPreemption(!_gathers);
    }
}
