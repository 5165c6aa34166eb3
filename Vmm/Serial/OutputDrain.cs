using Vmm.Devices.Platform;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Serial;

/// <summary>Queues a serial port's output and writes it to a descriptor on a thread of its own, so that a slow reader never blocks a
/// vCPU. While the queue is full the port makes the guest wait: nothing is lost.</summary>
internal sealed class OutputDrain : IDisposable
{
    private const int StackSize = 256 * 1024;
    private const int ChunkSize = 4096;   // PIPE_BUF: what a pipe that polls as writable takes without blocking

    // A guest sends its bytes one by one. Waiting this long before the first write gathers a burst into one: a guest that shares its
    // processor with this thread would otherwise be interrupted by it at every byte.
    private const int GatherMilliseconds = 1;

    private static readonly BoundedLog s_log = new("Vmm.Serial");

    private readonly FileDescriptor _output;
    private readonly string _name;
    private readonly WakeUp _wakeUp = new();
    private readonly OutputRing _ring;
    private readonly StopSignal _stop;
    private Thread? _thread;
    private Uart16550? _uart;
    private int _disposed;

    /// <summary>Writes to <paramref name="output"/>, which stays the caller's to close after this, and is called
    /// <paramref name="name"/> in warnings.</summary>
    public OutputDrain(FileDescriptor output, string name)
    {
        (_output, _name) = (output, name);
        _ring = new OutputRing(_wakeUp);
        _stop = new StopSignal(_wakeUp);
    }

    /// <summary>Whether the output may be closed: false if the thread was given up inside a write, and could still use it.</summary>
    public bool HasEnded { get; private set; }

    /// <inheritdoc cref="IUartOutput.TryWrite"/>
    public bool TryWrite(byte value) => _ring.TryWrite(value);

    /// <summary>Starts to write out; tells <paramref name="uart"/> when there is room again.</summary>
    public void Start(Uart16550 uart)
    {
        _uart = uart;
        var thread = new Thread(Run, StackSize) { IsBackground = true, Name = "serial output" };
        NativeThread.Start(thread);
        _thread = thread;   // one that never ran is not waited for
    }

    /// <summary>Writes out what is queued, or gives up when nobody takes it for about two seconds.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _disposed, 1) != 0)
            return;
        if (!_stop.StopAndJoin(_thread))
        {
            // Stuck inside a write: the thread ends with the process, and keeps what it uses until then.
            s_log.Warn("{Name} takes no more output: the rest is lost", _name);
            Close();
            return;
        }
        HasEnded = true;
        Close();
        _wakeUp.Dispose();
    }

    private void Run()
    {
        byte[] chunk = new byte[ChunkSize];
        while (true)
        {
            int count = _ring.Peek(chunk);
            if (count == 0)
            {
                if (_stop.IsSet)
                    return;
                WaitForOutput();
                continue;
            }
            if (!WaitForReader())
            {
                s_log.Warn("{Name} takes no more output: the rest is lost", _name);
                return;
            }
            int written = _output.TryWrite(chunk.AsSpan(0, count));
            if (written < 0 && written != -Errnos.Eagain)
            {
                // EPIPE, ENOSPC, EIO: the guest goes on without its console.
                s_log.Warn("{Error}: the console's output is dropped from now on", new ErrnoException($"write to {_name}", -written).Message);
                Close();
                return;
            }
            if (_ring.Advance(Math.Max(written, 0)))
                _uart?.OutputReady();
        }
    }

    private void WaitForOutput()
    {
        Poll.Wait([new PollEntry(_wakeUp.Descriptor, PollEvents.Readable)], -1);
        _wakeUp.Drain();
        if (!_stop.IsSet)
            Poll.Wait([new PollEntry(_wakeUp.Descriptor, PollEvents.Readable)], GatherMilliseconds);
    }

    // False when the stop was asked for and nobody took anything in the time that is left then.
    private bool WaitForReader()
    {
        while (true)
        {
            int timeout = _stop.Timeout;
            if (timeout == 0)
                return false;
            // Once the stop is known its signal must not keep ending the wait.
            FileDescriptor? wakeUp = timeout < 0 ? _wakeUp.Descriptor : null;
            Span<PollEntry> entries = [new(_output, PollEvents.Writable), new(wakeUp, PollEvents.Readable)];
            Poll.Wait(entries, timeout);
            if (entries[0].Happened != PollEvents.None)
                return true;   // also on an error: the write says which
            if (entries[1].Happened != PollEvents.None)
                _wakeUp.Drain();
        }
    }

    private void Close()
    {
        if (_ring.Close())
            _uart?.OutputReady();
    }
}
