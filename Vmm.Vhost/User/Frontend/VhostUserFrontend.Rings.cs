using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Frontend;

public sealed partial class VhostUserFrontend
{
    private const byte ReadyStatus = 1 | 2 | 4 | 8;   // ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK (VIRTIO 1.2 §2.1)
    private const ulong UsedIndexOffset = 2;          // of a used ring (VIRTIO 1.2 §2.7.8)

    private InflightPayload _inflight;
    private FileDescriptor? _inflightFile;
    private bool _warnedOfOrder;

    /// <inheritdoc/>
    public void Start(ReadOnlySpan<VringConfig> rings)
    {
        lock (_options.Sync)
        {
            CheckUsable();
            if (_accepted is null || _memory is null)
                throw new VhostException($"{Name}: has no {(_accepted is null ? "features" : "memory")} yet");
            var starting = new List<Ring>();
            foreach (ref readonly VringConfig config in rings)
            {
                ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)config.Index, (uint)_rings.Length, nameof(rings));
                ArgumentOutOfRangeException.ThrowIfGreaterThan(config.Size, _options.QueueSize, nameof(rings));
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
                Do(peer => StartOn(peer, starting));
            }
            catch
            {
                foreach (Ring ring in starting)
                    Stop(ring.Config.Index);
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
            Ring ring = _rings[index];
            if (!ring.Runs)
                return ring.Base;
            ring.Runs = false;
            if (ring.WasTold)
                ring.Base = (_peer is { } peer ? Halt(peer, ring) : null) ?? UsedIndex(ring);
            ring.WasTold = false;
            return ring.Base;
        }
    }

    /// <summary>Has the back-end work a ring or leave it alone: for devices with rings that are not always in use, such as a network
    /// device's further pairs. A ring begins enabled. Where there are no protocol features, nothing is done.</summary>
    /// <exception cref="VhostException">The back-end refused.</exception>
    public void SetRingEnabled(int ring, bool enabled)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)ring, (uint)_rings.Length, nameof(ring));
        lock (_options.Sync)
        {
            CheckUsable();
            if (_rings[ring].IsEnabled == enabled)
                return;
            _rings[ring].IsEnabled = enabled;
            if (_rings[ring].Runs)
            {
                Do(peer =>
                {
                    if (peer.Session.HasProtocolFeatures)
                        peer.Session.SetRingEnabled(ring, enabled);
                });
            }
        }
    }

    // Every ring's size comes first, for SPDK; all are configured before one is enabled, for DPDK, whose rings make pairs.
    private void StartOn(FrontendPeer peer, List<Ring> starting)
    {
        VhostUserSession session = peer.Session;
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
            session.SetRingKick(config.Index, config.Kick);
        }
        if (session.HasProtocolFeatures)
        {
            foreach (Ring ring in starting)
            {
                if (ring.IsEnabled)
                    session.SetRingEnabled(ring.Config.Index, true);
            }
        }
        if ((session.ProtocolFeatures & VhostUserProtocolFeatures.Status) != 0)
            session.SetStatus(_status ?? ReadyStatus);
        // A driver must not kick what the back-end still takes for disabled.
        session.Barrier();
        foreach (Ring ring in starting)
            ring.Config.Kick.Signal();   // what was kicked before the ring ran may have gone unseen
    }

    private void GiveInflight(FrontendPeer peer)
    {
        if ((peer.Session.ProtocolFeatures & VhostUserProtocolFeatures.InflightShmFd) == 0 || peer.HasInflight)
            return;
        if (_inflightFile is null)
            (_inflight, _inflightFile) = peer.Session.GetInflight(_rings.Length, _options.QueueSize);
        if (_inflightFile is not null)
            peer.Session.SetInflight(in _inflight, _inflightFile);
        peer.HasInflight = true;
    }

    private void ForgetInflight()
    {
        _inflightFile?.Dispose();
        _inflightFile = null;
        if (_peer is not null)
            _peer.HasInflight = false;
    }

    // Where to begin again; null if the back-end does not say.
    private uint? Halt(FrontendPeer peer, Ring ring)
    {
        int index = ring.Config.Index;
        try
        {
            if (peer.Session.HasProtocolFeatures)
                peer.Session.SetRingEnabled(index, false);
        }
        catch (VhostUserException e) when (!e.IsConnectionLost)
        {
            s_log.Warn("{Error}", e.Message);
        }
        catch (VhostUserException e)
        {
            Leave(e.Message);
            return null;
        }
        try
        {
            uint next = peer.Session.GetRingBase(index);
            if (next <= ushort.MaxValue || IsPacked)
                return next;
            s_log.Warn("{Peer}: says that ring {Ring} goes on at 0x{Base:x}, which is no index", Name, index, next);
        }
        catch (VhostUserException e)
        {
            if (e.IsConnectionLost)
                Leave(e.Message);
            else
                s_log.Warn("{Error}", e.Message);
        }
        return null;
    }

    // What a back-end has given back is done; what it has taken and not given back is taken again by the next.
    private uint UsedIndex(Ring ring)
    {
        if (IsPacked || _memory is null
            || !_memory.TrySlice(ring.Config.DeviceArea, UsedIndexOffset + sizeof(ushort), out Span<byte> used))
        {
            return ring.Base;
        }
        return BitConverter.ToUInt16(used[(int)UsedIndexOffset..]);
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
