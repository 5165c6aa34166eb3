using System.Net;
using Vmm.Devices.Net;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Devices.Backends.Net;

/// <summary>A network device (VIRTIO 1.2 §5.1) on a tap, on a wire of UDP datagrams, or on one that is a stream. Its configuration space and its
/// control queue are the front-end's: no front-end asks a network back-end for the former, and QEMU warns of one that offers it.</summary>
public sealed class NetBackend : VhostUserDevice, IDisposable
{
    /// <summary>The system calls that a device on a tap makes while it is served, besides those of every back-end.</summary>
    public static readonly IReadOnlyList<SystemCallRule> TapCalls = [SystemCallRule.Requests(TunAbi.TunSetOffload, TunAbi.TunSetQueue, TunAbi.TunGetIff)];

    private static readonly TimeSpan s_lookInterval = TimeSpan.FromSeconds(1);

    private const int HeaderSize = IFramePort.HeaderSize, OldHeaderSize = 10;

    private static readonly BoundedLog s_log = new("Vmm.Devices.Net");

    private readonly IFramePort _port;
    private readonly int _pairs;
    private readonly int? _mtu;
    private readonly TimerFd _look = new();
    private readonly EventLoop _events = new();
    private PasstProcess? _passt;
    private bool _isWatched;

    private NetBackend(IFramePort port, int pairs, int? mtu)
    {
        _port = port;
        _pairs = pairs;
        _mtu = mtu;
    }

    /// <inheritdoc/>
    public override string Name => "net";

    /// <summary>The features of the wire, and those that a front-end offers its driver only if the back-end offers them, too: the MTU, announcements by the
    /// driver after a migration, and several pairs.</summary>
    public override ulong Features => _port.Features | NetFeatures.MrgRxbuf | NetFeatures.Mtu | NetFeatures.GuestAnnounce
        | (_pairs > 1 ? NetFeatures.Mq : 0);

    /// <inheritdoc/>
    public override VhostUserProtocolFeatures ProtocolFeatures => VhostUserProtocolFeatures.Rarp | VhostUserProtocolFeatures.Mtu;

    /// <inheritdoc/>
    public override int RingCount => _pairs * RingsPerQueue;

    /// <inheritdoc/>
    public override int RingsPerQueue => 2;

    /// <inheritdoc/>
    public override bool IsInOrder => true;

    /// <summary>Not on UDP: there the process may pass no descriptor to its front-end, and this one begins with one.</summary>
    public override bool TracksInflight => _port is not UdpPort;

    /// <summary>A device on a tap.</summary>
    /// <param name="name">The interface; made if it is not there.</param>
    /// <param name="pairs">Pairs of queues, 1 to 127.</param>
    /// <param name="mtu">Set on the interface, and the largest that a front-end may ask for; null for neither.</param>
    /// <exception cref="VhostException">The tap cannot be had; the message says what to do.</exception>
    public static NetBackend OnTap(string name, int pairs, int? mtu) => new(new TapPort(name, pairs, mtu), pairs, mtu);

    /// <summary>A device on UDP.</summary>
    /// <param name="local">Where frames come to; pair N uses the Nth port behind it.</param>
    /// <param name="remote">Where they go to, and alone come from.</param>
    /// <param name="pairs">Pairs of queues, 1 to 127.</param>
    /// <param name="mtu">The largest that a front-end may ask for; null for any.</param>
    /// <exception cref="ErrnoException">An address cannot be used.</exception>
    public static NetBackend OnUdp(IPEndPoint local, IPEndPoint remote, int pairs, int? mtu) => new(new UdpPort(local, remote, pairs), pairs, mtu);

    /// <summary>A device on a stream.</summary>
    /// <param name="path">The socket that is connected to.</param>
    /// <param name="mtu">The largest that a front-end may ask for; null for any.</param>
    /// <exception cref="ErrnoException">Nobody listens there.</exception>
    public static NetBackend OnStream(string path, int? mtu) => new(new StreamPort(UnixSocket.Connect(path), $"the stream {path}"), 1, mtu);

    /// <summary>A device on the host's own network, by passt: the guest's connections are the host's.</summary>
    /// <param name="ports">Where the host's ports lead into the guest.</param>
    /// <param name="opensHost">Whether the guest reaches the host's 127.0.0.1, by the gateway's address. Answers from a forwarded UDP port go that way, too.</param>
    /// <exception cref="VhostException">passt is not installed, or cannot do it; the message says why.</exception>
    public static NetBackend OnPasst(IReadOnlyList<ForwardedPort> ports, bool opensHost)
    {
        (PasstProcess process, UnixSocket wire) = PasstProcess.Start(ports, opensHost);
        return new NetBackend(new StreamPort(wire, process.ToString()) { RefusesLoopback = !opensHost }, 1, UserNetwork.Mtu) { _passt = process };
    }

    /// <summary>What a process with this device may not call (<see cref="Confinement.Refused"/>): on UDP to connect its sockets again, to anybody.</summary>
    public IReadOnlyList<SystemCallRule> Refused => _port is UdpPort udp
        ? [new(SystemCallNumber.Connect, "fd is a UDP socket", ArgumentCondition.IsOneOf(0, udp.SocketNumbers))]
        : [];

    /// <inheritdoc/>
    public override void FeaturesAccepted(ulong features) => _port.Accept(features);

    /// <inheritdoc/>
    public override void Reset() => _port.Accept(0);

    /// <summary>Frames that come meanwhile have no offloads: the next front-end may not want them. That one says its features again.</summary>
    public override void FrontEndGone() => _port.Accept(0);

    /// <summary>Says on the wire where the guest is now. No ring is used, and the wire takes frames from any thread.</summary>
    /// <inheritdoc/>
    public override bool SendRarp(ReadOnlySpan<byte> mac)
    {
        int result = RarpFrame.Send(_port, mac);
        if (result < 0)
            s_log.Warn("the guest's new place cannot be announced: {Error}", new ErrnoException("cannot send a RARP", -result).Message);
        return result >= 0;
    }

    /// <summary>Only checks it: the interface's MTU is its administrator's.</summary>
    /// <inheritdoc/>
    public override bool SetMtu(int mtu)
    {
        if (mtu < NetLimits.MinMtu || mtu > (_mtu ?? int.MaxValue))
            return false;
        if (_port.Mtu is int own && own < mtu)
            s_log.Warn("{Port} has an MTU of {Own}, the guest one of {Mtu}: what comes to the guest is no larger; set both alike", _port, own, mtu);
        return true;
    }

    /// <inheritdoc/>
    public override void ServingBegins()
    {
        if (!_port.CanBeGone || _isWatched)
            return;
        _isWatched = true;
        _look.Set(s_lookInterval);
        _events.Add(_look, Look);
        if (_passt is not null)
            _events.Add(_passt.Output, LogPasst);
    }

    /// <inheritdoc/>
    public override IRingHandler StartRing(BackendRing ring)
    {
        // Only drivers of legacy devices have a header without num_buffers, and not all of them (VIRTIO 1.2 §5.1.6.1).
        int header = (ring.Features & (VirtioFeatures.Version1 | NetFeatures.MrgRxbuf)) != 0 ? HeaderSize : OldHeaderSize;
        return ring.Index % 2 == 0
            ? new NetReceiveRing(_port, ring.Index / 2, ring, header, WireFailed)
            : new NetTransmitRing(_port, ring.Index / 2, header);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _events.Dispose();
        _look.Dispose();
        _port.Dispose();
        _passt?.Dispose();      // it ends with the wire
    }

    // Queues that run notice it by themselves. The kernel would tell others by an rtnetlink socket, which tells a guest that breaks in all about the
    // host's network.
    private void Look()
    {
        _look.Drain();
        if (_port.Fate is string fate)
            End($"{_port} {fate}");
        else
            _look.Set(s_lookInterval);
    }

    private void LogPasst()
    {
        if (!_passt!.TryLog())
            _events.Remove(_passt.Output);
    }

    // Ends the device: a ring cannot go on without the wire.
    private void WireFailed(string reason) => End(_port.Fate is string fate ? $"{_port} {fate}" : $"{_port}: {reason}");
}
