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
    public void Arguments_Ports_AreThoseOfPasst()
    {
        string[] arguments = PasstProcess.Arguments([new(IPAddress.Loopback, 8080, 80), new(IPAddress.Any, 53, 5353, IsUdp: true)], hasDefaultRoute: true, opensHost: true);

        Assert.That(string.Join(' ', arguments), Does.StartWith("--foreground --quiet --fd 3 --address 10.0.2.15 --netmask 24 --gateway 10.0.2.2 --dns-forward 10.0.2.3")
            .And.EndWith("--tcp-ports 127.0.0.1/8080:80 --udp-ports 53:5353").And.Not.Contain("--no-map-gw"));
        Assert.That(PasstProcess.Arguments([], hasDefaultRoute: true, opensHost: false), Does.Contain("--no-map-gw"));
    }

    [TestCase("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\neth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n", true)]
    [TestCase("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\neth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n", false)]
    [TestCase("", false)]
    public void HasDefaultRoute_Table_SaysSo(string table, bool expected)
    {
        using var file = new Vmm.Tests.Boot.TempFile(System.Text.Encoding.ASCII.GetBytes(table));

        Assert.That(PasstProcess.HasDefaultRoute(file.Path), Is.EqualTo(expected));
        Assert.That(PasstProcess.Arguments([], expected, opensHost: false).Contains("lo"), Is.EqualTo(!expected));
    }

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

    private static void SendArp(StreamPort stream) => Assert.That(
        Send(stream, [.. Enumerable.Repeat((byte)0xFF, 6), .. s_guest, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, .. s_guest, 10, 0, 2, 15, .. new byte[6], 10, 0, 2, 2, .. new byte[18]]),
        Is.Positive);

    private static unsafe int Send(StreamPort stream, byte[] frame)
    {
        fixed (byte* pointer = frame)
            return stream.TrySend(0, [new IoVector((nint)pointer, 12), new IoVector((nint)pointer, (nuint)frame.Length)]);
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
