using System.Diagnostics;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Frontend;

/// <summary>A data plane in another process, behind a Unix socket: the front-end (master) of a vhost-user back-end (slave). It survives
/// its back-end: one that is gone is waited for and told everything again, while the driver's requests wait in the rings.</summary>
/// <remarks><para>It is called with the owner's lock held, and two threads of its own are there: one takes the lock, waits for the end of the
/// connection and for the next one; the other answers what the back-end asks and never waits for anybody, since whoever holds the
/// lock may wait for the back-end. What a back-end has sent is closed by threads of the process's (<see cref="VhostUserMessage"/>).</para>
/// <para>While the back-end is away, everything succeeds and is done when it is back. If it then refuses, it is connected to again a few times, and
/// what it refuses each time ends the device (<see cref="IVhostUserFrontendEvents.Lost"/>).</para></remarks>
public sealed partial class VhostUserFrontend : IVhostBackend, IVhostUserBackendRequests
{
    /// <summary>The system calls that it makes on threads of its owner's once it is open: for a process that confines itself.</summary>
    public static readonly IReadOnlyList<SystemCallRule> OwnersCalls =
    [
        new(SystemCallNumber.Sendto, "no address", ArgumentCondition.IsNull(4)),
        SystemCallNumber.Sendmsg, SystemCallNumber.Recvmsg, SystemCallNumber.Shutdown, SystemCallNumber.TimerfdSettime, SystemCallNumber.Fstat,
        SystemCallNumber.Preadv2,   // the log of a packed ring, when the device is stopped
        FileKind.SharedMemoryCheck,
    ];

    /// <summary>Those that it makes on its own threads besides, to begin a connection.</summary>
    public static readonly IReadOnlyList<SystemCallRule> ConnectingCalls =
    [
        new(SystemCallNumber.Socketpair, "domain is AF_UNIX, type is SOCK_STREAM", ArgumentCondition.IsOneOf(0, 1), ArgumentCondition.HasBits(1, 0xF, 1)),
        new(SystemCallNumber.Getsockopt, "level is SOL_SOCKET, optname is SO_PEERCRED", ArgumentCondition.IsOneOf(1, 1), ArgumentCondition.IsOneOf(2, 17)),
        SystemCallNumber.PidfdOpen,
    ];

    // The protocol's "user address" is the guest-physical address plus this number. It names memory; it is no address of this process. No
    // guest-physical address reaches so high.
    private const ulong UserAddressBase = 1UL << 56;

    // The least time for the agreement with a back-end, also with one that connected at the last moment.
    private static readonly TimeSpan s_leastTime = TimeSpan.FromMilliseconds(100);

    // The device status (VIRTIO 1.2 §2.1): ACKNOWLEDGE and DRIVER with FEATURES_OK, and with DRIVER_OK.
    private const byte FeaturesOk = 8;
    private const byte NegotiatedStatus = 1 | 2 | FeaturesOk;
    private const byte ReadyStatus = NegotiatedStatus | 4;
    private const byte DeviceNeedsReset = 64;

    private static readonly BoundedLog s_log = new("Vmm.Vhost.User");

    private readonly VhostUserFrontendOptions _options;
    private readonly PeerDescriptors _received = new();     // of all connections: a back-end that comes back again and again leaves no more behind
    private readonly PeerConnector _connector = null!;
    private readonly EventLoop _monitor = null!;      // takes the owner's lock
    private readonly EventLoop _requests = null!;     // never takes it
    private readonly EventFd _cancelled = null!;
    private readonly CancellationToken _cancellationToken;
    private readonly CancellationTokenRegistration _cancellation;   // signals _cancelled
    private readonly Ring[] _rings;
    private FrontendPeer? _peer;              // null while the back-end is away
    private ulong? _accepted;
    private GuestMemory? _memory;             // the last that was set; after a reset its owner may dispose of it
    private bool _hasMemory;                  // whether it was set since the last reset
    private byte? _status;
    private string? _lost;
    private bool _hasFailed;                  // a call-back has thrown, so that the loss is for good
    private bool _disposed;

    private VhostUserFrontend(VhostUserFrontendOptions options, CancellationToken cancellation)
    {
        _options = options;
        Name = $"{options.Device}: {options.Endpoint}";
        _rings = new Ring[options.RingCount];
        for (int i = 0; i < _rings.Length; i++)
            _rings[i] = new Ring();
        try
        {
            _monitor = new EventLoop($"vhost-user {options.Device}");
            _requests = new EventLoop($"requests {options.Device}");
            _news = new EventFd();
            _retry = new TimerFd();
            _cancelled = new EventFd();
            _cancellationToken = cancellation;
            _cancellation = cancellation.UnsafeRegister(fd => ((EventFd)fd!).Signal(), _cancelled);
            // A thread that runs a vCPU may close what a back-end has sent, and may not be allowed to start another thread.
            PeerDescriptors.Prepare();
            _connector = new PeerConnector(options.Endpoint, Name, options.Connect, _received);
            _peer = Agree(cancellation);
        }
        catch (Exception e)
        {
            Free();
            if (e is VhostException && cancellation.IsCancellationRequested)
                throw new OperationCanceledException(e.Message, e, cancellation);
            if (e is ErrnoException)
                throw new VhostException($"{Name}: {e.Message}", e);
            throw;
        }
        Adopt(_peer);
    }

    /// <inheritdoc/>
    public string Name { get; }

    /// <summary>The receiver of its events; null for none. If the device has ended before this is set, the receiver is told of that end at once. An
    /// exception of the receiver's ends the device; but to map or unmap shared memory is only refused.</summary>
    public IVhostUserFrontendEvents? Events
    {
        get;
        set
        {
            field = value;
            if (value is not null)
                SignalNews();
        }
    }

    /// <inheritdoc/>
    public ulong Features { get; private set; }

    /// <inheritdoc/>
    public int RingCount => _rings.Length;

    /// <summary>How many rings (not pairs) the back-end has at most; null if it cannot say.</summary>
    public int? MaxRingCount { get; private set; }

    /// <summary>The sizes in bytes of the device's shared-memory regions (VIRTIO 1.2 §2.10) by their ids, 0 where there is none; empty where
    /// the protocol feature <see cref="VhostUserProtocolFeatures.Shmem"/> was not agreed on.</summary>
    public IReadOnlyList<ulong> SharedMemorySizes { get; private set; } = [];

    /// <summary>The protocol features that were agreed on.</summary>
    public VhostUserProtocolFeatures ProtocolFeatures => Session.ProtocolFeatures;

    /// <summary>The connection, for what this class has no member for; while the back-end is away the last one, which says so.</summary>
    public VhostUserSession Session { get; private set; } = null!;

    /// <summary>Whether the back-end is connected.</summary>
    public bool IsConnected => Volatile.Read(ref _peer) is not null;

    // Nobody is left to be told of anything, nor to connect for.
    private bool IsCancelled => _cancellationToken.IsCancellationRequested;

    private bool CanReconnect => !_hasFailed && _options.Reconnect && _connector.CanReconnect;

    /// <summary>Connects to a back-end, or waits until it connects, and agrees with it on all that comes before a driver.</summary>
    /// <param name="options">What is wanted.</param>
    /// <param name="cancellation">Ends the wait for a connection and for the back-end's answers, and every later wait for the back-end: for a process
    /// that is about to end.</param>
    /// <exception cref="VhostException">There is none in time, or it is not one for this device. The message begins with the device.</exception>
    /// <exception cref="OperationCanceledException">It was not ready before <paramref name="cancellation"/>.</exception>
    public static VhostUserFrontend Open(VhostUserFrontendOptions options, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(options);
        var frontend = new VhostUserFrontend(options, cancellation);
        try
        {
            frontend.Watch();
        }
        catch (Exception e)
        {
            frontend.Dispose();
            if (e is ErrnoException)   // there is no thread to be had
                throw new VhostException($"{frontend.Name}: {e.Message}", e);
            throw;
        }
        return frontend;
    }

    /// <inheritdoc/>
    public void SetFeatures(ulong features)
    {
        lock (_options.Sync)
        {
            CheckUsable();
            VirtioFeatures.CheckAccepted(features, Features, Name);
            // A new driver: the requests that the last one had in flight are not this one's.
            ForgetInflight();
            _accepted = features;
            Do(peer => ApplyFeatures(peer, features), _options.StartTimeout);
        }
    }

    /// <inheritdoc/>
    public void SetMemory(GuestMemory memory)
    {
        ArgumentNullException.ThrowIfNull(memory);
        lock (_options.Sync)
        {
            CheckUsable();
            if (MayWrite(memory))
                throw new VhostException($"{Name}: a back-end that did not finish its requests may still write to this memory: share other memory");
            if (_memory != memory)
                ForgetWriters();
            _memory = memory;
            _hasMemory = true;
            Do(peer => ApplyMemory(peer, memory), _options.StartTimeout);
        }
    }

    /// <summary>Tells the back-end the virtio status, if that was agreed on. An owner that never does leaves it to <see cref="Start"/> to
    /// say that the driver is ready.</summary>
    public void SetStatus(byte status)
    {
        lock (_options.Sync)
        {
            CheckUsable();
            _status = status;
            if ((ProtocolFeatures & VhostUserProtocolFeatures.Status) != 0)
                Do(peer => peer.Session.SetStatus(status), _options.ReplyTimeout);
        }
    }

    /// <summary>Resets the device by RESET_DEVICE or its status, if one of them was agreed on. Rings that run are stopped before.
    /// The connection stays: some back-ends end with it. A device that was lost (<see cref="IVhostUserFrontendEvents.Lost"/>) is usable
    /// again where reconnecting is allowed: <see cref="Features"/>, <see cref="MaxRingCount"/> and the configuration are then those of the
    /// back-end that is connected by now, or of the next one.</summary>
    /// <exception cref="VhostException">The back-end refused, or the device is lost for good.</exception>
    public void Reset()
    {
        lock (_options.Sync)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            var deadline = new Deadline(_options.StopTimeout);
            StopRings(_rings, deadline);
            for (int i = 0; i < _rings.Length; i++)
                _rings[i] = new Ring();
            ForgetInflight();
            _accepted = null;
            _hasMemory = false;
            _status = null;
            if (_lost is not null && CanReconnect)
            {
                Revive();
                return;
            }
            CheckUsable();
            if ((ProtocolFeatures & VhostUserProtocolFeatures.ResetDevice) != 0)
                Do(peer => peer.Session.ResetDevice(), deadline.Left, Parting.NotStopped);
            else if ((ProtocolFeatures & VhostUserProtocolFeatures.Status) != 0)
                Do(peer => peer.Session.SetStatus(0), deadline.Left, Parting.NotStopped);
            else
                Do(UndoWrites, deadline.Left, Parting.NotStopped);
            ForgetWrites();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_options.Sync)
        {
            if (_disposed)
                return;
            StopAll();
            _disposed = true;
            // The thread that connects again must not wait for a back-end that nobody wants any more.
            _connecting?.Abort($"{Name}: the device is gone");
            Free();
        }
    }

    // Under the lock, or before anybody knows of this. The threads end by themselves: one of them may wait for the lock.
    private void Free()
    {
        _monitor?.Stop();
        _requests?.Stop();
        if (_peer is not null)
            _monitor!.Remove(_peer.Session.Socket);
        _peer?.Dispose();
        _peer = null;
        DropCandidate();
        ForgetWriters();
        _inflightFile?.Dispose();
        _inflightFile = null;
        _connector?.Dispose();
        _retry?.Dispose();
        _cancellation.Dispose();
        // A connection that is being negotiated may still look at it, and it is closed when nobody does any more.
        if (_connecting is null)
            _cancelled?.Dispose();
        lock (_newsLock)
            _news?.Dispose();
    }

    // The first connection, until all is agreed on that comes before a driver.
    private FrontendPeer Agree(CancellationToken cancellation)
    {
        TimeSpan timeout = _options.ConnectTimeout;
        long start = Stopwatch.GetTimestamp();
        VhostUserSession session = NewSession(_connector.Connect(timeout, _options.PeerEnded, cancellation));
        TimeSpan left = timeout - Stopwatch.GetElapsedTime(start);
        if (left < s_leastTime)
            left = s_leastTime;
        using CancellationTokenSource limit = timeout == Timeout.InfiniteTimeSpan ? new() : new(left);
        // The limit ends it, and says what the matter may be: a single answer may take all of that time.
        if (timeout != Timeout.InfiniteTimeSpan)
            session.Deadline = new Deadline(left + s_leastTime);
        using CancellationTokenRegistration ended = limit.Token.UnsafeRegister(_ => session.Abort(
            $"{Name}: the back-end did not agree within {timeout.TotalSeconds:0.###} s: it does not answer, or is it another program?"), null);
        try
        {
            return FrontendPeer.Negotiate(session, _options, this, _requests, ChannelFailed);
        }
        catch (VhostException) when (cancellation.IsCancellationRequested)
        {
            throw new OperationCanceledException(cancellation);
        }
        catch (VhostUserException e) when (limit.IsCancellationRequested)
        {
            throw new VhostException(session.LostReason ?? e.Message, e);
        }
        finally
        {
            session.Deadline = null;
        }
    }

    private VhostUserSession NewSession(UnixSocket socket) =>
        new(new VhostUserConnection(socket, Name) { Cancelled = _cancelled, Received = _received }, _options.ReplyTimeout);

    private void CheckUsable()
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (_lost is not null)
            throw new VhostException(_lost);
    }

    // Does something with the back-end, within a budget of time, if it is there. One that is lost on the way will be told when it is back,
    // unless it will not be.
    private void Do(Action<FrontendPeer> action, TimeSpan budget, Parting ours = Parting.Ours)
    {
        if (_peer is not { } peer)
            return;
        peer.Session.Deadline = new Deadline(budget);
        try
        {
            action(peer);
        }
        catch (VhostUserException e) when (e.IsConnectionLost)
        {
            Leave(e.Message, peer.Session.IsClosedByPeer ? Parting.Theirs : ours);
            if (_lost is not null)
                throw;
        }
        finally
        {
            peer.Session.Deadline = null;
        }
    }

    private void ApplyFeatures(FrontendPeer peer, ulong features)
    {
        if ((features & ~peer.OfferedFeatures) != 0)
            throw new VhostException($"{Name}: does not have the features 0x{features & ~peer.OfferedFeatures:x} any more");
        peer.Session.SetFeatures(features);
        peer.IsPrepared = false;
        if (_status is not null || !HasStatus(peer))
            return;
        // The device, too, may refuse (VIRTIO 1.2 §3.1.1, steps 5 and 6).
        peer.Session.SetStatus(NegotiatedStatus);
        if ((peer.Session.GetStatus() & FeaturesOk) == 0)
            throw new VhostException($"{Name}: the back-end refuses the features 0x{features:x} (its status has no FEATURES_OK)");
    }

    // The owner tells the back-end what its type of device needs, between the features and the first ring.
    private void Prepare(FrontendPeer peer, bool isAgain)
    {
        if (peer.IsPrepared)
            return;
        peer.IsPrepared = true;
        Events?.Starting(peer.Session, isAgain);
    }

    // The owner sees this back-end from now on.
    private void Adopt(FrontendPeer peer)
    {
        Session = peer.Session;
        MaxRingCount = peer.MaxRingCount;
        SharedMemorySizes = peer.SharedMemorySizes ?? [];
        Features = peer.OfferedFeatures & ~VirtioFeatures.Hidden;
        // How far a driver's packed ring was worked is nowhere but in the back-end: after its end nobody knows where to go on.
        if (CanReconnect)
            Features &= ~VirtioFeatures.RingPacked;
        TakeConfig(peer);
    }

    private static bool HasStatus(FrontendPeer peer) => (peer.Session.ProtocolFeatures & VhostUserProtocolFeatures.Status) != 0;

    private static void ApplyMemory(FrontendPeer peer, GuestMemory memory)
    {
        var regions = new MemoryRegionPayload[memory.Regions.Length];
        var files = new FileDescriptor[regions.Length];
        for (int i = 0; i < regions.Length; i++)
        {
            GuestRegion region = memory.Regions[i];
            regions[i] = new MemoryRegionPayload(region.Start.Value, region.Size, UserAddress(region.Start), region.FileOffset);
            files[i] = memory.File;
        }
        peer.Session.ShareMemory(regions, files);
    }

    private static ulong UserAddress(GuestAddress address) => address.Value + UserAddressBase;
}
