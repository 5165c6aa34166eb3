using Vmm.Devices.Platform;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Serial;

/// <summary>Moves what is typed or piped into standard input to a serial port, on a thread of its own. When the port and a small
/// buffer are full it stops reading, so that nothing is lost; at the end of input it stops for good. A terminal is read on after a second in
/// which the guest has taken nothing: its user must be able to leave. Of the keys that have no room only those that are the VMM's count.</summary>
/// <remarks>A terminal is made raw while this process is the shell's foreground job. In the background it is neither read nor changed,
/// for which the kernel would stop the process (SIGTTIN, SIGTTOU); it is taken up within a second of coming to the foreground.</remarks>
internal sealed class InputPump : IDisposable
{
    private const int StackSize = 256 * 1024;
    private const int BackgroundPollMilliseconds = 1000;
    private const int StuckMilliseconds = 500;
    private const int MostVainWaits = 2;        // one is over at once where this process was stopped meanwhile, and the guest with it
    private const int ScratchSize = 256;

    private static readonly BoundedLog s_log = new("Vmm.Serial");

    private readonly FileDescriptor _input;
    private readonly Terminal? _terminal;
    private readonly EscapeFilter? _escapes;
    private readonly WakeUp _wakeUp = new();
    private readonly StopSignal _stop;
    private readonly PendingInput _pending = new();
    private Thread? _thread;
    private Uart16550? _uart;
    private int _vainWaits;     // for room, since there was some
    private bool _hasDropped;
    private bool _foreground;
    private int _takesTerminal;     // 1: the terminal is made raw again
    private bool _ended;
    private int _disposed;

    /// <summary>Reads <paramref name="input"/>, which stays the caller's to close after this. Only if it is a terminal,
    /// <paramref name="escapes"/> filters it.</summary>
    public InputPump(FileDescriptor input, EscapeFilter escapes)
    {
        _input = input;
        _terminal = Terminal.TryOpen(input);
        _escapes = _terminal is null ? null : escapes;
        _stop = new StopSignal(_wakeUp);
    }

    /// <summary>How often the thread was woken: a test of idleness.</summary>
    internal int Wakes { get; private set; }

    /// <summary>Makes a terminal raw, and starts to read for <paramref name="uart"/>.</summary>
    public void Start(Uart16550 uart)
    {
        _uart = uart;
        uart.InputReady += _wakeUp.Signal;
        if (!HoldsTerminal())
            s_log.Warn("a background job has no console input: bring it to the foreground to type");
        var thread = new Thread(Run, StackSize) { IsBackground = true, Name = "serial input" };
        NativeThread.Start(thread);
        _thread = thread;   // one that never ran is not waited for
    }

    /// <summary>Stops reading.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _disposed, 1) != 0)
            return;
        if (_uart is { } uart)
            uart.InputReady -= _wakeUp.Signal;
        if (_stop.StopAndJoin(_thread))
            _wakeUp.Dispose();
    }

    /// <summary>Gives a terminal its settings back. As often as wanted, from any thread.</summary>
    public void RestoreTerminal() => _terminal?.Restore();

    /// <summary>Makes a terminal raw again, which was perhaps changed while this process was stopped; from any thread.</summary>
    public void TakeTerminal()
    {
        Volatile.Write(ref _takesTerminal, 1);
        _wakeUp.Signal();
    }

    private void Run()
    {
        try
        {
            while (!_stop.IsSet && !(_ended && _pending.IsEmpty))
                WaitAndMove(_uart!);
        }
        catch (ErrnoException error)
        {
            s_log.Warn("{Error}: no more console input", error.Message);   // the terminal is gone
        }
    }

    private void WaitAndMove(Uart16550 uart)
    {
        int timeout = _ended ? -1 : TimeUntilRead();
        bool reads = timeout == 0;
        if (reads)
            timeout = -1;
        if ((reads || Volatile.Read(ref _takesTerminal) != 0) && !HoldsTerminal())
            (reads, timeout) = (false, BackgroundPollMilliseconds);
        Span<PollEntry> entries = [new(reads ? _input : null, PollEvents.Readable), new(_wakeUp.Descriptor, PollEvents.Readable)];
        int happened = Poll.Wait(entries, timeout);
        Wakes++;
        if (happened == 0 && !_pending.HasRoom)
            _vainWaits++;
        if (entries[1].Happened != PollEvents.None)
            _wakeUp.Drain();
        if (entries[0].Happened != PollEvents.None && HoldsTerminal())
            ReadInput();
        _pending.DeliverTo(uart);
    }

    // Milliseconds until the input is read; -1: not before there is room. The guest that takes a single byte makes room.
    private int TimeUntilRead()
    {
        if (_pending.HasRoom)
        {
            _vainWaits = 0;
            return 0;
        }
        if (_escapes is null)
            return -1;
        return _vainWaits < MostVainWaits ? StuckMilliseconds : 0;
    }

    private void ReadInput()
    {
        Span<byte> scratch = stackalloc byte[ScratchSize];
        bool hasRoom = _pending.HasRoom;
        Span<byte> room = hasRoom ? _pending.Room : scratch;
        int count = _input.TryRead(room);
        if (count == -Errnos.Eagain)
            return;   // somebody else reads the same pipe
        if (count <= 0)
        {
            _ended = true;   // the end, or an error that would only repeat itself
            return;
        }
        count = _escapes?.Filter(room[..count]) ?? count;
        if (hasRoom)
        {
            _pending.Append(count);
        }
        else if (count > 0 && !_hasDropped)
        {
            _hasDropped = true;
            s_log.Warn("the guest reads nothing from its serial port: what is typed meanwhile is dropped, but for the keys after Ctrl-A");
        }
    }

    private bool HoldsTerminal()
    {
        if (_terminal is null)
            return true;
        bool foreground = _terminal.IsForeground;
        bool takes = Interlocked.Exchange(ref _takesTerminal, 0) != 0;
        if (foreground && (takes || !_foreground))
            _terminal.SetRaw();
        return _foreground = foreground;
    }
}
