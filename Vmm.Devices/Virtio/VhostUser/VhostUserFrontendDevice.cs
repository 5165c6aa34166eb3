using Vmm.Devices.Spawning;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Frontend;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Devices.Virtio.VhostUser;

/// <summary>A device whose rings another process works. Its connection outlives drivers and resets of the guest.</summary>
internal abstract class VhostUserFrontendDevice : VhostDevice, IVhostUserFrontendEvents
{
    /// <summary>Where nothing is known that suits a device better.</summary>
    protected const int DefaultQueueSize = 256;

    private static readonly BoundedLog s_log = new("Vmm.Devices.VhostUser");

    private readonly VhostUserPeer _peer;
    private readonly BackendDaemon? _daemon;
    private VhostUserFrontend? _frontend;
    private int _configSize;
    private bool _needsReset;      // a driver has left something in the back-end, or the back-end is lost

    /// <summary>Nothing is connected before <see cref="Connect"/>.</summary>
    protected VhostUserFrontendDevice(string name, VhostUserPeer peer, EventLoop events)
        : base(name, events)
    {
        _peer = peer;
        if (peer.Program is { } program)
            _daemon = new BackendDaemon(name, program, events, peer.Spawner);
    }

    /// <inheritdoc/>
    public override ulong Features => Frontend.Features;

    /// <inheritdoc/>
    public override int ConfigSize => _configSize;

    /// <inheritdoc/>
    public override int QueueCount => Frontend.RingCount;

    /// <inheritdoc/>
    public override IReadOnlyList<SystemCallRule> DriverCalls => VhostUserFrontend.OwnersCalls;

    /// <inheritdoc/>
    public override IReadOnlyList<SystemCallRule> EventCalls => VhostUserFrontend.ConnectingCalls;

    /// <inheritdoc/>
    protected sealed override IVhostBackend? DataPlane => _frontend;

    /// <summary>The other process; there once it is connected.</summary>
    protected VhostUserFrontend Frontend => _frontend!;

    /// <summary>The size of each queue.</summary>
    protected int QueueSize { get; private set; }

    /// <summary>Connects to the back-end, and checks that it is one for this device.</summary>
    /// <param name="shape">What has to be known of the device.</param>
    /// <param name="cancellation">Ends the wait for it.</param>
    /// <exception cref="VhostException">There is none, or it is not.</exception>
    /// <exception cref="OperationCanceledException">It was not waited for any longer.</exception>
    protected void Connect(VhostUserShape shape, CancellationToken cancellation)
    {
        QueueSize = _peer.QueueSize ?? shape.QueueSize;
        _configSize = _peer.Config?.Length ?? shape.ConfigSize;
        if (_daemon is not null)
        {
            _daemon.Start();
            shape = shape with { Endpoint = VhostUserEndpoint.ConnectTo(_daemon.SocketPath), Respawn = _daemon.Respawn };
        }
        else if (_peer.Endpoint is { Role: VhostUserSocketRole.Client, Path: { } path })
        {
            Register(spawner => spawner.AllowConnection(path));
        }
        try
        {
            Open(shape, cancellation);
        }
        catch (VhostException e) when (_daemon?.Failure is { } failure)
        {
            throw new VhostException($"{Name}: {failure}", e);
        }
        _daemon?.WarnOfEnd();
        if (_peer.Endpoint is { Role: VhostUserSocketRole.Server, Path: { } ours })
            Register(spawner => spawner.RemoveAtEnd(ours));
        if ((Frontend.Features & VirtioFeatures.Version1) == 0)
            throw new VhostException($"{Frontend.Name}: the back-end is one for legacy drivers (no VIRTIO_F_VERSION_1), which are not supported");
    }

    /// <inheritdoc/>
    public override void Listen()
    {
        base.Listen();
        Frontend.Events = this;
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        _daemon?.ExpectEnd();
        base.Dispose();
        _daemon?.Dispose();     // in this order: it ends when its connection is closed
    }

    // What this process cannot do by itself once it is confined.
    private void Register(Action<ISpawner> say)
    {
        try
        {
            if (_peer.Spawner is { } spawner)
                say(spawner);
        }
        catch (ErrnoException e)
        {
            throw new VhostException($"{Name}: {e.Message}", e);
        }
    }

    private void Open(VhostUserShape shape, CancellationToken cancellation) => _frontend = VhostUserFrontend.Open(new VhostUserFrontendOptions
    {
        Endpoint = shape.Endpoint ?? _peer.Endpoint!,
        Device = shape.Option,
        RingCount = shape.RingCount,
        RingsPerQueue = shape.RingsPerQueue,
        QueueSize = QueueSize,
        ConfigSize = _peer.Config is null ? Math.Min(shape.ConfigSize, ConfigHeader.MaxConfigSize) : 0,
        ConfigRequired = shape.NeedsConfig && _peer.Config is null,
        Reconnect = _peer.Reconnect,
        ConnectTimeout = _peer.Timeout,
        StartTimeout = _peer.Timeout > VhostUserSession.MemoryTimeout ? _peer.Timeout : VhostUserSession.MemoryTimeout,
        CompletesRequests = shape.CompletesRequests,
        PeerProcessId = _daemon is { } daemon ? () => daemon.ProcessId : null,
        PeerEnded = _daemon?.Ended,
        RequiredFeatures = VirtioFeatures.Version1 | shape.RequiredFeatures,
        ChangeableConfig = shape.ChangeableConfig,
        Wanted = VhostUserFrontendOptions.DefaultFeatures | (shape.UsesSharedMemory ? VhostUserProtocolFeatures.Shmem : 0),
        Sync = Sync,
        Respawn = shape.Respawn,
        Connect = _daemon is not null ? _daemon.TryConnect : _peer.Spawner is { } spawner ? spawner.TryConnect : UnixSocket.TryConnect,
    }, cancellation);

    /// <inheritdoc/>
    public override int MaxQueueSize(int queue) => QueueSize;

    /// <inheritdoc/>
    public override void ReadConfig(Span<byte> config)
    {
        if (_peer.Config is { } given)
            given.Span[..Math.Min(given.Length, config.Length)].CopyTo(config);
        else
            Frontend.ReadConfig(config);
    }

    /// <inheritdoc/>
    public override bool AcceptFeatures(ulong features, GuestMemory memory)
    {
        _needsReset = true;
        return base.AcceptFeatures(features & Frontend.Features, memory);
    }

    /// <inheritdoc/>
    public override void Stop()
    {
        // It stops all rings, too, within the same time.
        if (_needsReset)
            TryDo(Frontend.Reset);
        _needsReset = false;
        base.Stop();
    }

    /// <summary>What a driver writes to the configuration space goes to the back-end, until the next reset.</summary>
    protected void WriteToBackend(int offset, ReadOnlySpan<byte> data)
    {
        _needsReset = true;    // the driver may write before it starts the device, and reset the device without starting it
        Frontend.WriteConfig(offset, data);
    }

    /// <inheritdoc/>
    public virtual void ConfigChanged() => Host.ConfigChanged();

    /// <inheritdoc/>
    public virtual void NeedsReset() => Host.NeedsReset("its back-end has set DEVICE_NEEDS_RESET in its status");

    /// <inheritdoc/>
    public virtual void Lost(string reason)
    {
        _needsReset = true;
        Host.NeedsReset("it has lost its back-end");
    }

    /// <inheritdoc/>
    public virtual void Disconnected(string reason)
    {
    }

    /// <inheritdoc/>
    public virtual void Restored()
    {
    }

    /// <inheritdoc/>
    public virtual void Starting(VhostUserSession session, bool isAgain)
    {
    }

    /// <inheritdoc/>
    public virtual void SharedMemoryIsNew()
    {
    }

    /// <inheritdoc/>
    public virtual bool MapShared(in ShmemMapPayload mapping, FileDescriptor file) => false;

    /// <inheritdoc/>
    public virtual bool UnmapShared(in ShmemMapPayload mapping) => false;

    /// <summary>Asks something of the back-end without which the device works, too.</summary>
    protected static void TryDo(Action action)
    {
        try
        {
            action();
        }
        catch (VhostException e)
        {
            s_log.Debug("{Error}", e.Message);   // it is gone, of which others tell
        }
    }
}

/// <summary>What has to be known of a device to connect to its back-end.</summary>
/// <param name="Option">The device as messages begin with it, before its socket.</param>
/// <param name="RingCount">How many rings the back-end works.</param>
/// <param name="QueueSize">Descriptors in a queue, where the user does not say.</param>
internal sealed record VhostUserShape(string Option, int RingCount, int QueueSize)
{
    /// <summary>How many rings the back-end counts as one.</summary>
    public int RingsPerQueue { get; init; } = 1;

    /// <summary>Bytes of configuration space.</summary>
    public int ConfigSize { get; init; }

    /// <summary>Whether there is no device unless the back-end has the configuration.</summary>
    public bool NeedsConfig { get; init; }

    /// <summary>Whether every request is completed by itself.</summary>
    public bool CompletesRequests { get; init; }

    /// <summary>Features without which a back-end that comes back is none for this device, beside VIRTIO_F_VERSION_1.</summary>
    public ulong RequiredFeatures { get; init; }

    /// <summary>The parts of the configuration space that may differ in a back-end that comes back: the driver reads them again when they
    /// change, or never sees the back-end's.</summary>
    public IReadOnlyList<Range> ChangeableConfig { get; init; } = [];

    /// <summary>Whether the back-end may map files into the guest.</summary>
    public bool UsesSharedMemory { get; init; }

    /// <summary>The socket, where it is the device's own.</summary>
    public VhostUserEndpoint? Endpoint { get; init; }

    /// <summary>Starts the back-end again.</summary>
    public Action? Respawn { get; init; }
}
