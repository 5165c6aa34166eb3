using NLog;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Vsock;

/// <summary>All connections of a guest: packets on one side (VIRTIO 1.2 §5.10.6), Unix sockets on the other. A guest that connects to
/// port N of the host gets the program that listens on PATH_N; a program that connects to PATH says which of the guest's ports it wants. Or the switch connects
/// to nobody: then the guest gets a program that has connected to PATH and waits for a connection to port N.</summary>
/// <remarks>Two threads meet here, those of the guest's transmit and receive queues; a lock keeps them apart. Neither ever waits for a
/// host program.</remarks>
internal sealed partial class VsockSwitch : IDisposable
{
    /// <summary>The host's address (VMADDR_CID_HOST).</summary>
    public const ulong HostCid = 2;

    /// <summary>The most connections at a time, with those whose rest is still on its way to the host.</summary>
    public const int MaxConnections = 1024;

    private const int MaxHandshakes = 64;
    private const int MaxResets = 256;
    private const int MaxReady = 2 * MaxConnections;    // with some that have ended meanwhile
    private const uint FirstHostPort = 1 << 30;     // above those that programs listen on
    private const ulong ListenerId = 0, WakeId = 1, TimerId = 2, FirstId = 3;
    private const int EventsAtOnce = 64;
    private const int PacketsBetweenCollecting = 16;

    private static readonly BoundedLog s_log = new("Vmm.Devices.Vsock");

    private readonly Lock _lock = new();
    private readonly string _path;
    private readonly ulong _guestCid;
    private readonly UnixListener _listener;
    private readonly Epoll _epoll = new();
    private readonly EventFd _wake = new();
    private readonly EventFd _room = new();
    private readonly Dictionary<(uint HostPort, uint GuestPort), VsockConnection> _known = [];
    private readonly Dictionary<ulong, VsockConnection> _connections = [];
    private readonly Dictionary<ulong, HostHandshake> _handshakes = [];
    private readonly Queue<VsockConnection> _ready = new();
    private readonly Queue<VsockHeader> _resets = new();
    private readonly EpollEntry[] _events = new EpollEntry[EventsAtOnce];
    private ulong _nextId = FirstId;
    private uint _nextHostPort = FirstHostPort;
    private int _sinceCollected;
    private bool _isDeaf;
    private bool _isStalled;            // the guest has no buffer for the packet that was made last
    private bool _hasComplained;

    /// <summary>Listens on <paramref name="path"/>.</summary>
    /// <param name="path">Where host programs connect to; with <c>_N</c> behind it, where they listen.</param>
    /// <param name="guestCid">The guest's address.</param>
    /// <param name="patience">How long an answer of the guest's, or room in a host program's queue, is waited for; <see cref="DefaultPatience"/> when null.</param>
    /// <param name="connects">Whether it connects to the sockets <c>PATH_N</c>. If not, host programs accept the guest's connections at PATH.</param>
    /// <exception cref="ErrnoException">Nobody can listen there; the message says what to do.</exception>
    public VsockSwitch(string path, ulong guestCid, TimeSpan? patience = null, bool connects = true)
    {
        _connects = connects;
        _patience = (long)(patience ?? DefaultPatience).TotalMilliseconds;
        _path = path;
        _guestCid = guestCid;
        _listener = UnixListener.Listen(path);
        _epoll.Watch(_listener, PollEvents.Readable, ListenerId);
        _epoll.Watch(_wake, PollEvents.Readable, WakeId);
        _epoll.Watch(_timer, PollEvents.Readable, TimerId);
    }

    /// <summary>Readable when <see cref="TryMakePacket"/> may have something.</summary>
    public FileDescriptor Ready => _epoll;

    /// <summary>Readable when <see cref="HasRoom"/> has become true.</summary>
    public EventFd RoomReady => _room;

    /// <summary>Whether <see cref="Receive"/> may be called. If not, more packets of the guest's would each have to be answered, and it
    /// does not take the answers (VIRTIO 1.2 §5.10.6.1).</summary>
    public bool HasRoom
    {
        get
        {
            lock (_lock)
                return _resets.Count < MaxResets && _ready.Count < MaxReady;
        }
    }

    /// <summary>How many connections there are.</summary>
    public int Count
    {
        get
        {
            lock (_lock)
                return _connections.Count;
        }
    }

    /// <summary>The guest sends a packet.</summary>
    /// <param name="header">Its header, as the guest wrote it.</param>
    /// <param name="data">Its data: as long as the header says, and not longer than <see cref="VsockCredit.Room"/>.</param>
    public void Receive(in VsockHeader header, ReadOnlySpan<byte> data)
    {
        if (header.SourceCid != _guestCid || header.DestinationCid != HostCid)
        {
            // Not ours to answer: there is nobody of that name.
            Complain($"a packet from {header.SourceCid} to {header.DestinationCid} is dropped: the guest is {_guestCid}, and there is only {HostCid}");
            return;
        }
        lock (_lock)
        {
            _known.TryGetValue((header.DestinationPort, header.SourcePort), out VsockConnection? connection);
            // Whatever the guest says of a connection that it has asked for, it does not wait for the answer any more.
            _dialed.Remove((header.DestinationPort, header.SourcePort));
            if (header.Type != VsockType.Stream)
            {
                connection?.Reset();
                if (connection is null)
                    Refuse(header);
            }
            else if (header.Operation == VsockOperation.Request)
            {
                // A guest that has started again knows nothing of what it had before.
                if (connection is not null)
                    Remove(connection);
                Connect(header);
                return;
            }
            else if (connection is null)
            {
                Refuse(header);     // also what comes before the answer to a request
            }
            else
            {
                connection.Receive(header, data);
            }
            if (connection is not null)
                Settle(connection, wake: true);
        }
    }

    /// <summary>A packet that cannot be one: its header is cut off, or it has less data than it says.</summary>
    public void Malformed() => Complain("a packet without a whole header, or with less data than it says, is dropped");

    /// <summary>Makes the next packet for the guest, if there is something to tell it.</summary>
    public bool TryMakePacket(VsockPacket packet)
    {
        lock (_lock)
        {
            _isStalled = false;
            if (_resets.TryDequeue(out VsockHeader reset))
            {
                packet.Set(reset);
                if (_resets.Count == MaxResets - 1)
                    _room.Signal();
                return true;
            }
            // Connections that always have something must not keep others from being heard.
            if (_ready.Count == 0 || ++_sinceCollected >= PacketsBetweenCollecting)
                Collect();
            while (_ready.TryDequeue(out VsockConnection? connection))
            {
                if (_ready.Count == MaxReady - 1)
                    _room.Signal();
                if (!_connections.ContainsKey(connection.Id))
                    continue;   // it ended while it stood here
                connection.IsQueued = false;
                bool isMade = connection.TryMakePacket(packet, _guestCid);
                Settle(connection, wake: false);
                if (isMade)
                    return true;
            }
            return false;
        }
    }

    /// <summary>The guest has no buffer for the packet that was made last. Host programs are attended to all the same: they connect, give up,
    /// and are given up on.</summary>
    public void AttendToHost()
    {
        lock (_lock)
        {
            _isStalled = true;
            Collect();
        }
    }

    /// <summary>Gives host programs what the guest has sent and they have not taken yet. Returns when they have it, or after <paramref name="milliseconds"/>.
    /// The guest's transmit queue is stopped; its receive queue waits, if it runs.</summary>
    public void Flush(int milliseconds)
    {
        long end = Environment.TickCount64 + milliseconds;
        while (true)
        {
            lock (_lock)
            {
                VsockConnection[] slow = [.. _connections.Values.Where(connection => connection.HasDataForHost)];
                long left = end - Environment.TickCount64;
                if (slow.Length == 0 || left <= 0)
                    return;
                Poll.Wait([.. slow.Select(connection => new PollEntry(connection.Socket, PollEvents.Writable))], (int)left);
                Array.ForEach(slow, connection => connection.Flush());
            }
        }
    }

    /// <summary>Ends all connections: the guest, or whoever speaks for it, is gone.</summary>
    public void Clear()
    {
        lock (_lock)
        {
            foreach (VsockConnection connection in _connections.Values)
                connection.Dispose();
            _connections.Clear();
            _known.Clear();
            _ready.Clear();
            _resets.Clear();
            _dialed.Clear();
            Hear();
            _room.Signal();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Clear();
        foreach (HostHandshake handshake in _handshakes.Values)
            handshake.Dispose();
        _handshakes.Clear();
        _acceptors.ForEach(program => program.Dispose());
        _acceptors.Clear();
        _listener.Dispose();
        _epoll.Dispose();
        _wake.Dispose();
        _timer.Dispose();
        _room.Dispose();
    }

    private VsockConnection Add(VsockConnection connection)
    {
        _connections.Add(connection.Id, connection);
        _known.Add((connection.HostPort, connection.GuestPort), connection);
        return connection;
    }

    private void Remove(VsockConnection connection)
    {
        _connections.Remove(connection.Id);
        Unname(connection);
        connection.Dispose();       // which takes it out of the epoll set; from _ready it goes in its turn
        connection.Watched = null;
        Hear();
    }

    // The rest of what the guest has sent on a connection that it has closed may wait for a program that never reads. Such a connection makes room for a new one:
    // that whose program has taken nothing for longest.
    private bool HasFreeConnection(int used)
    {
        if (used < MaxConnections)
            return true;
        if (_connections.Values.Where(connection => connection.IsForgotten).MinBy(connection => connection.LastTaken) is not { } stuck)
            return false;
        Complain($"there are {MaxConnections} connections: what the guest has sent on a closed one to port {stuck.HostPort} is lost, as nobody reads it");
        Remove(stuck);
        return true;
    }

    // Its ports may belong to another one already.
    private void Unname(VsockConnection connection)
    {
        if (_known.TryGetValue((connection.HostPort, connection.GuestPort), out VsockConnection? known) && known == connection)
            _known.Remove((connection.HostPort, connection.GuestPort));
    }

    // Answers a packet of no connection, unless it is such an answer itself.
    private void Refuse(in VsockHeader header)
    {
        if (header.Operation == VsockOperation.Reset)
            return;
        EnqueueReset(header.DestinationPort, header.SourcePort, header.Type);
    }

    private void EnqueueReset(uint hostPort, uint guestPort, VsockType type)
    {
        _resets.Enqueue(new VsockHeader
        {
            SourceCid = HostCid,
            DestinationCid = _guestCid,
            SourcePort = hostPort,
            DestinationPort = guestPort,
            Type = type,
            Operation = VsockOperation.Reset,
        });
        _wake.Signal();
    }

    // After anything has happened to a connection: is it over, has it something for the guest, what is it to wait for?
    private void Settle(VsockConnection connection, bool wake)
    {
        if (connection.IsOver)
        {
            Remove(connection);
            return;
        }
        if (connection.IsForgotten)
            Unname(connection);
        SetDeadline(connection);
        if (connection.HasWork && !connection.IsQueued)
        {
            if (_ready.Count >= MaxReady)
                Tidy();
            connection.IsQueued = true;
            _ready.Enqueue(connection);
            if (wake)
                _wake.Signal();
        }
        PollEvents? wanted = connection.Wanted;
        // The guest does not take data at the moment: a socket that is known to be readable must not wake the ring again and again.
        if (_isStalled && connection.IsReadable && wanted is PollEvents events && (events & PollEvents.Readable) != 0)
            wanted = events == PollEvents.Readable ? null : events & ~PollEvents.Readable;
        if (wanted == connection.Watched)
            return;
        if (wanted is null)
            _epoll.Forget(connection.Socket);
        else if (connection.Watched is null)
            _epoll.Watch(connection.Socket, wanted.Value, connection.Id);
        else
            _epoll.Change(connection.Socket, wanted.Value, connection.Id);
        connection.Watched = wanted;
    }

    // Finds out which sockets have something.
    private void Collect()
    {
        _sinceCollected = 0;
        int count = _epoll.Collect(_events);
        foreach (ref readonly EpollEntry happened in _events.AsSpan(0, count))
        {
            if (happened.Key == WakeId)
            {
                _wake.Drain();
            }
            else if (happened.Key == ListenerId)
            {
                Accept();
            }
            else if (happened.Key == TimerId)
            {
                TimeHasCome();
            }
            else if (_connections.TryGetValue(happened.Key, out VsockConnection? connection))
            {
                connection.HostIsReady(happened.Happened);
                Settle(connection, wake: false);
            }
            else if (_handshakes.TryGetValue(happened.Key, out HostHandshake? handshake))
            {
                Continue(handshake);
            }
            else
            {
                DropAcceptor(happened.Key);
            }
        }
    }

    private void Accept()
    {
        try
        {
            if (_listener.TryAccept() is not { } socket)
                return;
            if (_handshakes.Count == MaxHandshakes)
                Drop(_handshakes.Values.MinBy(handshake => handshake.Id)!);     // whoever has said nothing for longest
            var handshake = new HostHandshake(_nextId++, socket);
            _handshakes.Add(handshake.Id, handshake);
            _epoll.Watch(socket, PollEvents.Readable, handshake.Id);
        }
        catch (ErrnoException e)
        {
            // No descriptors or no memory are left. Programs that connect now are accepted when a connection has ended, or after a while.
            if (!_isDeaf)
                _epoll.Forget(_listener);
            _isDeaf = true;
            Arm(Environment.TickCount64 + RetryMilliseconds);
            Complain($"a program of the host's cannot be connected: {e.Message}");
        }
    }

    private void Continue(HostHandshake handshake)
    {
        switch (handshake.Read())
        {
            case HostWish.Unsaid:
                break;
            case HostWish.Accept when !_connects:
                AwaitGuest(handshake);
                break;
            case HostWish.Connect when !HasFreeConnection(_connections.Count):
                Complain($"a program of the host's is not connected: there are {MaxConnections} connections");
                Drop(handshake);
                break;
            case HostWish.Connect:
                _handshakes.Remove(handshake.Id);
                _epoll.Forget(handshake.Socket);
                Settle(Add(new VsockConnection(handshake.Id, handshake.Socket, FreeHostPort(handshake.Port), handshake.Port, isOfHost: true)), wake: false);
                break;
            default:
                Drop(handshake);
                break;
        }
    }

    private void Drop(HostHandshake handshake)
    {
        _handshakes.Remove(handshake.Id);
        handshake.Dispose();
        Hear();
    }

    private void Hear()
    {
        if (!_isDeaf)
            return;
        _epoll.Watch(_listener, PollEvents.Readable, ListenerId);
        _isDeaf = false;
    }

    // Connections that ended while they stood in the queue.
    private void Tidy()
    {
        for (int left = _ready.Count; left > 0; left--)
        {
            VsockConnection connection = _ready.Dequeue();
            if (_connections.ContainsKey(connection.Id))
                _ready.Enqueue(connection);
        }
        if (_ready.Count < MaxReady)
            _room.Signal();
    }

    // There are far more ports than connections.
    private uint FreeHostPort(uint guestPort)
    {
        while (true)
        {
            uint port = _nextHostPort;
            _nextHostPort = port == uint.MaxValue - 1 ? FirstHostPort : port + 1;
            // The guest may have asked for a connection of these ports, which a program of the host's has not accepted yet.
            if (!_known.ContainsKey((port, guestPort)) && !_dialed.ContainsKey((port, guestPort)))
                return port;
        }
    }

    private void Complain(string what)
    {
        s_log.Log(_hasComplained ? LogLevel.Debug : LogLevel.Warn, "{What}", what);
        _hasComplained = true;
    }
}
