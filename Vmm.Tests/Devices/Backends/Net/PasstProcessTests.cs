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
        string[] arguments = PasstProcess.Arguments([new(IPAddress.Loopback, 8080, 80), new(IPAddress.Any, 53, 5353, IsUdp: true)], hasDefaultRoute: true);

        Assert.That(string.Join(' ', arguments), Does.StartWith("--foreground --quiet --fd 3 --address 10.0.2.15 --netmask 24 --gateway 10.0.2.2 --dns-forward 10.0.2.3")
            .And.EndWith("--tcp-ports 127.0.0.1/8080:80 --udp-ports 53:5353"));
    }

    [TestCase("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\neth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n", true)]
    [TestCase("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\neth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n", false)]
    [TestCase("", false)]
    public void HasDefaultRoute_Table_SaysSo(string table, bool expected)
    {
        using var file = new Vmm.Tests.Boot.TempFile(System.Text.Encoding.ASCII.GetBytes(table));

        Assert.That(PasstProcess.HasDefaultRoute(file.Path), Is.EqualTo(expected));
        Assert.That(PasstProcess.Arguments([], expected).Contains("lo"), Is.EqualTo(!expected));
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
        if (!File.Exists("/usr/bin/passt") && !File.Exists("/usr/local/bin/passt"))
            Assert.Ignore("passt is not installed: scripts/setup test");
        return PasstProcess.Start(ports);
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }

    private static unsafe void SendArp(StreamPort stream)
    {
        byte[] frame = [.. Enumerable.Repeat((byte)0xFF, 6), .. s_guest, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, .. s_guest, 10, 0, 2, 15, .. new byte[6], 10, 0, 2, 2, .. new byte[18]];
        fixed (byte* pointer = frame)
            Assert.That(stream.TrySend(0, [new IoVector((nint)pointer, 12), new IoVector((nint)pointer, (nuint)frame.Length)]), Is.Positive);
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
