using System.Buffers.Binary;
using System.Net;
using Vmm.Devices.Virtio.Net;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;

namespace Vmm.Devices.Backends.Net;

/// <summary>A network device (VIRTIO 1.2 §5.1) on a tap, or on a wire of UDP datagrams. Its control queue is the front-end's.</summary>
public sealed class NetBackend : VhostUserDevice, IDisposable
{
    /// <summary>The requests of ioctl(2) that a device on a tap makes while it is served.</summary>
    public static readonly IReadOnlyList<IoctlRequest> TapRequests = [TunAbi.TunSetOffload, TunAbi.TunSetQueue, TunAbi.SiocGIfFlags];

    private const ushort LinkUp = 1;            // VIRTIO_NET_S_LINK_UP
    private const int HeaderSize = IFramePort.HeaderSize, OldHeaderSize = 10;

    private readonly IFramePort _port;
    private readonly int _pairs;
    private readonly int? _mtu;
    private readonly EventLoop? _events;
    private bool _isUp;

    private NetBackend(IFramePort port, int pairs, int? mtu)
    {
        _port = port;
        _pairs = pairs;
        _mtu = mtu;
        _isUp = port.IsUp;
        if (port.LinkChanges is { } changes)
        {
            _events = new EventLoop();
            _events.Add(changes, LinkMayHaveChanged);
        }
    }

    /// <inheritdoc/>
    public override string Name => "net";

    /// <inheritdoc/>
    public override ulong Features => _port.Features | NetFeatures.MrgRxbuf | NetFeatures.Status
        | (_pairs > 1 ? NetFeatures.Mq : 0)
        | (_mtu is null ? 0 : NetFeatures.Mtu);

    /// <inheritdoc/>
    public override int QueueCount => 2 * _pairs;

    /// <inheritdoc/>
    public override int ConfigSize => 12;

    /// <inheritdoc/>
    public override bool IsInOrder => true;

    /// <summary>A device on a tap.</summary>
    /// <param name="name">The interface; made if it is not there.</param>
    /// <param name="pairs">Pairs of queues, 1 to 127.</param>
    /// <param name="mtu">Told to the driver and set on the interface; null for neither.</param>
    /// <exception cref="VhostException">The tap cannot be had; the message says what to do.</exception>
    public static NetBackend OnTap(string name, int pairs, int? mtu) => new(new TapPort(name, pairs, mtu), pairs, mtu);

    /// <summary>A device on UDP.</summary>
    /// <param name="local">Where frames come to; pair N uses the Nth port behind it.</param>
    /// <param name="remote">Where they go to, and alone come from.</param>
    /// <param name="pairs">Pairs of queues, 1 to 127.</param>
    /// <param name="mtu">Told to the driver; null for nothing.</param>
    /// <exception cref="ErrnoException">An address cannot be used.</exception>
    public static NetBackend OnUdp(IPEndPoint local, IPEndPoint remote, int pairs, int? mtu) => new(new UdpPort(local, remote, pairs), pairs, mtu);

    /// <inheritdoc/>
    public override void ReadConfig(Span<byte> config)
    {
        // struct virtio_net_config: mac, which is the front-end's, status, max_virtqueue_pairs, mtu.
        BinaryPrimitives.WriteUInt16LittleEndian(config[6..], Volatile.Read(ref _isUp) ? LinkUp : (ushort)0);
        BinaryPrimitives.WriteUInt16LittleEndian(config[8..], (ushort)_pairs);
        BinaryPrimitives.WriteUInt16LittleEndian(config[10..], (ushort)(_mtu ?? 0));
    }

    /// <inheritdoc/>
    public override void FeaturesAccepted(ulong features) => _port.Accept(features);

    /// <inheritdoc/>
    public override void Reset() => _port.Accept(0);

    /// <summary>Frames that come meanwhile have no offloads: the next front-end may not want them. That one says its features again.</summary>
    public override void FrontEndGone() => _port.Accept(0);

    /// <inheritdoc/>
    public override IRingHandler StartRing(BackendRing ring)
    {
        // Only drivers of legacy devices have a header without num_buffers, and not all of them (VIRTIO 1.2 §5.1.6.1).
        int header = (ring.Features & (VirtioFeatures.Version1 | NetFeatures.MrgRxbuf)) != 0 ? HeaderSize : OldHeaderSize;
        return ring.Index % 2 == 0
            ? new NetReceiveRing(_port, ring.Index / 2, ring, header)
            : new NetTransmitRing(_port, ring.Index / 2, header);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _events?.Dispose();
        _port.Dispose();
    }

    private void LinkMayHaveChanged()
    {
        _port.LinkChanges!.Drain();
        bool isUp = _port.IsUp;
        if (isUp == _isUp)
            return;
        Volatile.Write(ref _isUp, isUp);
        try
        {
            FrontEnd?.ConfigurationChanged();
        }
        catch (VhostException)
        {
            // It has gone; the next one reads the configuration anyhow.
        }
    }
}
