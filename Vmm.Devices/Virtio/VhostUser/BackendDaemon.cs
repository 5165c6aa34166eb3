using System.Diagnostics;
using NLog;
using Vmm.Devices.Spawning;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio.VhostUser;

/// <summary>A back-end of a device's own, a program that is started again when it is gone. It ends by itself when its connection is closed, so
/// nothing of it is left however this process ends.</summary>
internal class BackendDaemon : IDisposable
{
    private const int Patience = 2000;          // milliseconds that it has to end by itself
    private const int Moment = 500;             // milliseconds between the end of its connection and its own
    private const int MaxLine = 1024;

    private static readonly BoundedLog s_log = new("Vmm.Devices.VhostUser");

    private static readonly TimeSpan s_interval = TimeSpan.FromSeconds(1);

    // A program that cannot begin says why within this time. It is started again and again, and says the same each time: only the first time is a warning.
    private static readonly TimeSpan s_shortLife = TimeSpan.FromSeconds(5);

    private readonly Lock _lock = new();
    private readonly string _name;
    private readonly EventLoop _events;
    private readonly DaemonProgram _program;
    private readonly ISpawner _spawner;
    private readonly SpawnerSlot _slot;
    private readonly DiskFile? _disk;       // kept for it
    private OutputLines _lines = new(MaxLine);
    private IStartedProcess? _process;
    private string _lastLine = "";
    private bool _hasSpoken;
    private long _started;
    private bool _isReported = true;
    private string? _lastReport;
    private volatile bool _isEndExpected;
    private bool _isKilled;      // and the kernel has not ended it yet
    private volatile bool _isReached;   // somebody has connected to it, so that the end of the connection ends it
    private bool _disposed;

    /// <summary>Makes a place for its socket. It is not started yet.</summary>
    /// <param name="name">The device, for messages.</param>
    /// <param name="program">The program.</param>
    /// <param name="events">Where is waited for what it says.</param>
    /// <param name="spawner">What starts it; null for this process.</param>
    /// <exception cref="VhostException">There is no place for the socket, or its disk is not to be had.</exception>
    public BackendDaemon(string name, DaemonProgram program, EventLoop events, ISpawner? spawner = null)
    {
        (_name, _program, _events, _spawner) = (name, program, events, spawner ?? new LocalSpawner());
        string[] arguments = program.Arguments(ChildProcess.InheritedNumber);
        if (program.Disk is { } disk)
        {
            _disk = Keep(disk);
            arguments = [.. arguments, disk.Option, _disk.Key];
        }
        try
        {
            _slot = _spawner.Add(new SpawnerProgram(program.Path, arguments, program.IsOwn, program.Socket) { FirstArguments = program.FirstArguments });
        }
        catch (ErrnoException e)
        {
            _disk?.Dispose();
            throw new VhostException($"{name}: no place for a socket: {e.Message}", e);
        }
    }

    /// <summary>Its socket.</summary>
    public string SocketPath => _slot.SocketPath;

    /// <summary>Its process id; 0 before it is started.</summary>
    public int ProcessId
    {
        get
        {
            lock (_lock)
                return _process?.Id ?? 0;
        }
    }

    /// <summary>Readable once its process has ended; null before it is started.</summary>
    public FileDescriptor? Ended
    {
        get
        {
            lock (_lock)
                return _process?.Ended;
        }
    }

    /// <summary>Why it is gone, and what it said last; null while it runs. One that is about to end is waited for: a connection that broke is
    /// seen before the process is gone.</summary>
    public string? Failure
    {
        get
        {
            lock (_lock)
            {
                if (_process is null || !_process.WaitForEnd(Moment))
                    return null;
                ReadOutput();
                return $"{_program.Name} ended with {_process.End}{(_lastLine.Length == 0 ? "" : $": {_lastLine}")}{_program.Advice(_lastLine)}";
            }
        }
    }

    /// <summary>From now on its end is something to warn of; before, whoever started it looks at <see cref="Failure"/>.</summary>
    public void WarnOfEnd()
    {
        lock (_lock)
            _isReported = false;
    }

    /// <summary>From now on its end is nothing to warn of: the connection is about to be closed, and it ends when it sees that. Waits for nobody.</summary>
    public void ExpectEnd() => _isEndExpected = true;

    /// <summary>Starts it; in place of the last one, which is gone or about to be. It can be connected to when this returns.</summary>
    /// <exception cref="VhostException">It cannot be started.</exception>
    public void Start()
    {
        lock (_lock)
        {
            if (_disposed)
                return;
            if (!TryEnd(isExpected: false))
                throw new VhostException($"{_name}: {_program.Name} (process {_process!.Id}) was killed and has not ended yet: no other one is started before");
            _started = Stopwatch.GetTimestamp();
            IStartedProcess process;
            try
            {
                process = _spawner.Start(_slot);
            }
            catch (ErrnoException e)
            {
                throw new VhostException($"{_name}: {e.Message}", e);
            }
            (_process, _lastLine, _hasSpoken, _isReached) = (process, "", false, false);
            _lines = new OutputLines(MaxLine);
            _events.Add(process.Output, () => Happened(process));
            _events.Add(process.Ended, () => Happened(process));
            s_log.Debug("{Device}: started {Program}", _name, _program.Name);
        }
    }

    /// <summary>Connects to it.</summary>
    /// <inheritdoc cref="ISpawner.TryConnect"/>
    public int TryConnect(string path, out UnixSocket? socket)
    {
        int error = _spawner.TryConnect(path, out socket);
        _isReached |= error == 0;
        return error;
    }

    /// <summary>Starts it in the place of one that is gone, but not more often than once a second: one that cannot live must not keep the
    /// host busy.</summary>
    /// <exception cref="VhostException">It cannot be started.</exception>
    public void Respawn()
    {
        lock (_lock)
        {
            if (Stopwatch.GetElapsedTime(_started) >= s_interval)
            {
                Start();
                _isReported = false;
            }
        }
    }

    /// <summary>Ends it, after the connection was closed, and removes its socket.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            if (_disposed)
                return;
            _disposed = true;
            if (TryEnd(isExpected: true))
            {
                _disk?.Dispose();
            }
            else
            {
                s_log.Warn("{Device}: {Program} (process {Id}) was killed and has not ended yet", _name, _program.Name, _process!.Id);
                _process.Dispose();
                _process = null;
                // The disk stays locked until this process ends, too: closing it may wait for what that one waits for, such as a file server.
            }
            _spawner.Remove(_slot);
        }
    }

    private DiskFile Keep(DaemonDisk disk)
    {
        try
        {
            return disk.Keep();
        }
        catch (Exception e) when (e is IOException or InvalidDataException)
        {
            throw new VhostException($"{_name}: {e.Message}", e);
        }
    }

    // Whether it has ended. One that the kernel holds up may still write to its image and to guest memory, and holds its locks.
    private bool TryEnd(bool isExpected)
    {
        if (_process is not { } process)
            return true;
        _events.Remove(process.Output);
        _events.Remove(process.Ended);
        int patience = _isKilled ? 0 : Patience;
        // One that nobody has connected to would wait for a connection.
        if (process.WaitForEnd(_isReached ? patience : 0))
        {
            if (!isExpected)
                Report();
        }
        else if (!process.Kill(patience))
        {
            _isKilled = true;
            return false;
        }
        _isKilled = false;
        _process = null;
        process.Dispose();
        return true;
    }

    private void Report()
    {
        if (!_isReported && !_isEndExpected)
        {
            string? failure = Failure;
            bool isRepeated = failure == _lastReport && Stopwatch.GetElapsedTime(_started) < s_shortLife;
            s_log.Log(isRepeated ? LogLevel.Debug : LogLevel.Warn, "{Device}: {Failure}", _name, failure);
            _lastReport = failure;
        }
        _isReported = true;
    }

    private void Happened(IStartedProcess process)
    {
        lock (_lock)
        {
            if (process != _process)
                return;
            bool hasEnded = process.End is not null;    // first: what it has said before is all there then
            ReadOutput();
            if (!hasEnded)
                return;
            _events.Remove(process.Output);
            _events.Remove(process.Ended);
            Report();
        }
    }

    private void ReadOutput()
    {
        if (_lines.Read(_process!.Output, Say) == 0)
        {
            // Its end. Until the process is seen to have ended there is nothing more to wait for here.
            _events.Remove(_process.Output);
            _lines.End(Say);
        }
    }

    private void Say(string said)
    {
        _lastLine = said;
        // Ours says how bad it is.
        (LogLevel level, string line) = _lastLine switch
        {
            _ when _lastLine.StartsWith("vmm: error: ", StringComparison.Ordinal) => (LogLevel.Error, _lastLine["vmm: error: ".Length..]),
            _ when _lastLine.StartsWith("vmm: warn: ", StringComparison.Ordinal) => (LogLevel.Warn, _lastLine["vmm: warn: ".Length..]),
            _ => (_program.LevelOf(_lastLine), _lastLine),
        };
        // A program of ours whose log level is low logs lines before it says its first line. Lines of its log begin with "vmm: ", and that line does not.
        bool isFirst = !_hasSpoken && !_lastLine.StartsWith("vmm: ", StringComparison.Ordinal);
        _hasSpoken |= isFirst;
        if (isFirst && _program.FirstLine is { } announce)
            announce(line);
        else
            s_log.Log(level, "{Device}: {Program}: {Line}", _name, _program.Name, line);
    }
}
