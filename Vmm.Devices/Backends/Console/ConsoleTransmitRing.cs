using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Devices.Backends.Console;

/// <summary>The queue with the guest's output. A reader that is slow holds the guest up; one that does not read at all does not: then the
/// latest bytes are kept for when it does. (Linux waits for its console with a processor that spins.)</summary>
internal sealed class ConsoleTransmitRing : IRingHandler
{
    private const int ChunkSize = 4096;
    private const ulong MaxRequest = 1 << 20;       // a chain can name the same memory again and again
    private const int PatienceMilliseconds = 200;
    private const int TurnMilliseconds = 1000;      // after which the front-end can stop the ring

    private static readonly BoundedLog s_log = new("Vmm.Devices.Console");

    private readonly FileDescriptor _output;
    private readonly string _path;
    private readonly ByteQueue _kept;
    private readonly byte[] _chunk = new byte[ChunkSize];
    private readonly Epoll _writable = new();       // readable when the output takes something again
    private readonly EventFd _again = new();        // always readable
    private bool _isWatched;
    private bool _awaitsReader = true;  // what is kept is for one that may be slow, and not for one that may come some day
    private bool _hasFailed;

    /// <summary>Writes to <paramref name="output"/>.</summary>
    /// <param name="output">Where to.</param>
    /// <param name="path">What it is called.</param>
    /// <param name="kept">What is kept. It is the terminal's, not the ring's: whoever looks later wants to see how the last driver ended.</param>
    public ConsoleTransmitRing(FileDescriptor output, string path, ByteQueue kept)
    {
        _output = output;
        _path = path;
        _kept = kept;
        _again.Signal();
    }

    /// <inheritdoc/>
    public FileDescriptor? Ready => _awaitsReader && _kept.Count > 0 ? _again : _isWatched ? _writable : null;

    /// <inheritdoc/>
    public void Process(BackendRing ring)
    {
        long end = Environment.TickCount64 + TurnMilliseconds;
        WriteKept(_awaitsReader ? end : null);
        // A turn that is over before a slow reader has all leaves the rest in the ring for the next.
        while ((_kept.Count == 0 || !_awaitsReader) && ring.TryTake(out DescriptorChain chain))
            Write(ring, in chain, end);
        ring.Notify();
        Watch(_kept.Count > 0);
    }

    /// <summary>What the guest has said before the stop is kept as far as there is room: a guest that ended may have been speaking a moment ago. The rest stays in
    /// the ring, for a guest that goes on.</summary>
    /// <inheritdoc/>
    public void Drain(BackendRing ring)
    {
        WriteKept(end: null);
        while (ring.TryTake(out DescriptorChain chain))
        {
            if (Math.Min(chain.ReadableLength, MaxRequest) > (ulong)_kept.Room)
            {
                ring.PutBack(chain.Head);
                return;
            }
            Write(ring, in chain, end: null);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        WriteKept(end: null);
        _writable.Dispose();
        _again.Dispose();
    }

    private void Write(BackendRing ring, ref readonly DescriptorChain chain, long? end)
    {
        int count;
        for (ulong offset = 0; offset < MaxRequest && (count = chain.Read(offset, _chunk)) > 0; offset += (ulong)count)
            Write(_chunk.AsSpan(0, count), end);
        ring.Complete(chain.Head, 0);
    }

    private void Write(ReadOnlySpan<byte> data, long? end)
    {
        while (!data.IsEmpty && _kept.Count == 0)
        {
            int written = TryWrite(data);
            data = data[written..];
            if (written == 0 && !WaitForReader(end))
                break;
        }
        _kept.AddLatest(data);
    }

    private void WriteKept(long? end)
    {
        while (_kept.Count > 0)
        {
            int written = TryWrite(_kept.First);
            _kept.Remove(written);
            if (written == 0 && !WaitForReader(end))
                return;
        }
        _awaitsReader = true;
    }

    // Whether the reader makes room before the turn is over, and before it counts as one that does not read.
    private bool WaitForReader(long? end)
    {
        if (end is not long turnEnd)
            return false;
        long left = Math.Max(0, turnEnd - Environment.TickCount64);
        if (left > 0 && Poll.Wait([new PollEntry(_output, PollEvents.Writable)], (int)Math.Min(left, PatienceMilliseconds)) > 0)
            return true;
        _awaitsReader = left < PatienceMilliseconds;
        return false;
    }

    private int TryWrite(ReadOnlySpan<byte> data)
    {
        int written = _output.TryWrite(data);
        if (written >= 0)
            return written;
        if (written == -Errnos.Eagain)
            return 0;
        if (!_hasFailed)
            s_log.Error("{Error}: what the guest says is lost", new ErrnoException($"cannot write to {_path}", -written).Message);
        _hasFailed = true;
        return data.Length;
    }

    private void Watch(bool wanted)
    {
        if (wanted == _isWatched)
            return;
        if (wanted)
            _writable.Watch(_output, PollEvents.Writable, 0);
        else
            _writable.Forget(_output);
        _isWatched = wanted;
    }
}
