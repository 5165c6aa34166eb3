using System.Diagnostics;

namespace Vmm.Vhost;

/// <summary>How many lines may be written: so many at once, and so many more as time passes, for each kind of line and for all together. A kind
/// that is written without end does not use up the others' share, and the first line of a kind is always written. Thread-safe.</summary>
internal sealed class LineBudget
{
    private const int KindBurst = 30;
    private const int TotalBurst = 120;
    private static readonly long s_kindInterval = 5 * Stopwatch.Frequency;      // one more line of a kind
    private static readonly long s_totalInterval = Stopwatch.Frequency;         // one more line of any kind

    private readonly Lock _lock = new();
    private readonly Dictionary<(string Logger, string Template), Share> _kinds = [];   // all of this program's, so these are few
    private Share _total = new(TotalBurst, s_totalInterval);
    private long _leftOut;

    /// <summary>That of this process.</summary>
    public static LineBudget Process { get; } = new();

    /// <summary>Asks for a line.</summary>
    /// <param name="logger">The name of the logger that writes it. Logger and template together are the line's kind.</param>
    /// <param name="template">What is written.</param>
    /// <param name="now">The time, of <see cref="Stopwatch.GetTimestamp"/>.</param>
    /// <param name="leftOut">How many lines were refused since the last one that was not.</param>
    /// <returns>Whether it may be written.</returns>
    public bool TryTake(string logger, string template, long now, out long leftOut)
    {
        (string, string) kind = (logger, template);
        lock (_lock)
        {
            if (!_kinds.TryGetValue(kind, out Share share))
                share = new Share(KindBurst, s_kindInterval);
            share.Refill(now);
            _total.Refill(now);
            // The first line of a kind is written also when others have used up what there is for all: it is news.
            bool isAllowed = share.Left > 0 && (_total.Left > 0 || share.Left == KindBurst);
            leftOut = isAllowed ? _leftOut : 0;
            _leftOut = isAllowed ? 0 : _leftOut + 1;
            if (isAllowed)
            {
                share.Left--;
                _total.Left = Math.Max(0, _total.Left - 1);
            }
            _kinds[kind] = share;
            return isAllowed;
        }
    }

    private struct Share
    {
        private readonly int _burst;
        private readonly long _interval;
        private long _since;    // when the last line was added; 0 until the first look

        public Share(int burst, long interval)
        {
            (_burst, _interval) = (burst, interval);
            Left = burst;
        }

        public int Left { get; set; }

        public void Refill(long now)
        {
            if (_since == 0)
                _since = now;
            long more = (now - _since) / _interval;
            if (more <= 0)
                return;
            Left = (int)Math.Min(_burst, Left + more);
            _since += more * _interval;
        }
    }
}
