using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Vsock;

/// <summary>What a connection still has to tell the guest. Bits, so that it is bounded however often the guest gives reason for it.</summary>
[Flags]
internal enum VsockPending
{
    None = 0,
    Request = 1,
    Response = 2,
    Shutdown = 4,
    CreditUpdate = 8,
    CreditRequest = 16,
    Reset = 32,
}

/// <summary>A stream between a port of the guest's and a Unix socket of the host's. Not thread-safe: <see cref="VsockSwitch"/> has the lock.</summary>
internal sealed class VsockConnection : IDisposable
{
    private readonly ByteQueue _toHost = new(VsockCredit.Room);
    private VsockCredit _credit;
    private VsockPending _pending;
    private VsockShutdown _ours;        // what we have told the guest, or are about to
    private VsockShutdown _guests;      // what the guest has told us
    private readonly bool _isOfHost;
    private bool _isReadable;           // the host's socket has something, or its end

    /// <summary>A connection that <paramref name="socket"/>'s peer or the guest has asked for.</summary>
    /// <param name="id">By which it is known to whoever waits for its socket.</param>
    /// <param name="socket">The host's side; the connection closes it.</param>
    /// <param name="hostPort">The port on the host's side.</param>
    /// <param name="guestPort">The guest's port.</param>
    /// <param name="isOfHost">Whether the host has asked for it, so that the guest has yet to agree.</param>
    public VsockConnection(ulong id, UnixSocket socket, uint hostPort, uint guestPort, bool isOfHost)
    {
        Id = id;
        Socket = socket;
        HostPort = hostPort;
        GuestPort = guestPort;
        _isOfHost = isOfHost;
        IsEstablished = !isOfHost;
        _pending = isOfHost ? VsockPending.Request : VsockPending.Response;
    }

    public ulong Id { get; }

    public UnixSocket Socket { get; }

    public uint HostPort { get; }

    public uint GuestPort { get; }

    /// <summary>Whether both sides have agreed.</summary>
    public bool IsEstablished { get; private set; }

    /// <summary>Whether it stands in the queue of those that have something for the guest.</summary>
    public bool IsQueued { get; set; }

    /// <summary>What its socket is watched for; null while it is not.</summary>
    public PollEvents? Watched { get; set; }

    /// <summary>Whether the guest knows nothing of it any more: only the rest of what it sent is on its way.</summary>
    public bool IsForgotten { get; private set; }

    /// <summary>When the host's program has taken something last since the guest has forgotten the connection, in milliseconds of
    /// <see cref="Environment.TickCount64"/>; or when that was.</summary>
    public long LastTaken { get; private set; }

    /// <summary>Until when, in milliseconds of <see cref="Environment.TickCount64"/>, the guest may answer; null while nothing is asked of it.</summary>
    public long? Deadline { get; set; }

    /// <summary>Whether the guest is to answer: to a request, to the end of both directions, or by taking a reset.</summary>
    public bool AwaitsGuest => !IsForgotten && !IsOver
        && (IsRequest || _ours == VsockShutdown.Both || (_pending & VsockPending.Reset) != 0);

    /// <summary>Whether the guest has been told of it, or has asked for it.</summary>
    public bool IsKnownToGuest => (_pending & VsockPending.Request) == 0;

    /// <summary>Whether the host's socket has something that the guest has not got.</summary>
    public bool IsReadable => _isReadable;

    /// <summary>Whether the guest has sent something that the host's program has not taken yet.</summary>
    public bool HasDataForHost => _toHost.Count > 0;

    /// <summary>Whether nothing is left to do for it.</summary>
    public bool IsOver { get; private set; }

    /// <summary>Whether it has something for the guest now.</summary>
    public bool HasWork => !IsForgotten && !IsOver && (_pending != VsockPending.None || (_isReadable && CanSendData));

    /// <summary>What its socket should be watched for (<see cref="PollEvents.None"/>: for its end); null for nothing, not even its end.</summary>
    public PollEvents? Wanted
    {
        get
        {
            if (IsRequest)
                return (_pending & VsockPending.Reset) != 0 ? null : PollEvents.None;
            PollEvents wanted = !IsForgotten && CanSendData ? PollEvents.Readable : PollEvents.None;
            if (_toHost.Count > 0)
                wanted |= PollEvents.Writable;
            return wanted == PollEvents.None ? null : wanted;
        }
    }

    // A request of the host's that the guest has not answered.
    private bool IsRequest => _isOfHost && !IsEstablished;

    private bool CanSendData =>
        IsEstablished && (_ours & VsockShutdown.Send) == 0 && (_guests & VsockShutdown.Receive) == 0 && _credit.Available > 0;

    /// <summary>Takes note of the room that the guest says it has.</summary>
    public void Note(in VsockHeader header) => _credit.Note(header);

    /// <summary>The guest sends a packet for this connection.</summary>
    /// <param name="header">Its header.</param>
    /// <param name="data">The data; as long as the header says.</param>
    public void Receive(in VsockHeader header, ReadOnlySpan<byte> data)
    {
        _credit.Note(header);
        switch (header.Operation)
        {
            case VsockOperation.Response when !IsEstablished && (_pending & VsockPending.Request) == 0:
                Establish();
                break;
            case VsockOperation.ReadWrite when IsEstablished && (_guests & VsockShutdown.Send) == 0:
                if (data.Length > _toHost.Room)
                    Reset();    // more than it has credit for
                else
                    SendToHost(data);
                break;
            case VsockOperation.CreditUpdate when IsEstablished:
                break;
            case VsockOperation.CreditRequest when IsEstablished:
                _pending |= VsockPending.CreditUpdate;
                break;
            case VsockOperation.Shutdown when IsEstablished:
                _guests |= header.Flags & VsockShutdown.Both;
                if ((_guests & VsockShutdown.Receive) != 0)
                    Socket.EndReceiving();
                EndIfAllIsSaid();
                break;
            case VsockOperation.Reset:
                Forget();
                break;
            default:
                Reset();        // unknown, or not now
                break;
        }
    }

    /// <summary>Something happened on the host's socket.</summary>
    public void HostIsReady(PollEvents happened)
    {
        if (IsRequest)
        {
            GiveUpRequest();
            return;
        }
        if ((happened & PollEvents.Writable) != 0 || (IsForgotten && happened != PollEvents.None))
            Flush();
        if ((happened & (PollEvents.Readable | PollEvents.HangUp | PollEvents.Error)) != 0)
            _isReadable = true;
    }

    /// <summary>Makes the next packet for the guest.</summary>
    /// <returns>False if there is none after all.</returns>
    public bool TryMakePacket(VsockPacket packet, ulong guestCid)
    {
        if (!HasWork)
            return false;   // it was forgotten meanwhile
        VsockHeader header = HeaderFor(guestCid);
        if (Take(VsockPending.Reset))
        {
            header.Operation = VsockOperation.Reset;
            Forget();
        }
        else if (Take(VsockPending.Request))
        {
            header.Operation = VsockOperation.Request;
        }
        else if (Take(VsockPending.Response))
        {
            header.Operation = VsockOperation.Response;
        }
        else if (Take(VsockPending.Shutdown))
        {
            header.Operation = VsockOperation.Shutdown;
            header.Flags = _ours;
        }
        else if (Take(VsockPending.CreditUpdate))
        {
            header.Operation = VsockOperation.CreditUpdate;
        }
        else if (Take(VsockPending.CreditRequest))
        {
            header.Operation = VsockOperation.CreditRequest;
        }
        else if (!_isReadable || !CanSendData || !TryRead(packet, ref header))
        {
            return false;
        }
        _credit.Tell(ref header);
        packet.Set(header);
        return true;
    }

    /// <summary>Ends it without a word to the guest, which has not answered for too long. The host still gets the data that the guest sent before.</summary>
    public void GiveUpOnGuest() => Forget();

    /// <summary>Ends it: the guest will be told, if it knows of it, and the rest of what it sent is given to the host.</summary>
    public void Reset() => _pending = VsockPending.Reset;

    /// <inheritdoc/>
    public void Dispose() => Socket.Dispose();

    private VsockHeader HeaderFor(ulong guestCid) => new()
    {
        SourceCid = VsockSwitch.HostCid,
        DestinationCid = guestCid,
        SourcePort = HostPort,
        DestinationPort = GuestPort,
        Type = VsockType.Stream,
    };

    private bool Take(VsockPending what)
    {
        bool isThere = (_pending & what) != 0;
        _pending &= ~what;
        return isThere;
    }

    // The host's program has left before the guest has answered.
    private void GiveUpRequest()
    {
        if (IsKnownToGuest)
            Reset();
        else
            IsOver = true;
    }

    private void Establish()
    {
        IsEstablished = true;
        // A socket that has sent nothing yet has room for one line.
        if (Socket.TrySend(HostHandshake.Answer(HostPort), []) < 0)
            Reset();
    }

    private bool TryRead(VsockPacket packet, ref VsockHeader header)
    {
        int room = (int)Math.Min(_credit.Available, VsockPacket.MaxData);
        int count = Socket.TryRead(packet.Buffer.AsSpan(0, room));
        if (count == -Errnos.Eagain)
        {
            _isReadable = false;
            return false;
        }
        if (count > 0)
        {
            header.Operation = VsockOperation.ReadWrite;
            header.Length = (uint)count;
            _credit.Sent(count);
            _isReadable = count == room;    // less was all there was; what comes next is told
            if (_credit.Available == 0)
                _pending |= VsockPending.CreditRequest;
            return true;
        }
        _isReadable = false;
        // The end of the host's data. A program that has closed its socket altogether, and not only its sending side, takes no data either.
        Span<PollEntry> entries = [new PollEntry(Socket, PollEvents.None)];
        Poll.Wait(entries, 0);
        _ours |= count < 0 || (entries[0].Happened & (PollEvents.HangUp | PollEvents.Error)) != 0 ? VsockShutdown.Both : VsockShutdown.Send;
        header.Operation = VsockOperation.Shutdown;
        header.Flags = _ours;
        return true;
    }

    private void SendToHost(ReadOnlySpan<byte> data)
    {
        if (_toHost.Count == 0)
        {
            int sent = TrySend(data);
            data = data[sent..];
        }
        _toHost.Add(data);
    }

    /// <summary>Gives the host's program what it takes of what the guest has sent.</summary>
    public void Flush()
    {
        while (_toHost.Count > 0)
        {
            int sent = TrySend(_toHost.First);
            if (sent == 0)
                return;
            _toHost.Remove(sent);
            if (IsForgotten)
                LastTaken = Environment.TickCount64;
        }
        EndIfAllIsSaid();
        EndIfForgotten();
    }

    // If the host's program is gone, the data for it counts as taken.
    private int TrySend(ReadOnlySpan<byte> data)
    {
        int sent = data.IsEmpty ? 0 : Socket.TrySend(data, []);
        if (sent == -Errnos.Eagain)
            return 0;
        if (sent < 0)
        {
            sent = data.Length;
            if ((_ours & VsockShutdown.Receive) == 0)
            {
                _ours |= VsockShutdown.Receive;
                _pending |= VsockPending.Shutdown;
            }
        }
        _credit.Forwarded(sent);
        if (_credit.ShouldTell)
            _pending |= VsockPending.CreditUpdate;
        return sent;
    }

    // The guest has ended a direction, and what it sent before is with the host.
    private void EndIfAllIsSaid()
    {
        if (_toHost.Count > 0 || (_guests & VsockShutdown.Send) == 0 || IsForgotten)
            return;
        if (_guests == VsockShutdown.Both)
            Reset();            // what a driver waits for that closes its socket (VIRTIO 1.2 §5.10.6.5)
        else
            Socket.EndSending();
    }

    private void Forget()
    {
        IsForgotten = true;
        LastTaken = Environment.TickCount64;
        _pending = VsockPending.None;
        EndIfForgotten();
    }

    private void EndIfForgotten()
    {
        if (IsForgotten && _toHost.Count == 0)
            IsOver = true;
    }
}
