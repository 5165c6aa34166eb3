using System.Diagnostics;

namespace Vmm.Devices.Backends;

/// <summary>Limits a rate: a bucket that fills with so many tokens a second, and holds what a tenth of a second brings. Not thread-safe.</summary>
internal sealed class TokenBucket
{
    private const int Burst = 10;   // the part of a second that the bucket holds

    private readonly double _perTick;
    private readonly TimeProvider _clock;
    private double _tokens;
    private long _filled;

    /// <summary>A full bucket.</summary>
    /// <param name="perSecond">Tokens a second, at least 1.</param>
    /// <param name="clock">What tells the time.</param>
    public TokenBucket(ulong perSecond, TimeProvider? clock = null)
    {
        ArgumentOutOfRangeException.ThrowIfZero(perSecond, nameof(perSecond));
        _clock = clock ?? TimeProvider.System;
        _perTick = (double)perSecond / _clock.TimestampFrequency;
        Capacity = Math.Max(1, perSecond / Burst);
        _tokens = Capacity;
        _filled = _clock.GetTimestamp();
    }

    /// <summary>The most tokens there can be.</summary>
    public ulong Capacity { get; }

    /// <summary>Whole tokens there are now.</summary>
    public ulong Available
    {
        get
        {
            long now = _clock.GetTimestamp();
            _tokens = Math.Min(Capacity, _tokens + Math.Max(0, now - _filled) * _perTick);
            _filled = now;
            return (ulong)_tokens;
        }
    }

    /// <summary>Takes <paramref name="count"/> tokens, of <see cref="Available"/> ones at most.</summary>
    public void Take(ulong count)
    {
        Debug.Assert(count <= _tokens, "more tokens are taken than there are");
        _tokens -= count;
    }

    /// <summary>How long it takes until there are <paramref name="count"/> tokens, of <see cref="Capacity"/> at most.</summary>
    public TimeSpan TimeUntil(ulong count)
    {
        double missing = count - Math.Min(count, _tokens);
        return TimeSpan.FromSeconds(missing / (_perTick * _clock.TimestampFrequency));
    }
}
