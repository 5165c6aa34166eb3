using System.Runtime.InteropServices;
using Vmm.Devices.Net;
using Vmm.Vhost;
using Vmm.Vhost.Kernel;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;

namespace Vmm.Devices.Virtio.Net;

/// <summary>A network device (VIRTIO 1.2 §5.1) on a tap. Packets are the kernel's business, a vhost-net for each pair of queues;
/// the control queue is worked here, on the thread of the vCPU that kicks it.</summary>
internal sealed class NetDevice : VirtioDevice, INetControl
{
    /// <summary>The system calls that it makes on vCPU threads, besides those of vhost-net.</summary>
    public static readonly IReadOnlyList<SystemCallRule> TapCalls =
        [SystemCallRule.Requests(TunAbi.TunSetOffload, TunAbi.TunSetQueue, TunAbi.TunSetTxFilter)];

    /// <summary>Those that it makes elsewhere besides.</summary>
    public static readonly IReadOnlyList<SystemCallRule> LinkCalls = [SystemCallRule.Requests(TunAbi.SiocGIfFlags)];

    private const ulong Transport =
        VirtioFeatures.Version1 | VirtioFeatures.IndirectDescriptors | VirtioFeatures.EventIndex | NetFeatures.MrgRxbuf;

    private const ulong Offloads = NetFeatures.Csum | NetFeatures.HostTso4 | NetFeatures.HostTso6 | NetFeatures.HostEcn
        | NetFeatures.GuestCsum | NetFeatures.GuestTso4 | NetFeatures.GuestTso6 | NetFeatures.GuestEcn;

    private const ulong Control = NetFeatures.CtrlVq | NetFeatures.CtrlRx | NetFeatures.CtrlVlan | NetFeatures.CtrlMacAddr
        | NetFeatures.CtrlGuestOffloads | NetFeatures.GuestAnnounce;

    private readonly NetDeviceOptions _options;
    private readonly EventLoop _events;
    private readonly Tap _tap = null!;
    private readonly VhostNet[] _pairs;
    private readonly NetworkSocket _linkChanges = null!;
    private readonly EventFd _ringError = new();
    private readonly NetControlPort _control;
    private readonly MacAddress _ownMac;
    private MacAddress _mac;
    private ReceiveFilter _filter = new();
    private ulong _features;
    private bool _linkIsUp;
    private bool _announce;
    private int _pairsInUse;
    private VringConfig?[] _rings = [];

    /// <summary>Opens the interface and vhost-net.</summary>
    /// <exception cref="VhostException">One of them cannot be had.</exception>
    public NetDevice(NetDeviceOptions options, EventLoop events)
    {
        _options = options;
        _events = events;
        _control = new NetControlPort(this, this, events);
        _mac = _ownMac = options.Mac ?? MacAddress.Random();
        _pairs = new VhostNet[options.QueuePairs];
        try
        {
            _tap = options.Fds.Count > 0 ? Tap.Adopt(options.Fds) : Tap.Open(options.Tap, options.QueuePairs);
            for (int i = 0; i < _pairs.Length; i++)
                _pairs[i] = OpenPair(_tap.Queues[i]);
            if (options.Mtu is int mtu)
                _tap.SetMtu(mtu);
            HasUfo = _tap.TrySetOffloads(NetFeatures.GuestOffloads);
            _linkChanges = NetworkSocket.ForLinkChanges();
            _linkIsUp = _tap.IsUp;
            Stop();
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public override void Listen()
    {
        _events.Add(_linkChanges, LinkMayHaveChanged, failed: Fail);
        _events.Add(_ringError, RingFailed, failed: Fail);
    }

    /// <inheritdoc/>
    public override string Name => $"--net tap={_tap.Name}";

    /// <inheritdoc/>
    public override VirtioDeviceType Type => VirtioDeviceType.Net;

    /// <inheritdoc/>
    public override IReadOnlyList<SystemCallRule> DriverCalls => [.. VhostKernelBackend.CommonSystemCalls, .. _pairs[0].SystemCalls, .. TapCalls];

    /// <inheritdoc/>
    public override IReadOnlyList<SystemCallRule> EventCalls => LinkCalls;

    /// <inheritdoc/>
    public override ulong Features => (_pairs[0].Features & Transport) | Offloads | Control | NetFeatures.Mac | NetFeatures.Status
        | (HasUfo ? NetFeatures.GuestUfo | NetFeatures.HostUfo : 0)
        | (_pairs.Length > 1 ? NetFeatures.Mq : 0)
        | (_options.Mtu is null ? 0 : NetFeatures.Mtu);

    /// <inheritdoc/>
    public override int QueueCount => 2 * _pairs.Length + 1;

    /// <inheritdoc/>
    public override int ConfigSize => NetConfig.Size;

    private bool HasUfo { get; }

    /// <inheritdoc/>
    public override int MaxQueueSize(int queue) => IsDelegated(queue) ? _options.QueueSize : NetControlPort.QueueSize;

    /// <inheritdoc/>
    public override bool IsDelegated(int queue) => queue < 2 * _pairs.Length;

    /// <inheritdoc/>
    public override void ReadConfig(Span<byte> config) =>
        NetConfig.Write(config, _mac, _linkIsUp, _announce, _pairs.Length, _options.Mtu);

    /// <inheritdoc/>
    public override void Start(ulong features, GuestMemory memory, IReadOnlyList<VringConfig> queues)
    {
        _features = features;
        if (!_tap.TrySetOffloads(features & NetFeatures.GuestOffloads))
            throw new VhostException("the tap refuses the offloads that the driver has accepted");
        _rings = new VringConfig?[2 * _pairs.Length];
        int control = NetControlPort.IndexOf(features, _pairs.Length);
        foreach (VringConfig queue in queues)
        {
            if (queue.Index == control && (features & NetFeatures.CtrlVq) != 0)
                _control.Start(memory, queue, features);
            else if (queue.Index < _rings.Length)
                _rings[queue.Index] = queue with { Index = queue.Index % 2, Error = _ringError };
        }
        foreach (VhostNet pair in _pairs)
        {
            pair.SetFeatures(features & pair.Features);
            pair.SetMemory(memory);
        }
        StartPair(0);
        _pairsInUse = 1;
    }

    /// <inheritdoc/>
    public override void Stop()
    {
        for (int i = 0; i < _pairs.Length; i++)
            StopPair(i);
        _control.Stop();
        _rings = [];
        _ringError.Drain();
        for (int i = 1; i < _pairs.Length; i++)
            _tap.TryUseQueue(i, use: false);
        _tap.TrySetOffloads(0);
        _mac = _ownMac;
        _filter = new ReceiveFilter();
        _tap.SetFilter(_filter, _mac);
        _pairsInUse = 0;
        _announce = false;
        _features = 0;
    }

    /// <inheritdoc/>
    public override void Notify(int queue) => _control.Process();

    /// <inheritdoc/>
    public bool TrySetQueuePairs(int count)
    {
        if (count < 1 || count > _pairs.Length || (count > 1 && (_features & NetFeatures.Mq) == 0))
            return false;
        for (int i = _pairsInUse; i < count; i++)
        {
            if (!_tap.TryUseQueue(i, use: true))
                return false;
            StartPair(i);
            _pairsInUse = i + 1;
        }
        for (; _pairsInUse > count; _pairsInUse--)
        {
            // First the interface spreads packets over fewer queues, then nobody takes them from the rest.
            _tap.TryUseQueue(_pairsInUse - 1, use: false);
            StopPair(_pairsInUse - 1);
        }
        return true;
    }

    /// <inheritdoc/>
    public bool TrySetOffloads(ulong offloads) =>
        (offloads & ~(_features & NetFeatures.GuestOffloads)) == 0 && _tap.TrySetOffloads(offloads);

    /// <inheritdoc/>
    public void SetMac(MacAddress address)
    {
        _mac = address;
        _tap.SetFilter(_filter, _mac);   // a driver that changes its address does not say again what else it wants
        Host.ConfigChanged();
    }

    /// <inheritdoc/>
    public void SetReceiveFilter(ReceiveFilter filter)
    {
        _filter = filter;
        _tap.SetFilter(_filter, _mac);
    }

    /// <inheritdoc/>
    public void AcknowledgeAnnounce()
    {
        _announce = false;
        Host.ConfigChanged();
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        if (_linkChanges is not null)
        {
            _events.Remove(_linkChanges);
            _linkChanges.Dispose();
        }
        _events.Remove(_ringError);
        foreach (VhostNet? pair in _pairs)
            pair?.Dispose();
        _tap?.Dispose();
        _ringError.Dispose();
    }

    private static VhostNet OpenPair(FileDescriptor tapQueue)
    {
        try
        {
            return new VhostNet(tapQueue);
        }
        catch (VhostException e)
        {
            throw new VhostException($"--net: {e.Message}", e);
        }
    }

    private void StartPair(int pair)
    {
        var rings = new List<VringConfig>(2);
        foreach (VringConfig? ring in _rings.AsSpan(2 * pair, 2))
        {
            if (ring is { } config)
                rings.Add(config);
        }
        _pairs[pair].Start(CollectionsMarshal.AsSpan(rings));
    }

    private void StopPair(int pair)
    {
        for (int ring = 0; ring < 2; ring++)
        {
            uint next = _pairs[pair].Stop(ring);
            int index = 2 * pair + ring;
            if (index < _rings.Length && _rings[index] is { } config)
                _rings[index] = config with { Base = next };
        }
    }

    private void LinkMayHaveChanged()
    {
        lock (Sync)
        {
            if (_linkChanges.IsClosed)
                return;
            _linkChanges.Drain();
            bool isUp = _tap.IsUp;
            if (isUp == _linkIsUp)
                return;
            _linkIsUp = isUp;
            // Whoever is on the other side of a link that was down may have forgotten where this address is.
            _announce = isUp && (_features & NetFeatures.GuestAnnounce) != 0;
            Host.ConfigChanged();
        }
    }

    private void RingFailed()
    {
        lock (Sync)
        {
            if (!_ringError.IsClosed && _ringError.Drain() > 0)
                Host.NeedsReset("vhost-net cannot go on with a ring: the driver has put something into it that makes no sense");
        }
    }
}
