using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Frontend;

public sealed partial class VhostUserFrontend
{
    private const ulong RingIndexOffset = 2;   // of an available or used ring (VIRTIO 1.2 §2.7.6, §2.7.8)

    private InflightPayload _inflight;
    private FileDescriptor? _inflightFile;
    private bool _warnedOfOrder;

    /// <inheritdoc/>
    public void Start(ReadOnlySpan<VringConfig> rings)
    {
        lock (_options.Sync)
        {
            CheckUsable();
            if (_accepted is null || !_hasMemory)
                throw new VhostException($"{Name}: has no {(_accepted is null ? "features" : "memory")} yet");
            foreach (ref readonly VringConfig config in rings)
            {
                ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)config.Index, (uint)_rings.Length, nameof(rings));
                ArgumentOutOfRangeException.ThrowIfGreaterThan(config.Size, _options.QueueSize, nameof(rings));
            }
            var starting = new List<Ring>();
            foreach (ref readonly VringConfig config in rings)
            {
                Ring ring = _rings[config.Index];
                if (ring.Runs)
                    continue;
                ring.Config = config;
                ring.Runs = true;
                ring.Base = config.Base;
                starting.Add(ring);
            }
            if (starting.Count == 0)
                return;
            try
            {
                Do(peer => StartOn(peer, starting), _options.StartTimeout);
            }
            catch
            {
                StopRings(starting, new Deadline(_options.StopTimeout));
                throw;
            }
        }
    }

    /// <inheritdoc/>
    public uint Stop(int index)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)index, (uint)_rings.Length, nameof(index));
        lock (_options.Sync)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            StopRings([_rings[index]], new Deadline(_options.StopTimeout));
            return _rings[index].Base;
        }
    }

    /// <inheritdoc/>
    public void StopAll()
    {
        lock (_options.Sync)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            StopRings(_rings, new Deadline(_options.StopTimeout));
        }
    }

    /// <summary>Has the back-end work a ring or leave it alone: for devices with rings that are not always in use, such as a network
    /// device's further pairs. A ring begins enabled. Where there are no protocol features, nothing is done.</summary>
    /// <param name="ring">The ring's number, 0 to <see cref="RingCount"/> - 1.</param>
    /// <param name="enabled">Whether the back-end works it.</param>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="ring"/> is none of a ring.</exception>
    /// <exception cref="VhostException">The back-end refused.</exception>
    public void SetRingEnabled(int ring, bool enabled)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)ring, (uint)_rings.Length, nameof(ring));
        lock (_options.Sync)
        {
            CheckUsable();
            if (_rings[ring].IsEnabled == enabled)
                return;
            if (_rings[ring].Runs)
                Do(peer => Enable(peer, ring, enabled), _options.ReplyTimeout);
            _rings[ring].IsEnabled = enabled;
        }
    }

    private void Enable(FrontendPeer peer, int ring, bool enabled)
    {
        if (!peer.Session.HasProtocolFeatures)
            return;
        peer.Session.SetRingEnabled(ring, enabled);
        if (!enabled)
            return;
        peer.MayRun = true;
        peer.Session.Barrier();
        _rings[ring].Config.Kick.SignalPeer();   // what was kicked while the ring was disabled may have gone unseen
    }

    // Every ring's size comes first, for SPDK; all are configured before one is enabled, for DPDK, whose rings make pairs.
    private void StartOn(FrontendPeer peer, List<Ring> starting)
    {
        VhostUserSession session = peer.Session;
        Prepare(peer, isAgain: false);
        foreach (Ring ring in starting)
            session.SetRingSize(ring.Config.Index, ring.Config.Size);
        GiveInflight(peer);
        foreach (Ring ring in starting)
        {
            VringConfig config = ring.Config;
            ring.WasTold = true;
            session.SetRingAddress(new VringAddress(
                (uint)config.Index,
                0,
                UserAddress(config.DescriptorArea),
                UserAddress(config.DeviceArea),
                UserAddress(config.DriverArea),
                config.DeviceArea.Value));
            session.SetRingBase(config.Index, ring.Base);
            session.SetRingCall(config.Index, config.Call);
            if (config.Error is not null)
                session.SetRingError(config.Index, config.Error);
            peer.MayRun |= !session.HasProtocolFeatures;    // its rings run without being enabled
            session.SetRingKick(config.Index, config.Kick);
        }
        if (session.HasProtocolFeatures)
        {
            foreach (Ring ring in starting)
            {
                if (!ring.IsEnabled)
                    continue;
                session.SetRingEnabled(ring.Config.Index, true);
                peer.MayRun = true;
            }
        }
        if ((session.ProtocolFeatures & VhostUserProtocolFeatures.Status) != 0)
            session.SetStatus(_status ?? ReadyStatus);
        // A driver must not kick what the back-end still takes for disabled.
        session.Barrier();
        foreach (Ring ring in starting)
            ring.Config.Kick.SignalPeer();   // what was kicked before the ring ran may have gone unseen
    }

    private void GiveInflight(FrontendPeer peer)
    {
        if ((peer.Session.ProtocolFeatures & VhostUserProtocolFeatures.InflightShmFd) == 0 || peer.HasInflight)
            return;
        if (_inflightFile is null)
            (_inflight, _inflightFile) = TakeInflight(peer);
        if (_inflightFile is not null)
            peer.Session.SetInflight(in _inflight, _inflightFile);
        peer.HasInflight = true;
    }

    // It is read while the device is stopped, under the lock: reading a file of another kind may take as long as it pleases whoever serves it.
    private (InflightPayload Description, FileDescriptor? File) TakeInflight(FrontendPeer peer)
    {
        (InflightPayload description, FileDescriptor? file) = peer.Session.GetInflight(_rings.Length, _options.QueueSize);
        if (file is null || FileKind.IsSharedMemory(file))
            return (description, file);
        file.Dispose();
        throw new VhostException(
            $"{Name}: the back-end keeps its in-flight log in a file that is no shared memory: have it use a memfd, or a file of tmpfs (/dev/shm) or of hugetlbfs");
    }

    private void ForgetInflight()
    {
        _inflightFile?.Dispose();
        _inflightFile = null;
        if (_peer is not null)
            _peer.HasInflight = false;
    }

    private bool IsPacked => ((_accepted ?? 0) & VirtioFeatures.RingPacked) != 0;

    private sealed class Ring
    {
        public VringConfig Config { get; set; }

        /// <summary>Whether the owner wants it to run.</summary>
        public bool Runs { get; set; }

        /// <summary>Whether a back-end has been told of it since it was started, and may have worked it.</summary>
        public bool WasTold { get; set; }

        public bool IsEnabled { get; set; } = true;

        public uint Base { get; set; }
    }
}
