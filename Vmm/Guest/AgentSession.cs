using System.Buffers.Binary;
using System.Collections.Concurrent;
using System.Diagnostics;
using System.Text;
using Vmm.Vhost.Native;

namespace Vmm.Guest;

/// <summary>One command in a guest: waits for the guest's agent, tells it what to run, and passes streams, signals and the terminal's size until
/// it says how the command ended (docs/agent.md). One thread waits for everything; it never waits for one of them alone.</summary>
internal sealed class AgentSession : IDisposable
{
    private const int Alarm = 1000;     // milliseconds between looks at a terminal that is in the background
    private const int Interval = 50;    // milliseconds between attempts to reach a back-end that is gone
    private const int LogPatience = 2000;   // milliseconds for the agent to show the kernel's log
    private const uint LastSignal = 64;     // SIGRTMAX
    private const int LastMoment = 2000;    // milliseconds that are left for what is on its way when the guest is gone, or this process is to end

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(5);

    private readonly HostStreams _streams;
    private readonly EventFd _wake = new();
    private readonly ConcurrentQueue<Action> _requests = new();
    private AgentConnection? _agent;
    private long _nextAttempt;  // to reach the back-end
    private CommandEnd? _end;
    private long? _signalDeadline;
    private long? _guestDeadline;   // once the guest is gone
    private long? _leaveDeadline;   // once this process is to end
    private int _signal;
    private uint _size;         // of the terminal, as the agent was told with START
    private bool _isGreeted, _isStarted, _isLate;
    private volatile bool _takesSignals;

    /// <summary>Prepares to run <paramref name="command"/>.</summary>
    /// <param name="command">The command.</param>
    /// <param name="streams">This process's own streams, which end with the session.</param>
    /// <param name="timeLimit">How long all of it may take, from now on; null for as long as it likes.</param>
    public AgentSession(GuestCommand command, HostStreams streams, TimeSpan? timeLimit) =>
        (Command, _streams, TimeLimit, Deadline) = (command, streams, timeLimit, timeLimit is { } time ? Environment.TickCount64 + (long)time.TotalMilliseconds : null);

    /// <summary>The command.</summary>
    public GuestCommand Command { get; }

    /// <summary>How long all of it may take; null for as long as it likes.</summary>
    public TimeSpan? TimeLimit { get; }

    /// <summary>When that time is over, as <see cref="Environment.TickCount64"/> counts.</summary>
    public long? Deadline { get; }

    /// <summary>Whether the agent shows the last lines of the kernel's log when the time is over. A kernel that was booted with <c>quiet</c> has not shown most of them.</summary>
    public bool AsksForKernelLog { get; init; }

    /// <summary>Whether this process's standard input is a terminal, or its output is one and the command has a terminal.</summary>
    public bool HasTerminal => _streams.HasTerminal;

    /// <summary>The release of the guest's kernel, as the agent tells it; empty before that.</summary>
    public string Release { get; private set; } = "";

    /// <summary>Whether the command has run.</summary>
    public bool HasStarted => _isStarted;

    /// <summary>When each step of the session happened.</summary>
    public AgentTimes Times { get; private set; }

    /// <summary>Sends the command a signal; from any thread.</summary>
    /// <returns>False if there is no command yet, or no more.</returns>
    public bool Signal(int number)
    {
        if (!_takesSignals)
            return false;
        Request(() =>
        {
            _agent!.Send(AgentFrameType.Signal, AgentStream.Input, (uint)number);
            if (_signalDeadline is null)
                (_signal, _signalDeadline) = (number, Environment.TickCount64 + (long)s_patience.TotalMilliseconds);
        });
        return true;
    }

    /// <summary>SIGWINCH has come: the command's terminal gets the size of the one here. A command without a terminal gets the signal, and nobody waits for its answer. From any
    /// thread.</summary>
    public void WindowChanged()
    {
        if (Command.HasTerminal)
            Resize();
        else
            Request(() => SendIfStarted(AgentFrameType.Signal, SignalNumber.WindowChange));
    }

    /// <summary>This process was stopped and goes on; from any thread.</summary>
    public void Continue()
    {
        _streams.TerminalMayHaveChanged();
        if (Command.HasTerminal)
            Resize();
    }

    /// <summary>This process is to be stopped: gives the terminal its settings back, until <see cref="Continue"/>; from any thread.</summary>
    public void Suspend() => _streams.SuspendTerminal();

    /// <summary>The guest is gone. What it has sent before may still be on its way: it is read until the connection ends, 2 s at most. From any
    /// thread.</summary>
    public void GuestHasEnded() => Request(() => _guestDeadline ??= Environment.TickCount64 + LastMoment);

    /// <summary>This process is to end: nothing more is read, and what is left to write has 2 s. From any thread.</summary>
    public void Leave() => Request(() =>
    {
        _end ??= new CommandEnd(CommandEndKind.Lost);
        _leaveDeadline ??= Environment.TickCount64 + LastMoment;
    });

    /// <summary>Runs the command by an agent that is connected by <paramref name="connection"/>, a socket or a terminal, which is closed afterwards.</summary>
    /// <exception cref="VmmException">The agent does not keep to the protocol.</exception>
    public CommandEnd Run(FileDescriptor connection) => Run(connection, null);

    /// <inheritdoc/>
    public void Dispose()
    {
        _agent?.Dispose();
        _wake.Dispose();
        _streams.Dispose();
    }

    /// <summary>Waits for the agent, and runs the command.</summary>
    /// <param name="connection">That of <see cref="GuestDirectory.AcceptAgent"/>, which is closed afterwards. Null if the back-end did not listen then.</param>
    /// <param name="again">Asks for another one, where the back-end is gone before the agent has connected: it is started again. Null where there is none to be
    /// had.</param>
    /// <exception cref="VmmException">The agent does not keep to the protocol.</exception>
    /// <exception cref="IOException">The process that connects to the back-end is gone.</exception>
    public CommandEnd Run(FileDescriptor? connection, Func<FileDescriptor?>? again)
    {
        long? limit = Deadline;
        _agent = connection is null ? null : new AgentConnection(connection, awaitsAnswer: again is not null);
        try
        {
            while (_end is null)
            {
                WaitOnce(again, limit);
                if (limit <= Environment.TickCount64 && !IsLogAskedFor(ref limit))
                    _end ??= new CommandEnd(CommandEndKind.TimedOut);
                if (_signalDeadline <= Environment.TickCount64)
                    _end ??= new CommandEnd(CommandEndKind.Unresponsive, _signal);
                if (_guestDeadline <= Environment.TickCount64 || (_guestDeadline is not null && _agent is null))
                    _end ??= new CommandEnd(_isLate ? CommandEndKind.TimedOut : CommandEndKind.Lost);
            }
            _takesSignals = false;
            WriteTheRest(_end.Kind <= CommandEndKind.OutOfMemory ? limit : Environment.TickCount64 + LastMoment);
            if (_end.Kind <= CommandEndKind.OutOfMemory && limit <= Environment.TickCount64 && _streams.HasWork)
                return new CommandEnd(CommandEndKind.TimedOut);
            if (_end.Kind <= CommandEndKind.OutOfMemory && _leaveDeadline is not null && _streams.HasWork)
                return new CommandEnd(CommandEndKind.Lost);     // the output is not whole: the command's status would hide that
            return _end.Kind is CommandEndKind.Exited or CommandEndKind.Killed ? _streams.Failure ?? _end : _end;
        }
        finally
        {
            _takesSignals = false;
            _agent?.Dispose();      // the agent waits for that
            _streams.RestoreTerminal();
        }
    }

    private void Resize() => Request(() => SendIfStarted(AgentFrameType.Resize, Size()));

    private void SendIfStarted(AgentFrameType type, uint number)
    {
        if (_isStarted)
            _agent!.Send(type, AgentStream.Input, number);
    }

    // The time is over. The agent has a moment more.
    private bool IsLogAskedFor(ref long? limit)
    {
        if (!AsksForKernelLog || !_isStarted || _isLate || _end is not null)
            return false;
        _isLate = true;
        limit = Environment.TickCount64 + LogPatience;
        _agent!.Send(AgentFrameType.Log, AgentStream.Input, []);
        return true;
    }

    private void WaitOnce(Func<FileDescriptor?>? again, long? limit)
    {
        if (_agent is null && Environment.TickCount64 >= _nextAttempt)
        {
            _nextAttempt = Environment.TickCount64 + Interval;
            _agent = again!() is { } next ? new AgentConnection(next, awaitsAnswer: true) : null;
        }
        AgentConnection? agent = _agent;
        bool reads = _isStarted;
        int timeout = Until(limit, _signalDeadline, _guestDeadline);
        if (agent is null)
            timeout = timeout < 0 ? Interval : Math.Min(timeout, Interval);
        if (reads && _streams.Input.IsInBackground)
            timeout = timeout < 0 ? Alarm : Math.Min(timeout, Alarm);
        else if (reads)
            _streams.TakeTerminal();
        Span<PollEntry> entries =
        [
            new(_wake, PollEvents.Readable),
            new(agent?.Descriptor, PollEvents.Readable | (agent is { HasToSend: true } ? PollEvents.Writable : PollEvents.None)),
            new(reads ? _streams.Input.Source(agent!) : null, PollEvents.Readable),
            EntryOf(_streams.Output, reads),
            EntryOf(_streams.Error, reads),
        ];
        Poll.Wait(entries, timeout);
        if (entries[0].Happened != PollEvents.None)
            HandleRequests();
        if (entries[3].Happened != PollEvents.None)
            _streams.Output.Happened(agent, entries[3].Happened);
        if (entries[4].Happened != PollEvents.None)
            _streams.Error.Happened(agent, entries[4].Happened);
        if (entries[2].Happened != PollEvents.None && !_streams.Input.Read(agent!))
            _end ??= new CommandEnd(CommandEndKind.Left);
        if (agent is not null && entries[1].Happened != PollEvents.None)
            AgentIsReady(agent, entries[1].Happened, isOnly: again is null);
    }

    private void AgentIsReady(AgentConnection agent, PollEvents happened, bool isOnly)
    {
        if ((happened & PollEvents.Writable) != 0)
            agent.Flush();
        if ((happened & ~PollEvents.Writable) == 0)
            return;
        if (!agent.Receive())
        {
            // The agent connects once.
            if (isOnly || _isGreeted || agent.IsAnswered)
            {
                _end ??= new CommandEnd(_isLate ? CommandEndKind.TimedOut : CommandEndKind.Lost);
                return;
            }
            // The back-end is gone, and the agent has not connected.
            agent.Dispose();
            _agent = null;
            return;
        }
        while (_end is null && agent.TryTake(out AgentFrame head, out ReadOnlySpan<byte> data))
            Handle(agent, head, data);
    }

    private void Handle(AgentConnection agent, AgentFrame head, ReadOnlySpan<byte> data)
    {
        switch (head.Type)
        {
            case AgentFrameType.Hello when !_isGreeted:
                Greet(agent, data);
                break;
            case AgentFrameType.Started when _isGreeted && !_isStarted:
                _isStarted = true;
                Times = Times with { Started = Stopwatch.GetTimestamp() };
                _streams.Input.Begin(agent);
                if (!_streams.Input.IsInBackground)
                    _streams.TakeTerminal();    // its first output may have come, too
                _takesSignals = true;
                if (Command.HasTerminal && Size() != _size)
                    agent.Send(AgentFrameType.Resize, AgentStream.Input, Size());   // it has changed meanwhile
                break;
            case AgentFrameType.Data when _isStarted:
                OutputOf(head.Stream).Add(agent, data);
                break;
            case AgentFrameType.End when _isStarted:
                OutputOf(head.Stream).End();
                break;
            case AgentFrameType.Window when _isStarted && head.Stream == AgentStream.Input:
                _streams.Input.Give(Number(data, 0));
                break;
            case AgentFrameType.Closed when _isStarted && head.Stream == AgentStream.Input:
                _streams.Input.Close();
                break;
            case AgentFrameType.Signalled when _isStarted:
                if (Number(data, 0) == (uint)_signal)
                    _signalDeadline = null;
                break;
            case AgentFrameType.Logged or AgentFrameType.Exit when _isLate:
                _end = new CommandEnd(CommandEndKind.TimedOut);
                break;
            case AgentFrameType.Exit when _isGreeted:
                _end = ReadEnd(data);
                Times = Times with { Ended = Stopwatch.GetTimestamp() };
                break;
            default:
                throw AgentConnection.Violation($"it sends a frame of type {(int)head.Type} for stream {(int)head.Stream}, which may not come now");
        }
    }

    private void Greet(AgentConnection agent, ReadOnlySpan<byte> data)
    {
        uint magic = Number(data, 0), version = Number(data, 1);
        if (magic != AgentFrame.Magic || version != AgentFrame.Version)
        {
            throw new VmmException(magic == AgentFrame.Magic
                ? $"the guest's agent speaks version {version} of the protocol, this vmm version {AgentFrame.Version}: use the vmm that has started the guest"
                : "another program than vmm's agent answers in the guest: start the guest again");
        }
        _isGreeted = true;
        uint modules = Number(data, 2), mounts = Number(data, 3), now = Number(data, 4);
        Times = new AgentTimes(Stopwatch.GetTimestamp(), 0, 0, TimeSpan.FromMicroseconds(modules), TimeSpan.FromMicroseconds((long)mounts - modules), TimeSpan.FromMicroseconds(now));
        Release = Text(data[(5 * sizeof(uint))..]);
        _size = Size();
        agent.Send(AgentFrameType.Start, AgentStream.Input, Command.Encode((ushort)_size, (ushort)(_size >> 16)));
    }

    private static CommandEnd ReadEnd(ReadOnlySpan<byte> data)
    {
        uint kind = Number(data, 0), value = Number(data, 1);
        if (kind > (uint)CommandEndKind.OutOfMemory)
            throw AgentConnection.Violation($"it says that the command ended in way {kind}, which is unknown");
        if ((CommandEndKind)kind is CommandEndKind.Killed or CommandEndKind.OutOfMemory && value is 0 or > LastSignal)
            throw AgentConnection.Violation($"it says that signal {value} ended the command, which is no signal");
        uint kills = Number(data, 2);
        return new CommandEnd((CommandEndKind)kind, (int)(value & 0xFF), Text(data[(3 * sizeof(uint))..]), kills);
    }

    // What has come is written out, as long as somebody takes it and nobody ends us.
    private void WriteTheRest(long? limit)
    {
        while (_streams.HasWork && !(limit <= Environment.TickCount64) && !(_leaveDeadline <= Environment.TickCount64))
        {
            Span<PollEntry> entries = [EntryOf(_streams.Output, true), EntryOf(_streams.Error, true), new(_wake, PollEvents.Readable)];
            Poll.Wait(entries, Until(limit, _leaveDeadline, null));
            if (entries[0].Happened != PollEvents.None)
                _streams.Output.Happened(null, entries[0].Happened);
            if (entries[1].Happened != PollEvents.None)
                _streams.Error.Happened(null, entries[1].Happened);
            if (entries[2].Happened != PollEvents.None)
                HandleRequests();
        }
    }

    private static PollEntry EntryOf(OutputStream output, bool isStarted) =>
        new(isStarted ? output.Target : null, output.HasWork ? PollEvents.Writable : PollEvents.None);

    private OutputStream OutputOf(AgentStream stream) => stream switch
    {
        AgentStream.Output => _streams.Output,
        AgentStream.Error => _streams.Error,
        _ => throw AgentConnection.Violation($"it writes to stream {(int)stream}, which is neither standard output nor standard error"),
    };

    private uint Size()
    {
        (ushort rows, ushort columns) = _streams.TerminalSize;
        return rows | ((uint)columns << 16);
    }

    private void Request(Action action)
    {
        _requests.Enqueue(action);
        _wake.Signal();
    }

    private void HandleRequests()
    {
        _wake.Drain();
        while (_requests.TryDequeue(out Action? action))
            action();
    }

    private static int Until(long? one, long? other, long? third)
    {
        long first = Math.Min(one ?? long.MaxValue, Math.Min(other ?? long.MaxValue, third ?? long.MaxValue));
        return first == long.MaxValue ? -1 : (int)Math.Clamp(first - Environment.TickCount64, 0, int.MaxValue);
    }

    private static uint Number(ReadOnlySpan<byte> data, int index) => data.Length >= (index + 1) * sizeof(uint)
        ? BinaryPrimitives.ReadUInt32LittleEndian(data[(index * sizeof(uint))..])
        : throw AgentConnection.Violation("it sends a frame that is too short");

    private static string Text(ReadOnlySpan<byte> data) => Encoding.UTF8.GetString(data);
}
