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

    private static readonly BoundedLog s_log = new("Vmm.Devices.Console");

    private readonly FileDescriptor _output;
    private readonly string _path;
    private readonly ByteQueue _kept;
    private readonly byte[] _chunk = new byte[ChunkSize];
    private readonly Epoll _writable = new();       // readable when the output takes something again
    private bool _isWatched;
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
    }

    /// <inheritdoc/>
    public FileDescriptor? Ready => _isWatched ? _writable : null;

    /// <inheritdoc/>
    public void Process(BackendRing ring)
    {
        WriteKept();
        while (ring.TryTake(out DescriptorChain chain))
        {
            int count;
            for (ulong offset = 0; offset < MaxRequest && (count = chain.Read(offset, _chunk)) > 0; offset += (ulong)count)
                Write(_chunk.AsSpan(0, count));
            ring.Complete(chain.Head, 0);
        }
        ring.Notify();
        Watch(_kept.Count > 0);
    }

    /// <inheritdoc/>
    public void Drain(BackendRing ring)
    {
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        WriteKept();
        _writable.Dispose();
    }

    private void Write(ReadOnlySpan<byte> data)
    {
        while (!data.IsEmpty && _kept.Count == 0)
        {
            int written = TryWrite(data);
            data = data[written..];
            if (written == 0 && Poll.Wait([new PollEntry(_output, PollEvents.Writable)], PatienceMilliseconds) == 0)
                break;
        }
        _kept.AddLatest(data);
    }

    private void WriteKept()
    {
        while (_kept.Count > 0)
        {
            int written = TryWrite(_kept.First);
            if (written == 0)
                return;
            _kept.Remove(written);
        }
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
