using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using NUnit.Framework;
using Vmm.Devices.Backends.Net;
using Vmm.Devices.Virtio.Net;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Devices.Backends.Net;

/// <summary>A network back-end on UDP, which needs no root.</summary>
public sealed class NetBackendTests
{
    private const ulong Modern = VirtioFeatures.Version1;
    private const ulong Mergeable = Modern | NetFeatures.MrgRxbuf;
    private const int Header = 12, OldHeader = 10;

    private Socket[] _wires = [];
    private NetBackend _device = null!;

    [TearDown]
    public void Close()
    {
        _device?.Dispose();
        foreach (Socket wire in _wires)
            wire.Dispose();
    }

    [TestCase(Header, Modern)]
    [TestCase(Header, NetFeatures.MrgRxbuf)]
    [TestCase(OldHeader, 0UL)]
    public void Send_Frame_GoesOutWithoutItsHeader(int header, ulong features)
    {
        Open(1);
        using var ring = new DeviceRing(_device, 1, features);
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
        using var ring = new DeviceRing(_device, 1, Modern, size: 256);
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
        using var ring = new DeviceRing(_device, 1, Modern);
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
        using var ring = new DeviceRing(_device, 0, features);
        ring.AddRoom(header, 1526);
        ring.AddRoom(4, 4, 4, 1526);
        for (int i = 0; i < 2; i++)
        {
            _wires[0].Send(Frame(1514));
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
        using var ring = new DeviceRing(_device, 0, Mergeable);
        for (int i = 0; i < 4; i++)
            ring.AddRoom(500);
        _wires[0].Send(Frame(1514));
        byte[] first = ring.Await();
        byte[] all = [.. first, .. ring.Take()!, .. ring.Take()!, .. ring.Take()!];
        Assert.That(BinaryPrimitives.ReadUInt16LittleEndian(first.AsSpan(OldHeader)), Is.EqualTo(4));
        Assert.That(all[Header..], Is.EqualTo(Frame(1514)));
    }

    [Test]
    public void Receive_WithoutBuffers_KeepsTheFrameAndDoesNotSpin()
    {
        Open(1);
        using var ring = new DeviceRing(_device, 0, Mergeable);
        ring.AddRoom(500);
        for (int i = 0; i < 3; i++)
            _wires[0].Send(Frame(1000 + i));
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
        using var ring = new DeviceRing(_device, 0, Modern);
        ring.AddRoom(200);
        ring.AddRoom(2000);
        _wires[0].Send(Frame(1000));
        Assert.That(ring.Await(), Is.Empty);
        _wires[0].Send(Frame(70));
        Assert.That(ring.Await()[Header..], Is.EqualTo(Frame(70)));
    }

    [Test]
    public void Pairs_Two_HaveWiresOfTheirOwn()
    {
        Open(2);
        Assert.That(_device.QueueCount, Is.EqualTo(4));
        Assert.That(_device.Features & NetFeatures.Mq, Is.Not.Zero);
        using var first = new DeviceRing(_device, 0, Mergeable);
        using var second = new DeviceRing(_device, 2, Mergeable);
        using var secondOut = new DeviceRing(_device, 3, Mergeable);
        first.AddRoom(2000);
        second.AddRoom(2000);
        _wires[1].Send(Frame(80));
        Assert.That(second.Await()[Header..], Is.EqualTo(Frame(80)));
        Assert.That(first.Take(), Is.Null);
        secondOut.AddData([.. new byte[Header], .. Frame(90)]);
        secondOut.Await();
        Assert.That(ReceiveOnWire(1), Is.EqualTo(Frame(90)));
    }

    [Test]
    public void ReadConfig_PairsAndMtu_AreTold()
    {
        Open(2, mtu: 9000);
        byte[] config = new byte[_device.ConfigSize];
        _device.ReadConfig(config);
        Assert.That(_device.Features & NetFeatures.Mtu, Is.Not.Zero);
        Assert.That(config[6..], Is.EqualTo(new byte[] { 1, 0, 2, 0, 0x28, 0x23 }), "link up, two pairs, 9000");
    }

    [Test]
    public void Send_NobodyListens_GoesOnOnceSomebodyDoes()
    {
        Open(1);
        var local = (IPEndPoint)_wires[0].LocalEndPoint!;
        var remote = (IPEndPoint)_wires[0].RemoteEndPoint!;
        _wires[0].Dispose();
        using var ring = new DeviceRing(_device, 1, Modern);
        for (int i = 0; i < 3; i++)
        {
            ring.AddData([.. new byte[Header], .. Frame(60)]);
            ring.Await();
        }
        _wires[0] = Wire(local, remote);
        ring.AddData([.. new byte[Header], .. Frame(61)]);
        ring.Await();
        Assert.That(ReceiveOnWire(), Is.EqualTo(Frame(61)));
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

    private static byte[] Frame(int length) => [.. Enumerable.Range(0, length).Select(i => (byte)(i * 7 + length))];

    private byte[] ReceiveOnWire(int pair = 0)
    {
        byte[] buffer = new byte[70000];
        return buffer[.._wires[pair].Receive(buffer)];
    }

    // Pairs use consecutive ports: some that are free are looked for.
    private void Open(int pairs, int? mtu = null)
    {
        for (int attempt = 0; ; attempt++)
        {
            int port = Random.Shared.Next(20000, 60000);
            var local = new IPEndPoint(IPAddress.Loopback, port);
            var remote = new IPEndPoint(IPAddress.Loopback, port + pairs);
            try
            {
                _wires = [.. Enumerable.Range(0, pairs).Select(
                    i => Wire(new IPEndPoint(remote.Address, remote.Port + i), new IPEndPoint(local.Address, local.Port + i)))];
                _device = NetBackend.OnUdp(local, remote, pairs, mtu);
                return;
            }
            catch (Exception e) when (attempt < 20 && e is SocketException or ErrnoException)
            {
                Close();
            }
        }
    }

    private static Socket Wire(IPEndPoint local, IPEndPoint remote)
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp) { ReceiveTimeout = 10_000 };
        socket.Bind(local);
        socket.Connect(remote);
        return socket;
    }
}
