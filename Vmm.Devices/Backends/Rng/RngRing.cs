using System.Security.Cryptography;
using NLog;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Devices.Backends.Rng;

/// <summary>The queue of an entropy device. A buffer gets as much as the source and the limit give at the moment, at least one byte.</summary>
internal sealed class RngRing(RngSource source, TokenBucket? limit) : IRingHandler
{
    private const int ChunkSize = 4096;
    private const ulong LeastAtOnce = 64;       // Linux asks for so much; less would only mean more interrupts

    // After an error that is not final: a hardware generator that is busy, a FIFO that nobody writes to yet.
    private static readonly TimeSpan s_retryDelay = TimeSpan.FromMilliseconds(100);

    private static readonly BoundedLog s_log = new("Vmm.Devices.Rng");

    private readonly byte[] _chunk = new byte[ChunkSize];
    private readonly TimerFd _timer = new();
    private int _start;
    private int _end;
    private bool _waitsForTime;
    private bool _waitsForSource;
    private bool _isExhausted;
    private bool _hasComplained;

    /// <inheritdoc/>
    public FileDescriptor? Ready => _waitsForTime ? _timer : _waitsForSource ? source.Descriptor : null;

    /// <inheritdoc/>
    public void Process(BackendRing ring)
    {
        _timer.Drain();
        _waitsForTime = _waitsForSource = false;
        while (HasTime(out ulong most) && HasBytes() && ring.TryTake(out DescriptorChain chain))
        {
            int count = (int)Math.Min(most, (ulong)(_end - _start));
            int written = chain.Write(0, _chunk.AsSpan(_start, count));
            // Nobody else gets these.
            CryptographicOperations.ZeroMemory(_chunk.AsSpan(_start, written));
            _start += written;
            limit?.Take((ulong)written);
            ring.Complete(chain.Head, (uint)written);
        }
        ring.Notify();
    }

    /// <inheritdoc/>
    public void Drain(BackendRing ring)
    {
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        CryptographicOperations.ZeroMemory(_chunk);
        _timer.Dispose();
    }

    private bool HasTime(out ulong most)
    {
        most = ChunkSize;
        if (limit is null)
            return true;
        ulong least = Math.Min(LeastAtOnce, limit.Capacity);
        most = limit.Available;
        if (most >= least)
            return true;
        _timer.Set(limit.TimeUntil(least));
        _waitsForTime = true;
        return false;
    }

    private bool HasBytes()
    {
        if (_start < _end)
            return true;
        if (_isExhausted)
            return false;
        int count = source.Read(_chunk);
        if (count > 0)
        {
            (_start, _end) = (0, count);
            return true;
        }
        if (count == -Errnos.Eagain)
        {
            _waitsForSource = true;
            return false;
        }
        string reason = count == 0 ? "is at its end" : new ErrnoException("cannot be read", -count).Message;
        _isExhausted = count == 0 ? source.IsFile : Errnos.IsOfDescriptor(-count);
        if (_isExhausted)
        {
            s_log.Error("{Path} {Reason}: the guest gets no more random bytes", source.Path, reason);
            return false;
        }
        s_log.Log(_hasComplained ? LogLevel.Debug : LogLevel.Warn, "{Path} {Reason}: it is tried again", source.Path, reason);
        _hasComplained = true;
        _timer.Set(s_retryDelay);
        _waitsForTime = true;
        return false;
    }
}
