using Vmm.Devices.Platform;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Serial;

/// <summary>A serial port on a Unix socket that we listen on. One client at a time is served, the next one when it leaves; while there
/// is none, the latest 64 KiB of output are kept for the next.</summary>
/// <remarks>One thread does it all, on non-blocking sockets. A client that shuts its sending side down still gets the output.</remarks>
internal sealed class SocketSerial : ISerialBackend
{
    private const int StackSize = 256 * 1024;
    private const int ChunkSize = 4096;
    private const int GatherMilliseconds = 1;   // as in OutputDrain
    private const int RetryMilliseconds = 250;

    private static readonly BoundedLog s_log = new("Vmm.Serial");

    private readonly string _path;
    private readonly UnixListener _listener;
    private readonly WakeUp _wakeUp = new();
    private readonly OutputRing _ring;
    private readonly StopSignal _stop;
    private readonly PendingInput _pending = new();
    private readonly byte[] _chunk = new byte[ChunkSize];
    private Thread? _thread;
    private Uart16550? _uart;
    private int _disposed;

    /// <summary>Listens on <paramref name="path"/>; <paramref name="option"/> begins every error message.</summary>
    /// <exception cref="UsageException">The path cannot name a socket.</exception>
    /// <exception cref="VmmException">Somebody listens there, something else is there, or the system refused.</exception>
    public SocketSerial(string path, string option)
    {
        try
        {
            _listener = UnixListener.Listen(path);
        }
        catch (ErrnoException e) when (e.Errno == Errnos.Enametoolong)
        {
            throw new UsageException($"{option}: {e.Message}");
        }
        catch (ErrnoException e)
        {
            throw new VmmException($"{option}: {e.Message}", e);
        }
        _path = path;
        _ring = new OutputRing(_wakeUp);
        _ring.KeepLatest(true);
        _stop = new StopSignal(_wakeUp);
    }

    /// <inheritdoc/>
    public bool TryWrite(byte value) => _ring.TryWrite(value);

    /// <inheritdoc/>
    public void Start(Uart16550 uart)
    {
        _uart = uart;
        uart.InputReady += _wakeUp.Signal;
        var thread = new Thread(Run, StackSize) { IsBackground = true, Name = "serial socket" };
        NativeThread.Start(thread);
        _thread = thread;   // one that never ran is not waited for
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _disposed, 1) != 0)
            return;
        if (_uart is { } uart)
            uart.InputReady -= _wakeUp.Signal;
        bool ended = _stop.StopAndJoin(_thread);
        _ring.Close();
        if (ended)
            _wakeUp.Dispose();
        _listener.Dispose();
    }

    private void Run()
    {
        while (!_stop.IsSet)
        {
            using UnixSocket? client = Accept();
            if (client is null)
                continue;
            _ring.KeepLatest(false);
            Serve(client);
            if (_ring.KeepLatest(true))
                _uart!.OutputReady();
        }
    }

    // Waits for one thing; null if that was not a client.
    private UnixSocket? Accept()
    {
        _pending.DeliverTo(_uart!);   // what the last client left
        Span<PollEntry> entries = [new(_listener, PollEvents.Readable), new(_wakeUp.Descriptor, PollEvents.Readable)];
        Poll.Wait(entries, -1);
        if (entries[1].Happened != PollEvents.None)
            _wakeUp.Drain();
        if (entries[0].Happened == PollEvents.None)
            return null;
        try
        {
            return _listener.TryAccept();
        }
        catch (ErrnoException)
        {
            // No descriptors or no memory are left. The client waits, and the listener stays readable.
            Poll.Wait([new PollEntry(_wakeUp.Descriptor, PollEvents.Readable)], RetryMilliseconds);
            return null;
        }
    }

    // Returns when the client left, or after a stop when it has everything or takes nothing more.
    private void Serve(UnixSocket client)
    {
        bool sends = true;
        while (true)
        {
            _pending.DeliverTo(_uart!);
            int queued = _ring.Peek(_chunk);
            int timeout = _stop.Timeout;
            if (timeout >= 0 && queued == 0)
                return;
            if (timeout == 0)
            {
                s_log.Warn("the client of {Path} takes no more output: the rest is lost", _path);
                return;
            }

            PollEvents wanted = queued > 0 ? PollEvents.Writable : PollEvents.None;
            if (sends && _pending.HasRoom)
                wanted |= PollEvents.Readable;
            FileDescriptor? wakeUp = timeout < 0 ? _wakeUp.Descriptor : null;
            Span<PollEntry> entries = [new(client, wanted), new(wakeUp, PollEvents.Readable)];
            Poll.Wait(entries, timeout);
            if (entries[1].Happened != PollEvents.None)
            {
                _wakeUp.Drain();
                if (queued == 0 && !_stop.IsSet && _ring.Peek(_chunk) > 0)
                    Poll.Wait([new PollEntry(_wakeUp.Descriptor, PollEvents.Readable)], GatherMilliseconds);
            }

            PollEvents happened = entries[0].Happened;
            if ((happened & PollEvents.Readable) != 0)
                sends = Receive(client);
            bool hasLeft = (happened & (PollEvents.HangUp | PollEvents.Error)) != 0;
            if ((happened & PollEvents.Writable) != 0)
                hasLeft |= !Send(client, queued);
            if (hasLeft)
            {
                if (sends)
                    ReceiveRest(client);
                return;
            }
        }
    }

    // What a client sent before it left. If the guest reads nothing for a while the rest is dropped: the next client waits.
    private void ReceiveRest(UnixSocket client)
    {
        bool more = true;
        while (more && !_stop.IsSet)
        {
            _pending.DeliverTo(_uart!);
            if (_pending.HasRoom)
                more = Receive(client);
            else if (Poll.Wait([new PollEntry(_wakeUp.Descriptor, PollEvents.Readable)], StopSignal.Patience) == 0)
                return;
            else
                _wakeUp.Drain();
        }
    }

    private bool Receive(UnixSocket client)
    {
        int count = client.TryRead(_pending.Room);
        if (count > 0)
            _pending.Append(count);
        return count > 0 || count == -Errnos.Eagain;
    }

    private bool Send(UnixSocket client, int queued)
    {
        int sent = client.TrySend(_chunk.AsSpan(0, queued), []);
        if (sent > 0 && _ring.Advance(sent))
            _uart!.OutputReady();
        return sent > 0 || sent == -Errnos.Eagain;
    }
}
