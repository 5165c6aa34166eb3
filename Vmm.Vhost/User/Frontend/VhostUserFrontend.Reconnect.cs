using System.Diagnostics;
using NLog;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Frontend;

// The end of a connection, and the next one: all on the thread of _monitor, but for Leave.
public sealed partial class VhostUserFrontend
{
    // A back-end that ends again and again, a crash that its driver's requests bring about, is given time, and is told of a few times only.
    private const int QuickEnds = 4;
    private static readonly TimeSpan s_quick = TimeSpan.FromSeconds(1);

    // Until it is tried again after a back-end that is of no use, or when this process has no descriptor or memory left.
    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(500);

    // A back-end that comes back may refuse for a moment: its predecessor, which is about to end, still has the lock of an image, or its host is out of
    // memory. So many refusals in succession, s_pause apart, end the device.
    private const int RefusalLimit = 10;

    private readonly EventFd _news = null!;     // there is something to raise an event about
    private readonly Lock _newsLock = new();    // _news is signalled by whoever holds no other lock
    private readonly TimerFd _retry = null!;
    private VhostUserSession? _connecting;      // being negotiated, without the lock
    private string? _untold;                    // why the connection ended, until it was told
    private bool _isLossUntold;
    private int _configStale;
    private string? _lastComplaint;
    private long _connectedAt;                  // when the last connection was tried or began
    private int _quickEnds;                     // how many in succession ended within s_quick
    private int _refusals;                      // in succession, of back-ends that came back
    private FrontendPeer? _candidate;           // connected, and another than the one that the driver knows: it waits for a reset
    private string? _toldLost;                  // why the device was lost, as it was logged last
    private string? _channelFailure;            // what a call-back threw on the thread of _requests, until the monitor's thread has seen it

    void IVhostUserBackendRequests.BackendIsNew() => Events?.SharedMemoryIsNew();

    bool IVhostUserBackendRequests.ConfigChanged()
    {
        // Answered at once: to read it takes the lock, whose holder may wait for the back-end.
        Interlocked.Exchange(ref _configStale, 1);
        SignalNews();
        return true;
    }

    bool IVhostUserBackendRequests.MapShared(in ShmemMapPayload mapping, FileDescriptor file) =>
        Events?.MapShared(in mapping, file) ?? false;

    bool IVhostUserBackendRequests.UnmapShared(in ShmemMapPayload mapping) => Events?.UnmapShared(in mapping) ?? false;

    // Begins to look after the connection.
    private void Watch()
    {
        lock (_options.Sync)
        {
            _monitor.Add(_news, News, failed: Fail);
            _monitor.Add(_retry, Retry, failed: Fail);
            WatchPeer(_peer!);
        }
    }

    private void WatchPeer(FrontendPeer peer) =>
        _monitor.Add(peer.Session.Socket, () => HungUp(peer), PollEvents.None, Fail);

    // A call-back of the owner's has thrown: nobody knows what it has done, and it is not called again. So the device ends, and no reset helps.
    private void Fail(string reason)
    {
        lock (_options.Sync)
        {
            _hasFailed = true;
            if (!_disposed)
                DropCandidate();
        }
        Refuse($"{Name}: a call-back failed: {reason}");
    }

    // On the thread of _requests, which waits for nobody.
    private void ChannelFailed(string reason)
    {
        Interlocked.CompareExchange(ref _channelFailure, reason, null);
        SignalNews();
    }

    private void SignalNews()
    {
        lock (_newsLock)
        {
            if (!_news.IsClosed)
                _news.Signal();
        }
    }

    private void HungUp(FrontendPeer peer)
    {
        lock (_options.Sync)
        {
            if (_disposed)
                return;
            if (peer == _candidate)
            {
                DropCandidate();
                _retry.Set(s_pause);
            }
            if (peer != _peer)
                return;
            // The connection also hangs up where this process has broken it, because a request outside of Do failed. Then the back-end lives.
            string? broken = peer.Session.LostReason;
            Leave(broken ?? $"{Name}: the peer closed the connection", broken is null || peer.Session.IsClosedByPeer ? Parting.Theirs : Parting.Ours);
        }
        News();
    }

    // The connection is of no use any more. Under the lock, on whatever thread; the events follow on the monitor's. A back-end that lives, and was
    // left because it did not stop, is connected to again even if it would not be after its death, unless a ring runs on and has lost its place.
    private void Leave(string reason, Parting parting)
    {
        if (_peer is not { } peer)
            return;
        NoteWriter(peer, parting);
        _monitor.Remove(peer.Session.Socket);
        _peer = null;
        peer.Dispose();
        if (IsCancelled)
        {
            _lost = reason;
            return;
        }
        _untold = reason;
        CountEnd();
        if (CanReconnect || (parting == Parting.NotStopped && _connector.CanReconnect && !HasLostPlace))
            _retry.Set(_quickEnds == 0 ? TimeSpan.Zero : RetryInterval);
        else
            _lost = reason;
        SignalNews();
    }

    private void News()
    {
        lock (_options.Sync)
        {
            if (_disposed)
                return;
            _news.Drain();
            if (Interlocked.Exchange(ref _channelFailure, null) is { } failure)
                Fail(failure);
            if (_untold is { } reason)
            {
                _untold = null;
                if (_lost is not null)
                {
                    // A driver that is reset again and again while the wrong back-end is there is told each time, the log once.
                    LogLevel level = _lost == _toldLost ? LogLevel.Debug : LogLevel.Error;
                    _toldLost = _lost;
                    s_log.Log(level, "{Reason}{Advice}", reason, CanReconnect ? "" : ": it is not connected to again");
                    _isLossUntold = true;
                    SignalErrors();
                }
                else
                {
                    s_log.Log(ReportLevel, "{Reason}: it is waited for", reason);
                    Events?.Disconnected(reason);
                }
            }
            if (_isLossUntold && Events is { } events)
            {
                _isLossUntold = false;
                events.Lost(_lost!);
            }
            // While it is away the change stays to be told.
            if (_disposed || _peer is null || Interlocked.Exchange(ref _configStale, 0) == 0)
                return;
            try
            {
                RefreshConfig();
            }
            catch (VhostUserException e)
            {
                s_log.Debug("{Error}", e.Message);   // the device is lost meanwhile: the next call tells of that
            }
        }
    }

    // Nobody works the rings any more: whoever waits for one hears of it.
    private void SignalErrors()
    {
        foreach (Ring ring in _rings)
        {
            if (ring.Runs && ring.Config.Error is { IsClosed: false } error)
                error.SignalPeer();
        }
    }

    // The time has come, or somebody has connected.
    private void Retry()
    {
        lock (_options.Sync)
        {
            if (_disposed)
                return;
            _retry.Drain();
            Listen(false);
            if (_peer is not null || _candidate is not null || (_lost is not null && !CanReconnect))
                return;
            News();
        }
        FrontendPeer? peer = null;
        bool isQuiet = false;
        TimeSpan? pause = null;
        _connectedAt = Stopwatch.GetTimestamp();
        try
        {
            peer = Reconnect(out isQuiet);
        }
        catch (VhostUserException e) when (e.IsConnectionLost)
        {
            if (IsCancelled)
                return;
            CountEnd();
            Complain(e.Message);
        }
        catch (ObjectDisposedException) when (_disposed)
        {
            return;   // the device went meanwhile
        }
        catch (VhostException e)
        {
            pause = s_pause;
            TurnAway(e);
        }
        lock (_options.Sync)
        {
            if (_disposed)
            {
                peer?.Dispose();
                return;
            }
            if (peer is not null)
                Restore(peer);
            else if (isQuiet && _connector.Listener is not null)
                Listen(true);
            else
                _retry.Set(pause ?? RetryInterval);
        }
    }

    private void Listen(bool isWanted)
    {
        if (_connector.Listener is not { } listener)
            return;
        _monitor.Remove(listener);
        if (isWanted)
            _monitor.Add(listener, Retry, failed: Fail);
    }

    // Mostly without the lock: a back-end that takes its time holds up no vCPU.
    private FrontendPeer? Reconnect(out bool isQuiet)
    {
        VhostUserSession session;
        isQuiet = false;
        try
        {
            if (!_received.HasRoom)
            {
                Complain($"{Name}: {PeerDescriptors.MaxWaiting} descriptors that the back-end has sent are still being closed");
                return null;
            }
            _options.Respawn?.Invoke();
            UnixSocket? socket = _connector.TryConnect();
            lock (_options.Sync)
            {
                if (_disposed || socket is null)
                {
                    socket?.Dispose();
                    isQuiet = true;
                    return null;
                }
                session = _connecting = NewSession(socket);
                // A program that has just been started answers when the host has time for it. One that is given up too early, and started again, never does.
                session.Deadline = new Deadline(_options.StartTimeout);
            }
        }
        catch (IOException e) when (e.InnerException is not ErrnoException { Errno: Errnos.Epipe })
        {
            Complain(e.Message.StartsWith(Name, StringComparison.Ordinal) ? e.Message : $"{Name}: {e.Message}");
            return null;
        }
        try
        {
            return FrontendPeer.Negotiate(session, _options, this, _requests, ChannelFailed);
        }
        finally
        {
            session.Deadline = null;
            lock (_options.Sync)
            {
                _connecting = null;
                if (_disposed)
                    _cancelled.Dispose();
            }
        }
    }

    private void Restore(FrontendPeer peer)
    {
        if (FindMisfit(peer) is { } misfit)
        {
            peer.Dispose();
            _retry.Set(s_pause);
            Refuse($"{Name}: the back-end that came back is none for this device: {misfit}: start it as it was");
            return;
        }
        if (_lost is not null)
        {
            Keep(peer);
            return;
        }
        bool isUsed = _accepted is not null || _written.Contains(true);
        if (isUsed && FindChange(peer) is { } change)
        {
            Keep(peer);
            Refuse($"{Name}: the back-end that came back is another: {change}: reset the device (restart the guest, or bind its driver again), or start the back-end as it was");
            return;
        }
        _peer = peer;
        WatchPeer(peer);
        bool isChanged;
        if (isUsed)
        {
            Session = peer.Session;
            isChanged = TakeChangedConfig(peer);
        }
        else
        {
            isChanged = !_original.AsSpan().SequenceEqual(peer.Config);
            Adopt(peer);   // no driver knows the one before
        }
        try
        {
            Do(Replay, _options.StartTimeout);
        }
        catch (VhostException e)
        {
            _retry.Set(s_pause);
            TurnAway(e);
            return;
        }
        if (_peer != peer)
            return;
        _refusals = 0;
        _lastComplaint = _toldLost = null;
        s_log.Log(ReportLevel, "{Peer}: the back-end is back", Name);
        Events?.Restored();
        if (isChanged)
            Events?.ConfigChanged();
        SignalNews();   // of its configuration, perhaps
    }

    private void Replay(FrontendPeer peer)
    {
        if (_accepted is { } features)
            ApplyFeatures(peer, features);
        RestoreConfig(peer);   // which features allow
        // With all rings stopped, its owner may have disposed of it, and shares other memory before the next start.
        if (_hasMemory && !_memory!.File.IsClosed)
            ApplyMemory(peer, _memory);
        List<Ring> running = [.. _rings.Where(ring => ring.Runs)];
        if (running.Count == 0)
            return;
        Prepare(peer, isAgain: running.Exists(ring => ring.WasTold));
        foreach (Ring ring in running)
        {
            if (!ring.WasTold)
                continue;
            ring.Base = UsedIndex(ring);
            if (_inflightFile is null && !_warnedOfOrder)
            {
                _warnedOfOrder = true;
                s_log.Warn(
                    "{Peer}: does not keep track of requests in flight: those that it had completed out of order when it ended may be done twice, and others lost",
                    Name);
            }
        }
        StartOn(peer, running);
        foreach (Ring ring in running)
            ring.Config.Call.SignalPeer();   // what was given back before the end may not have been told
    }

    // Why the device can never have this back-end, whatever a driver does.
    private string? FindMisfit(FrontendPeer peer)
    {
        if ((_options.RequiredFeatures & ~peer.OfferedFeatures) is not 0 and var missing)
            return $"it lacks the features 0x{missing:x}, which the device needs";
        // The guest has found its regions, and they stay where they are.
        if (SharedMemorySizes.Count > 0 && peer.SharedMemorySizes is null)
            return $"it lacks the protocol feature {VhostUserProtocolFeatures.Shmem}";
        return SharedMemorySizes.Count > 0 && !SharedMemorySizes.SequenceEqual(peer.SharedMemorySizes!)
            ? "its shared memory has another size"
            : null;
    }

    // Why the device cannot go on with this back-end as its driver knows it.
    private string? FindChange(FrontendPeer peer)
    {
        ulong missing = (_accepted ?? 0) & ~peer.OfferedFeatures;
        if (missing != 0)
            return $"it lacks the features 0x{missing:x}, which the driver uses";
        VhostUserProtocolFeatures needed = (ProtocolFeatures & VhostUserProtocolFeatures.Config)
            | (_inflightFile is null ? VhostUserProtocolFeatures.None : VhostUserProtocolFeatures.InflightShmFd);
        if ((needed & ~peer.Session.ProtocolFeatures) is not 0 and var lacking)
            return $"it lacks the protocol feature {lacking}";
        return HasOtherConfig(peer) ? "its configuration space differs" : null;
    }

    // A back-end did not come back. It is tried again if this process has run out of something, which says nothing about the back-end, and a few times if the back-end
    // refused something, which it may take a moment later. Any other error is for good: the back-end does not fit this device, or the process that starts or connects to it is gone.
    private void TurnAway(VhostException e)
    {
        bool isOfTheMoment = e.InnerException is ErrnoException { IsShortage: true } || (e is VhostUserException && ++_refusals < RefusalLimit);
        lock (_options.Sync)
        {
            isOfTheMoment &= _peer is not { MayRun: true } || !HasLostPlace;
            if (isOfTheMoment)
                Drop();
        }
        if (isOfTheMoment)
            Complain(e.Message);
        else
            Refuse(e.Message);
    }

    // The device cannot go on until it is reset. A device that is lost already stays so for the first reason.
    private void Refuse(string reason)
    {
        lock (_options.Sync)
        {
            if (_disposed || _lost is not null)
                return;
            Drop();
            _refusals = 0;
            _lost = _untold = reason;
        }
        News();
    }

    // Ends the connection, of which nothing is told. Under the lock.
    private void Drop()
    {
        if (_peer is not { } peer)
            return;
        if (peer.MayRun)
            NoteWriter(peer, Parting.Ours);
        _monitor.Remove(peer.Session.Socket);
        _peer = null;
        peer.Dispose();
    }

    // The connection stays open until the device is reset: then the back-end is there at once.
    private void Keep(FrontendPeer peer)
    {
        _candidate = peer;
        WatchPeer(peer);
    }

    private void DropCandidate()
    {
        if (_candidate is not { } candidate)
            return;
        _candidate = null;
        _monitor.Remove(candidate.Session.Socket);
        candidate.Dispose();
    }

    // A reset: nobody goes by the back-end that was.
    private void Revive()
    {
        _lost = _untold = null;
        _isLossUntold = false;
        if (_candidate is not { } peer)
        {
            // The next one is taken as it is.
            ForgetWrites();
            return;
        }
        _candidate = null;
        _peer = peer;
        Adopt(peer);
        _lastComplaint = null;
        s_log.Info("{Peer}: the device has another back-end from now on", Name);
    }

    private TimeSpan RetryInterval => _quickEnds < QuickEnds ? PeerConnector.RetryInterval : 4 * PeerConnector.RetryInterval;

    private LogLevel ReportLevel => _quickEnds < QuickEnds ? LogLevel.Warn : LogLevel.Debug;

    private void CountEnd() => _quickEnds = Stopwatch.GetElapsedTime(_connectedAt) < s_quick ? _quickEnds + 1 : 0;

    // A back-end that dies again and again says so once.
    private void Complain(string message)
    {
        if (message != _lastComplaint)
            s_log.Warn("{Error}: it is tried again", message);
        _lastComplaint = message;
    }
}
