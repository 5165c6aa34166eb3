using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Vsock;

/// <content>What takes time: the guest's answers, and host programs that listen and are slow to accept.</content>
internal sealed partial class VsockSwitch
{
    /// <summary>As long as Firecracker waits (CONN_REQUEST_TIMEOUT_MS, CONN_SHUTDOWN_TIMEOUT_MS of its vsock device), and Linux guests for a connection.</summary>
    public static readonly TimeSpan DefaultPatience = TimeSpan.FromSeconds(2);

    private const int RetryMilliseconds = 50;
    private const int MaxDialed = 64;

    private readonly TimerFd _timer = new();
    private readonly long _patience;
    // Requests of the guest's that the host's program has no room for yet, and until when they are tried.
    private readonly Dictionary<(uint HostPort, uint GuestPort), (VsockHeader Request, long Deadline)> _dialed = [];
    private long? _timerAt;
    private bool _hasComplainedOfHost;

    /// <summary>All answers are due as late as if they were asked for now: the guest could not give them while its ring did not run.</summary>
    public void RestartDeadlines()
    {
        lock (_lock)
        {
            long deadline = Environment.TickCount64 + _patience;
            foreach (VsockConnection connection in _connections.Values)
                connection.Deadline = connection.Deadline is null ? null : deadline;
            foreach (((uint, uint) ports, (VsockHeader request, _)) in _dialed.ToArray())
                _dialed[ports] = (request, deadline);
        }
    }

    // The guest asks for a connection with a port of the host's.
    private void Connect(in VsockHeader request)
    {
        if (!HasFreeConnection(_connections.Count + _dialed.Count))
        {
            Complain($"the guest's connection to port {request.DestinationPort} is refused: there are {MaxConnections} connections");
            Refuse(request);
            return;
        }
        int error = TryDial(request);
        if (error == 0)
            return;
        if (IsOfTheMoment(error) && _dialed.Count < MaxDialed)
        {
            _dialed.Add((request.DestinationPort, request.SourcePort), (request, Environment.TickCount64 + _patience));
            Arm(Environment.TickCount64 + RetryMilliseconds);
            return;
        }
        FailToConnect(request, error);
    }

    private int TryDial(in VsockHeader request)
    {
        if (!_connects)
            return TryHandOver(request);
        string path = $"{_path}_{request.DestinationPort}";
        UnixSocket? socket;
        try
        {
            int error = UnixSocket.TryConnect(path, out socket);
            if (error != 0)
                return error;
        }
        catch (ErrnoException e)    // no descriptors left
        {
            return e.Errno;
        }
        Begin(_nextId++, socket!, request);
        return 0;
    }

    private void Begin(ulong id, UnixSocket socket, in VsockHeader request)
    {
        VsockConnection connection = Add(new VsockConnection(id, socket, request.DestinationPort, request.SourcePort, isOfHost: false));
        connection.Note(request);
        Settle(connection, wake: true);
    }

    // A listener's queue that is full, a program that has yet to accept, and resources: another attempt may work.
    private bool IsOfTheMoment(int error) =>
        (error == Errnos.Econnrefused && !_connects) || error is Errnos.Eagain or Errnos.Emfile or Errnos.Enfile or Errnos.Enomem or Errnos.Enobufs;

    private void FailToConnect(in VsockHeader request, int error)
    {
        // Without a listener the guest has the wrong port, which is its own mistake. Any other error is the host's, and a warning.
        bool isOurs = error is not (Errnos.Enoent or Errnos.Econnrefused);
        string message = _connects
            ? UnixSocket.CannotConnect($"{_path}_{request.DestinationPort}", error).Message
            : new ErrnoException($"nobody accepts connections to port {request.DestinationPort} at {_path}", error).Message;
        s_log.Log(isOurs && !_hasComplainedOfHost ? NLog.LogLevel.Warn : NLog.LogLevel.Debug, "a connection of the guest's is refused: {Error}", message);
        _hasComplainedOfHost |= isOurs;
        Refuse(request);
    }

    private void SetDeadline(VsockConnection connection)
    {
        if (!connection.AwaitsGuest)
        {
            connection.Deadline = null;
        }
        else if (connection.Deadline is null)
        {
            connection.Deadline = Environment.TickCount64 + _patience;
            Arm(connection.Deadline.Value);
        }
    }

    private void Arm(long at)
    {
        if (_timerAt is long earlier && earlier <= at)
            return;
        _timerAt = at;
        _timer.Set(TimeSpan.FromMilliseconds(Math.Max(0, at - Environment.TickCount64)));
    }

    private void TimeHasCome()
    {
        _timer.Drain();
        _timerAt = null;
        Hear();
        DialAgain();
        long now = Environment.TickCount64;
        long? next = null;
        foreach (VsockConnection connection in _connections.Values.ToArray())
        {
            if (connection.Deadline is not long deadline)
                continue;
            if (deadline <= now)
                GiveUpOn(connection);
            else if (next is null || deadline < next)
                next = deadline;
        }
        if (next is long at)
            Arm(at);
    }

    private void DialAgain()
    {
        KeyValuePair<(uint, uint), (VsockHeader Request, long Deadline)>[] waiting = _dialed.ToArray();
        // Linux does not say when it gives a connection up: where one program waits for one, the newest is the likeliest to be wanted still.
        if (!_connects)
            Array.Sort(waiting, (a, b) => b.Value.Deadline.CompareTo(a.Value.Deadline));
        foreach (((uint, uint) ports, (VsockHeader request, long deadline)) in waiting)
        {
            int error = TryDial(request);
            if (error != 0 && IsOfTheMoment(error) && Environment.TickCount64 < deadline)
                continue;
            _dialed.Remove(ports);
            if (error != 0)
                FailToConnect(request, error);
        }
        if (_dialed.Count > 0)
            Arm(Environment.TickCount64 + RetryMilliseconds);
    }

    // A guest that does not take this reset either gets another one for whatever it says.
    private void GiveUpOn(VsockConnection connection)
    {
        s_log.Debug("the guest's port {Port} did not answer: its connection is ended", connection.GuestPort);
        if (connection.IsKnownToGuest && _resets.Count < MaxResets)
            EnqueueReset(connection.HostPort, connection.GuestPort, VsockType.Stream);
        connection.GiveUpOnGuest();
        Settle(connection, wake: true);
    }
}
