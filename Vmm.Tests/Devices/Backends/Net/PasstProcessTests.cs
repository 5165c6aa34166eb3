using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using NUnit.Framework;
using Vmm.Devices.Backends.Net;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Devices.Backends.Net;

/// <summary>The real passt, on the other end of a wire.</summary>
public sealed class PasstProcessTests
{
    private static readonly byte[] s_guest = [0x02, 0, 0, 0, 0, 0x77];

    [Test]
    public void Start_ConnectionToAForwardedPort_ReachesTheGuest()
    {
        int port = FreePort();
        (PasstProcess passt, UnixSocket wire) = Start(new ForwardedPort(IPAddress.Loopback, port, 80));
        using (passt)
        using (var stream = new StreamPort(wire, "passt"))
        {
            SendArp(stream);     // from the guest's address, so that passt knows it
            using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            client.Connect(IPAddress.Loopback, port);
            byte[] frame = ReceiveUntil(stream, packet => packet[12] == 8 && packet[13] == 0 && packet[23] == 6);

            Assert.That(frame[26..30], Is.EqualTo(new byte[] { 10, 0, 2, 2 }), "from the gateway");
            Assert.That(frame[30..34], Is.EqualTo(new byte[] { 10, 0, 2, 15 }), "to the guest");
            Assert.That((frame[36] << 8) | frame[37], Is.EqualTo(80));
        }
    }

    // A guest that is root there sends what it likes.
    [TestCase("10.0.2.2", false, false)]
    [TestCase("10.0.2.2", true, true)]
    [TestCase("127.0.0.1", false, false)]
    [TestCase("0.0.0.0", false, false)]
    public void Start_GuestConnectsToTheHostsLoopback_ReachesItIfThatIsOpen(string address, bool opensHost, bool expected)
    {
        RequirePasst();
        using var server = new TcpListener(IPAddress.Loopback, 0);
        server.Start();
        (PasstProcess passt, UnixSocket wire) = PasstProcess.Start([], opensHost);
        using (passt)
        using (var stream = new StreamPort(wire, "passt") { RefusesLoopback = !opensHost })
        {
            SendArp(stream);
            ReceiveUntil(stream, frame => frame[13] == 6);
            Send(stream, Connect(IPAddress.Parse(address), ((IPEndPoint)server.LocalEndpoint).Port));
            // Of what comes at once it may answer ARP first. Once it answers the second time it has done what came with the first.
            for (int i = 0; i < 2; i++)
            {
                SendArp(stream);
                ReceiveUntil(stream, frame => frame[13] == 6);
            }

            // The kernel may take a moment to bring the connection to the server.
            if (expected)
                Eventually.True(server.Pending, () => "nobody has connected");
            else
                Assert.That(server.Pending(), Is.False);
        }
    }

    // The same without a filter of ours: passt reads the guest's queues itself.
    [TestCase("10.0.2.2", false, false)]
    [TestCase("10.0.2.2", true, true)]
    [TestCase("127.0.0.1", false, false)]
    [TestCase("127.3.2.1", false, false)]
    [TestCase("0.0.0.0", false, false)]
    [TestCase("::1", false, false)]
    [TestCase("::", false, false)]
    [TestCase("::ffff:127.0.0.1", false, false)]
    [TestCase("::ffff:0.0.0.0", false, false)]
    public void VhostUser_GuestConnectsToTheHostsLoopback_ReachesItIfThatIsOpen(string address, bool opensHost, bool expected)
    {
        const string program = "/usr/bin/passt";
        if (!PasstProgram.KnowsVhostUser(program))
            Assert.Ignore("there is no passt that knows --vhost-user (Debian 13 has one)");
        using var server = new TcpListener(IPAddress.Loopback, 0);
        server.Start();
        int port = ((IPEndPoint)server.LocalEndpoint).Port;
        using var datagrams = new UdpClient(new IPEndPoint(IPAddress.Loopback, port));
        using var server6 = new TcpListener(IPAddress.IPv6Loopback, port);
        using var datagrams6 = new UdpClient(new IPEndPoint(IPAddress.IPv6Loopback, port));
        server6.Start();
        (UnixSocket wire, UnixSocket other) = UnixSocket.Pair();
        using ChildProcess passt = ChildProcess.Start(program, PasstProgram.VhostUserArguments([], HostRoutes.HasDefault, opensHost, ChildProcess.InheritedNumber), other);
        other.Dispose();
        using (var frontEnd = new FrontEndDriver(wire))
        {
            frontEnd.Negotiate();
            frontEnd.ShareMemory();
            using FrontEndRing receive = frontEnd.Ring(0), transmit = frontEnd.Ring(1);
            receive.SetUp();
            transmit.SetUp();
            receive.Enable(true);
            transmit.Enable(true);
            for (int i = 0; i < 8; i++)
                receive.Add([], room: 2000);    // passt drops what there is no room for
            AskWithin(receive, transmit);
            foreach (bool isUdp in (bool[])[false, true])
                transmit.Add([.. new byte[12], .. Packet(IPAddress.Parse(address), port, isUdp)]);
            // Once it answers the second time it has done what came with the first.
            for (int i = 0; i < 2; i++)
                AskWithin(receive, transmit);

            if (expected)
                Eventually.True(() => server.Pending() && datagrams.Available > 0, () => "nobody has connected");
            else
                Assert.That((server.Pending(), server6.Pending(), datagrams.Available, datagrams6.Available), Is.EqualTo((false, false, 0, 0)));
            Assert.That(passt.End, Is.Null);
        }
        Assert.That(passt.WaitForEnd(5000), "it ends with its front-end");
    }

    [Test]
    public void Dispose_WireIsClosed_PasstEndsByItself()
    {
        (PasstProcess passt, UnixSocket wire) = Start();
        string process = $"/proc/{passt.ToString().Split(' ')[^1].TrimEnd(')')}";
        Assert.That(Directory.Exists(process));
        wire.Dispose();

        Eventually.True(() => File.ReadAllText(process + "/stat").Split(") ")[1][0] == 'Z', () => "passt goes on");
        passt.Dispose();
        Assert.That(Directory.Exists(process), Is.False);
    }

    [Test]
    public void Dispose_DeviceOnPasst_LeavesNoProcess()
    {
        RequirePasst();
        string[] before = Children();
        NetBackend device = NetBackend.OnPasst([], opensHost: false);
        string[] started = [.. Children().Except(before)];
        Assert.That(started, Is.Not.Empty);
        device.Dispose();
        Assert.That(Children().Intersect(started), Is.Empty);
    }

    [Test]
    public void Start_PortInUse_SaysWhich()
    {
        using var holder = new TcpListener(IPAddress.Loopback, 0);
        holder.Start();
        int port = ((IPEndPoint)holder.LocalEndpoint).Port;

        VhostException error = Assert.Throws<VhostException>(() => Start(new ForwardedPort(IPAddress.Loopback, port, 80)))!;
        Assert.That(error.Message, Does.StartWith("passt ended with status 1").And.Contain($"{port}"));
        Assert.That(error.Message, Does.Not.Contain('\n'));
    }

    private static (PasstProcess Passt, UnixSocket Wire) Start(params ForwardedPort[] ports)
    {
        RequirePasst();
        return PasstProcess.Start(ports, opensHost: false);
    }

    private static void RequirePasst()
    {
        if (!File.Exists("/usr/bin/passt") && !File.Exists("/usr/local/bin/passt"))
            Assert.Ignore("passt is not installed: scripts/setup test");
    }

    // Those of this process that are passt, also if they have ended and nobody has asked how.
    private static string[] Children()
    {
        var found = new List<string>();
        foreach (string process in Directory.GetDirectories("/proc").Where(name => char.IsAsciiDigit(name[^1])))
        {
            try
            {
                string stat = File.ReadAllText(process + "/stat");
                if (stat.Contains("(passt") && stat.Split(") ")[1].Split(' ')[1] == $"{Environment.ProcessId}")
                    found.Add(process);
            }
            catch (IOException)
            {
                // It has just ended.
            }
        }
        return [.. found];
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }

    // Who has the gateway's address (RFC 826).
    private static byte[] Question =>
        [.. Enumerable.Repeat((byte)0xFF, 6), .. s_guest, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, .. s_guest, 10, 0, 2, 15, .. new byte[6], 10, 0, 2, 2, .. new byte[18]];

    private static void SendArp(StreamPort stream) => Assert.That(Send(stream, Question), Is.Positive);

    private static unsafe int Send(StreamPort stream, byte[] frame)
    {
        fixed (byte* pointer = frame)
            return stream.TrySend(0, [new IoVector((nint)pointer, 12), new IoVector((nint)pointer, (nuint)frame.Length)]);
    }

    private static void AskWithin(FrontEndRing receive, FrontEndRing transmit)
    {
        transmit.Add([.. new byte[12], .. Question]);
        bool isAnswer;
        do
        {
            byte[] frame = receive.Take().Bytes;
            isAnswer = frame.Length > 25 && frame[25] == 6;
            receive.Add([], room: 2000);
        }
        while (!isAnswer);
    }

    // What begins a connection, or a datagram, from the guest.
    private static byte[] Packet(IPAddress address, int port, bool isUdp)
    {
        if (!isUdp && address.AddressFamily == AddressFamily.InterNetwork)
            return Connect(address, port);
        bool isIpv6 = address.AddressFamily == AddressFamily.InterNetworkV6;
        byte[] from = isIpv6 ? IPAddress.Parse("fe80::77").GetAddressBytes() : [10, 0, 2, 15], to = address.GetAddressBytes();
        byte protocol = isUdp ? (byte)17 : (byte)6;
        byte[] segment = isUdp
            ? [0x0F, 0xA0, (byte)(port >> 8), (byte)port, 0, 12, 0, 0, .. "from"u8]
            : [0x0F, 0xA0, (byte)(port >> 8), (byte)port, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xFA, 0, 0, 0, 0, 0];
        BinaryPrimitives.WriteUInt16BigEndian(segment.AsSpan(isUdp ? 6 : 16), Checksum([.. from, .. to, 0, protocol, 0, (byte)segment.Length, .. segment]));
        byte[] header = isIpv6
            ? [0x60, 0, 0, 0, 0, (byte)segment.Length, protocol, 64, .. from, .. to]
            : [0x45, 0, 0, (byte)(20 + segment.Length), 0, 1, 0, 0, 64, protocol, 0, 0, .. from, .. to];
        if (!isIpv6)
            BinaryPrimitives.WriteUInt16BigEndian(header.AsSpan(10), Checksum(header));
        return [2, 0, 0, 0, 0, 2, .. s_guest, isIpv6 ? (byte)0x86 : (byte)8, isIpv6 ? (byte)0xDD : (byte)0, .. header, .. segment];
    }

    // A TCP segment (RFC 9293) that begins a connection.
    private static byte[] Connect(IPAddress address, int port)
    {
        byte[] from = [10, 0, 2, 15], to = address.GetAddressBytes();
        byte[] segment = [0x0F, 0xA0, (byte)(port >> 8), (byte)port, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xFA, 0, 0, 0, 0, 0];
        byte[] packet = [0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0, .. from, .. to];
        BinaryPrimitives.WriteUInt16BigEndian(segment.AsSpan(16), Checksum([.. from, .. to, 0, 6, 0, 20, .. segment]));
        BinaryPrimitives.WriteUInt16BigEndian(packet.AsSpan(10), Checksum(packet));
        return [2, 0, 0, 0, 0, 2, .. s_guest, 8, 0, .. packet, .. segment];
    }

    private static ushort Checksum(ReadOnlySpan<byte> bytes)
    {
        uint sum = 0;
        for (int i = 0; i < bytes.Length; i += 2)
            sum += BinaryPrimitives.ReadUInt16BigEndian(bytes[i..]);
        while (sum >> 16 != 0)
            sum = (sum & 0xFFFF) + (sum >> 16);
        return (ushort)~sum;
    }

    private static byte[] ReceiveUntil(StreamPort stream, Func<byte[], bool> isIt)
    {
        byte[] buffer = new byte[70_000];
        byte[]? found = null;
        Eventually.True(
            () =>
            {
                for (int count; found is null && (count = stream.TryReceive(0, buffer)) > 0;)
                {
                    byte[] frame = buffer[12..count];
                    found = isIt(frame) ? frame : null;
                }
                return found is not null;
            },
            () => "it does not come");
        return found!;
    }
}
