using System.Net.Sockets;
using NLog;
using Vmm.Devices.Platform;
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

    private static readonly Logger s_log = LogManager.GetLogger("Vmm.Serial");

    private readonly string _path;
    private readonly Socket _listener;
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
        _listener = SocketPath.Listen(path, option);
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
        _thread = new Thread(Run, StackSize) { IsBackground = true, Name = "serial socket" };
        _thread.Start();
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
        SocketPath.Remove(_path);
    }

    private void Run()
    {
        using FileDescriptor listener = Borrow(_listener);
        while (!_stop.IsSet)
        {
            using Socket? client = Accept(listener);
            if (client is null)
                continue;
            _ring.KeepLatest(false);
            Serve(client);
            if (_ring.KeepLatest(true))
                _uart!.OutputReady();
        }
    }

    // Waits for one thing; null if that was not a client.
    private Socket? Accept(FileDescriptor listener)
    {
        _pending.DeliverTo(_uart!);   // what the last client left
        Span<PollEntry> entries = [new(listener, PollEvents.Readable), new(_wakeUp.Descriptor, PollEvents.Readable)];
        Poll.Wait(entries, -1);
        if (entries[1].Happened != PollEvents.None)
            _wakeUp.Drain();
        if (entries[0].Happened == PollEvents.None)
            return null;
        try
        {
            Socket client = _listener.Accept();
            client.Blocking = false;
            return client;
        }
        catch (SocketException)
        {
            return null;   // it left while it waited
        }
    }

    // Returns when the client left, or after a stop when it has everything or takes nothing more.
    private void Serve(Socket client)
    {
        using FileDescriptor descriptor = Borrow(client);
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
            Span<PollEntry> entries = [new(descriptor, wanted), new(wakeUp, PollEvents.Readable)];
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
            if ((happened & PollEvents.Writable) != 0 && !Send(client, queued))
                return;
            if ((happened & (PollEvents.HangUp | PollEvents.Error)) != 0)
            {
                if (sends)
                    ReceiveRest(client);
                return;
            }
        }
    }

    // What a client sent before it left. If the guest reads nothing for a while the rest is dropped: the next client waits.
    private void ReceiveRest(Socket client)
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

    private bool Receive(Socket client)
    {
        int count = client.Receive(_pending.Room, SocketFlags.None, out SocketError error);
        if (error == SocketError.WouldBlock)
            return true;
        if (error != SocketError.Success || count == 0)
            return false;
        _pending.Append(count);
        return true;
    }

    private bool Send(Socket client, int queued)
    {
        int sent = client.Send(_chunk.AsSpan(0, queued), SocketFlags.None, out SocketError error);
        if (error == SocketError.WouldBlock)
            return true;
        if (error != SocketError.Success)
            return false;
        if (_ring.Advance(sent))
            _uart!.OutputReady();
        return true;
    }

    private static FileDescriptor Borrow(Socket socket) => new((int)socket.Handle, ownsHandle: false);
}
