using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using NUnit.Framework;
using Vmm.Devices.Backends.Net;
using Vmm.Devices.Net;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Devices.Backends.Net;

/// <summary>A network back-end on UDP, which needs no root.</summary>
public sealed class NetBackendTests
{
    private const ulong Modern = VirtioFeatures.Version1;
    private const ulong Mergeable = Modern | NetFeatures.MrgRxbuf;
    private const int Header = 12, OldHeader = 10;

    private UdpWires _udp = null!;

    private Socket[] Wires => _udp.Sockets;

    private NetBackend Device => _udp.Device;

    [TearDown]
    public void Close() => _udp?.Dispose();

    [TestCase(Header, Modern)]
    [TestCase(Header, NetFeatures.MrgRxbuf)]
    [TestCase(OldHeader, 0UL)]
    public void Send_Frame_GoesOutWithoutItsHeader(int header, ulong features)
    {
        Open(1);
        using var ring = new DeviceRing(Device, 1, features);
        byte[] frame = Frame(100);
        ring.AddData([.. new byte[header], .. frame]);
        ring.AddData([.. new byte[header], .. frame], 3, header - 3);
        ring.AddData([.. new byte[header], .. frame], header + 1, 7);
        for (int i = 0; i < 3; i++)
        {
            Assert.That(ring.Await(), Is.Empty);
            Assert.That(ReceiveOnWire(), Is.EqualTo(frame));
        }
    }

    [Test]
    public void Send_FrameInVeryManyPieces_GoesOut()
    {
        Open(1);
        using var ring = new DeviceRing(Device, 1, Modern, size: 256);
        byte[] frame = Frame(1000);
        ring.AddData([.. new byte[Header], .. frame], [.. Enumerable.Repeat(5, 200)]);
        ring.Await();
        Assert.That(ReceiveOnWire(), Is.EqualTo(frame));
    }

    [TestCase(0)]
    [TestCase(5)]
    [TestCase(Header)]
    [TestCase(Header + 65535 + 19)]
    public void Send_NoFrame_IsDroppedAndTheNextGoesOut(int length)
    {
        Open(1);
        using var ring = new DeviceRing(Device, 1, Modern);
        if (length == 0)
            ring.AddRoom(10);
        else
            ring.AddData(new byte[length]);
        ring.AddData([.. new byte[Header], .. Frame(60)]);
        Assert.That(ring.Await(), Is.Empty);
        Assert.That(ring.Await(), Is.Empty);
        Assert.That(ReceiveOnWire(), Is.EqualTo(Frame(60)));
        Assert.That(ring.Ring.HasFailed, Is.False);
    }

    [TestCase(Header, Modern)]
    [TestCase(Header, Mergeable)]
    [TestCase(OldHeader, 0UL)]
    public void Receive_Frame_ArrivesBehindAHeader(int header, ulong features)
    {
        Open(1);
        using var ring = new DeviceRing(Device, 0, features);
        ring.AddRoom(header, 1526);
        ring.AddRoom(4, 4, 4, 1526);
        for (int i = 0; i < 2; i++)
        {
            Wires[0].Send(Frame(1514));
            byte[] packet = ring.Await();
            Assert.That(packet[header..], Is.EqualTo(Frame(1514)));
            Assert.That(packet[..OldHeader], Is.All.Zero);
            if (header == Header)
                Assert.That(BinaryPrimitives.ReadUInt16LittleEndian(packet.AsSpan(OldHeader)), Is.EqualTo(1), "num_buffers");
        }
    }

    [Test]
    public void Receive_LargeFrameIntoSmallBuffers_IsSpreadAndCounted()
    {
        Open(1);
        using var ring = new DeviceRing(Device, 0, Mergeable);
        for (int i = 0; i < 4; i++)
            ring.AddRoom(500);
        Wires[0].Send(Frame(1514));
        byte[] first = ring.Await();
        byte[] all = [.. first, .. ring.Take()!, .. ring.Take()!, .. ring.Take()!];
        Assert.That(BinaryPrimitives.ReadUInt16LittleEndian(first.AsSpan(OldHeader)), Is.EqualTo(4));
        Assert.That(all[Header..], Is.EqualTo(Frame(1514)));
    }

    [Test]
    public void Receive_WithoutBuffers_KeepsTheFrameAndDoesNotSpin()
    {
        Open(1);
        using var ring = new DeviceRing(Device, 0, Mergeable);
        ring.AddRoom(500);
        for (int i = 0; i < 3; i++)
            Wires[0].Send(Frame(1000 + i));
        ring.ProcessUntil(() => ring.Ready is null);
        Assert.That(ring.Take(), Is.Null, "half of a frame is none");
        Assert.That(ring.Ring.InFlight, Is.EqualTo(1));
        ring.Drain();
        Assert.That(ring.Ring.InFlight, Is.Zero, "what is not complete is put back");
        for (int i = 0; i < 8; i++)
            ring.AddRoom(500);
        for (int i = 0; i < 3; i++)
        {
            byte[] first = ring.Await();
            Assert.That(BinaryPrimitives.ReadUInt16LittleEndian(first.AsSpan(OldHeader)), Is.EqualTo(3));
            byte[] all = [.. first, .. ring.Take()!, .. ring.Take()!];
            Assert.That(all[Header..], Is.EqualTo(Frame(1000 + i)));
        }
    }

    [Test]
    public void Receive_BufferThatIsTooSmall_ComesBackEmptyAndTheNextFrameArrives()
    {
        Open(1);
        using var ring = new DeviceRing(Device, 0, Modern);
        ring.AddRoom(200);
        ring.AddRoom(2000);
        Wires[0].Send(Frame(1000));
        Assert.That(ring.Await(), Is.Empty);
        Wires[0].Send(Frame(70));
        Assert.That(ring.Await()[Header..], Is.EqualTo(Frame(70)));
    }

    [Test]
    public void Pairs_Two_HaveWiresOfTheirOwn()
    {
        Open(2);
        Assert.That(Device.RingCount, Is.EqualTo(4));
        Assert.That(Device.Features & NetFeatures.Mq, Is.Not.Zero);
        using var first = new DeviceRing(Device, 0, Mergeable);
        using var second = new DeviceRing(Device, 2, Mergeable);
        using var secondOut = new DeviceRing(Device, 3, Mergeable);
        first.AddRoom(2000);
        second.AddRoom(2000);
        Wires[1].Send(Frame(80));
        Assert.That(second.Await()[Header..], Is.EqualTo(Frame(80)));
        Assert.That(first.Take(), Is.Null);
        secondOut.AddData([.. new byte[Header], .. Frame(90)]);
        secondOut.Await();
        Assert.That(ReceiveOnWire(1), Is.EqualTo(Frame(90)));
    }

    [Test]
    public void Send_NobodyListens_GoesOnOnceSomebodyDoes()
    {
        Open(1);
        var local = (IPEndPoint)Wires[0].LocalEndPoint!;
        var remote = (IPEndPoint)Wires[0].RemoteEndPoint!;
        Wires[0].Dispose();
        using var ring = new DeviceRing(Device, 1, Modern);
        for (int i = 0; i < 3; i++)
        {
            ring.AddData([.. new byte[Header], .. Frame(60)]);
            ring.Await();
        }
        Wires[0] = UdpWires.Connect(local, remote);
        ring.AddData([.. new byte[Header], .. Frame(61)]);
        ring.Await();
        Assert.That(ReceiveOnWire(), Is.EqualTo(Frame(61)));
    }

    // "Communication with destination administratively prohibited" (RFC 4443 §3.1), as a firewall says it: EACCES, once.
    [Test]
    public void Receive_FirewallForbidsWhatWasSent_GoesOn()
    {
        if (!Environment.IsPrivilegedProcess)
            Assert.Ignore("raw sockets are root's: run as root");
        if (!Socket.OSSupportsIPv6)
            Assert.Ignore("there is no IPv6 here");
        _udp = UdpWires.Open(1, on: IPAddress.IPv6Loopback);
        using var ring = new DeviceRing(Device, 0, Modern);
        using var firewall = new Socket(AddressFamily.InterNetworkV6, SocketType.Raw, ProtocolType.IcmpV6);
        firewall.Connect(new IPEndPoint(IPAddress.IPv6Loopback, 0));
        var device = (IPEndPoint)Wires[0].RemoteEndPoint!;
        var wire = (IPEndPoint)Wires[0].LocalEndPoint!;
        for (int i = 0; i < 3; i++)
        {
            firewall.Send(Prohibited(device, wire));
            Eventually.True(() => Poll.Wait([new PollEntry(ring.Ready, PollEvents.None)], 100) == 1, () => "no error came");
            ring.Process();
            Assert.That(ring.Ready, Is.Not.Null, "the ring is deaf");
        }
        ring.AddRoom(2000);
        Wires[0].Send(Frame(70));
        Assert.That(ring.Await()[Header..], Is.EqualTo(Frame(70)));
    }

    [Test]
    public void OnUdp_PortInUse_NamesIt()
    {
        using var other = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        other.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        var address = (IPEndPoint)other.LocalEndPoint!;
        Assert.That(
            () => NetBackend.OnUdp(address, new IPEndPoint(IPAddress.Loopback, 9), 1, null),
            Throws.TypeOf<ErrnoException>().With.Message.EqualTo($"cannot use {address}: Address already in use (errno 98)"));
    }

    // An ICMPv6 message without its checksum, which the kernel fills in, about a datagram of no length.
    private static byte[] Prohibited(IPEndPoint source, IPEndPoint destination)
    {
        byte[] message = new byte[8 + 40 + 8];
        (message[0], message[1]) = (1, 1);              // destination unreachable, administratively prohibited
        Span<byte> packet = message.AsSpan(8);
        (packet[0], packet[5], packet[6], packet[7]) = (0x60, 8, 17, 64);      // version 6, 8 bytes of UDP
        source.Address.TryWriteBytes(packet[8..], out _);
        destination.Address.TryWriteBytes(packet[24..], out _);
        BinaryPrimitives.WriteUInt16BigEndian(packet[40..], (ushort)source.Port);
        BinaryPrimitives.WriteUInt16BigEndian(packet[42..], (ushort)destination.Port);
        BinaryPrimitives.WriteUInt16BigEndian(packet[44..], 8);
        return message;
    }

    private static byte[] Frame(int length) => [.. Enumerable.Range(0, length).Select(i => (byte)(i * 7 + length))];

    private byte[] ReceiveOnWire(int pair = 0) => _udp.Receive(pair);

    private void Open(int pairs) => _udp = UdpWires.Open(pairs);
}
