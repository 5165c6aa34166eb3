using System.Buffers.Binary;
using Vmm.Devices.Net;
using Vmm.Devices.Virtio.Net;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Frontend;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Devices.Virtio.VhostUser;

/// <summary>A network device (VIRTIO 1.2 §5.1) whose packets go to another process, a switch. The control queue is worked here, on the
/// thread of the vCPU that kicks it; of the configuration nothing is the switch's.</summary>
internal sealed class VhostUserNetDevice : VhostUserFrontendDevice, INetControl
{
    // Features that are the switch's: those of rings, and of the form of packets.
    private const ulong Offered = VirtioFeatures.Version1 | VirtioFeatures.IndirectDescriptors | VirtioFeatures.EventIndex | VirtioFeatures.InOrder
        | VirtioFeatures.OrderPlatform | NetFeatures.MrgRxbuf | NetFeatures.Csum | NetFeatures.HostTso4 | NetFeatures.HostTso6 | NetFeatures.HostEcn
        | NetFeatures.HostUfo | NetFeatures.GuestOffloads;

    // Features of the control queue and of the configuration, which this class serves itself. It sets no filter of addresses: a switch sends a port only the port's packets.
    private const ulong Control = NetFeatures.Mac | NetFeatures.Status | NetFeatures.CtrlVq | NetFeatures.CtrlRx | NetFeatures.CtrlVlan
        | NetFeatures.CtrlMacAddr | NetFeatures.GuestAnnounce;

    private static readonly BoundedLog s_log = new("Vmm.Devices.VhostUser");

    private readonly VhostUserNetDeviceOptions _options;
    private readonly NetControlPort _control;
    private readonly MacAddress _ownMac;
    private readonly VringConfig?[] _rings;
    private MacAddress _mac;
    private ulong _features;
    private bool _announce;
    private int _pairsInUse;
    private bool _standsStill;     // until the driver resets the device

    /// <summary>Connects to the switch.</summary>
    /// <exception cref="VhostException">There is none, or it has fewer queues.</exception>
    public VhostUserNetDevice(VhostUserNetDeviceOptions options, EventLoop events, CancellationToken cancellation)
        : base($"--net {options.Peer.Place}", options.Peer, events)
    {
        _options = options;
        _control = new NetControlPort(this, this, events);
        _rings = new VringConfig?[2 * options.QueuePairs];
        _mac = _ownMac = options.Mac ?? MacAddress.Random();
        try
        {
            Connect(new VhostUserShape("--net", 2 * options.QueuePairs, DefaultQueueSize) { RingsPerQueue = 2 }, cancellation);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public override VirtioDeviceType Type => VirtioDeviceType.Net;

    /// <inheritdoc/>
    public override ulong Features => (base.Features & Offered) | Control
        | (_options.QueuePairs > 1 ? NetFeatures.Mq : 0)
        | (_options.Mtu is null ? 0 : NetFeatures.Mtu);

    /// <inheritdoc/>
    public override int QueueCount => _rings.Length + 1;

    /// <inheritdoc/>
    public override int ConfigSize => NetConfig.Size;

    /// <inheritdoc/>
    public override int MaxQueueSize(int queue) => IsDelegated(queue) ? QueueSize : NetControlPort.QueueSize;

    /// <inheritdoc/>
    public override void ReadConfig(Span<byte> config) => NetConfig.Write(
        config, _mac, isUp: Frontend.IsConnected && !_standsStill, _announce, _options.QueuePairs, _options.Mtu);

    /// <inheritdoc/>
    public override void Start(ulong features, GuestMemory memory, IReadOnlyList<VringConfig> queues)
    {
        _features = features;
        int control = NetControlPort.IndexOf(features, _options.QueuePairs);
        foreach (VringConfig queue in queues)
        {
            if (queue.Index == control && (features & NetFeatures.CtrlVq) != 0)
                _control.Start(memory, queue, features);
            else if (queue.Index < _rings.Length)
                _rings[queue.Index] = queue;
        }
        // The driver begins with one pair (VIRTIO 1.2 §5.1.6.5.5).
        base.Start(features, memory, Pair(0));
        _pairsInUse = 1;
    }

    /// <inheritdoc/>
    public override void Stop()
    {
        base.Stop();
        _control.Stop();
        Array.Clear(_rings);
        _pairsInUse = 0;
        _announce = false;
        _mac = _ownMac;
        _features = 0;
        _standsStill = false;
    }

    /// <inheritdoc/>
    // The next switch may be there already, and the link comes up with the driver that can use it.
    public override void StandStill()
    {
        Stop();
        _standsStill = true;
    }

    /// <inheritdoc/>
    public override void Notify(int queue) => _control.Process();

    /// <inheritdoc/>
    public override void Disconnected(string reason) => Host.ConfigChanged();   // a link that is down

    /// <inheritdoc/>
    // Before the rings: a DPDK switch reads the MTU when the last ring of a pair starts, and never again.
    public override void Starting(VhostUserSession session, bool isAgain)
    {
        if (_options.Mtu is { } mtu && (_features & NetFeatures.Mtu) != 0)
            Tell(session, VhostUserProtocolFeatures.Mtu, () => session.SetMtu(mtu));
        // A driver that cannot announce itself is announced by the switch.
        if (isAgain && (_features & NetFeatures.GuestAnnounce) == 0)
            Tell(session, VhostUserProtocolFeatures.Rarp, () => session.SendRarp(ToNumber(_mac)));
    }

    /// <inheritdoc/>
    public override void Restored()
    {
        // A switch that has begun anew does not know where this address is.
        _announce = (_features & NetFeatures.GuestAnnounce) != 0;
        Host.ConfigChanged();
    }

    /// <inheritdoc/>
    public bool TrySetQueuePairs(int count)
    {
        if (count < 1 || count > _options.QueuePairs || (count > 1 && (_features & NetFeatures.Mq) == 0))
            return false;
        try
        {
            for (; _pairsInUse < count; _pairsInUse++)
            {
                StartRings(Pair(_pairsInUse));
                Enable(_pairsInUse, true);
            }
            for (; _pairsInUse > count; _pairsInUse--)
                Enable(_pairsInUse - 1, false);
            return true;
        }
        catch (VhostException)
        {
            return false;
        }
    }

    /// <inheritdoc/>
    public bool TrySetOffloads(ulong offloads) => false;   // not offered: the switch would have to know

    /// <inheritdoc/>
    public void SetMac(MacAddress address)
    {
        _mac = address;
        Host.ConfigChanged();
    }

    /// <inheritdoc/>
    public void SetReceiveFilter(ReceiveFilter filter)
    {
    }

    /// <inheritdoc/>
    public void AcknowledgeAnnounce()
    {
        _announce = false;
        Host.ConfigChanged();
    }

    private List<VringConfig> Pair(int pair)
    {
        var rings = new List<VringConfig>(2);
        foreach (VringConfig? ring in _rings.AsSpan(2 * pair, 2))
        {
            if (ring is { } config)
                rings.Add(config);
        }
        return rings;
    }

    private void Enable(int pair, bool enabled)
    {
        Frontend.SetRingEnabled(2 * pair, enabled);
        Frontend.SetRingEnabled(2 * pair + 1, enabled);
    }

    // The first byte in the lowest bits, as SEND_RARP has it.
    private static ulong ToNumber(MacAddress address)
    {
        Span<byte> bytes = stackalloc byte[sizeof(ulong)];
        bytes.Clear();
        address.CopyTo(bytes);
        return BinaryPrimitives.ReadUInt64LittleEndian(bytes);
    }

    // A switch that refuses the message is used all the same.
    private void Tell(VhostUserSession session, VhostUserProtocolFeatures needed, Action message)
    {
        if ((session.ProtocolFeatures & needed) == 0)
            return;
        try
        {
            message();
        }
        catch (VhostUserException e) when (!e.IsConnectionLost)
        {
            s_log.Warn("{Device}: {Error}", Name, e.Message);
        }
    }
}
