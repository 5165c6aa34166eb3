using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using NUnit.Framework;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Integration.Backends;

/// <summary><c>vmm backend net --user</c>: passt, started before the back-end is confined.</summary>
public class NetUserTests : BackendTest
{
    private const int Header = 12, MaxFrames = 50;

    [SetUp]
    public void NeedPasst()
    {
        if (!File.Exists("/usr/bin/passt"))
            Assert.Ignore("passt is not installed: scripts/setup test");
    }

    [Test]
    public void Port_ConnectionFromTheHost_ComesAsAFrame()
    {
        StartWithPort(out int port);
        using (FrontEndRing ring = ConnectFrontEnd().Start())
        using (var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp))
        {
            ring.Add([], room: 2000);
            client.Connect(IPAddress.Loopback, port);
            byte[] frame = [];
            for (int i = 0; i < MaxFrames && !IsTcp(frame); i++)
            {
                if (i > 0)
                    ring.Add([], room: 2000);
                frame = ring.Take().Bytes[Header..];
            }
            Assert.That(IsTcp(frame), "it does not come");
            Assert.That((frame[36] << 8) | frame[37], Is.EqualTo(80));
        }
    }

    [TestCase(false)]
    [TestCase(true)]
    public void Passt_IsKilled_TheBackEndSaysSoAndEnds(bool hasDriver)
    {
        VmmProcess process = StartWithPort(out _);
        FrontEndDriver frontEnd = ConnectFrontEnd();
        using FrontEndRing? ring = hasDriver ? frontEnd.Start() : null;
        frontEnd.Get(Vmm.Vhost.User.Protocol.VhostUserRequest.GetFeatures);
        using Process passt = Process.GetProcesses().First(other => other.ProcessName.StartsWith("passt", StringComparison.Ordinal) && ParentOf(other.Id) == process.Id);
        passt.Kill();

        VmmResult result = process.WaitForEnd();
        Assert.That((result.ExitCode, result.Errors), Is.EqualTo((1, $"vmm: net: the wire to passt (process {passt.Id}) was closed by the other side\n")), result.Summary);
    }

    [Test]
    public void Port_InUse_IsOneLine()
    {
        using var holder = new TcpListener(IPAddress.Loopback, 0);
        holder.Start();
        VmmResult result = StartVmm(["backend", "net", "--socket-path", SocketPath, "--user", "--port", $"{((IPEndPoint)holder.LocalEndpoint).Port}:80"]).WaitForEnd();

        Assert.That(result.ExitCode, Is.EqualTo(1), result.Summary);
        Assert.That(result.Errors, Does.StartWith("vmm: --user: passt ended with status 1: ").And.Match("^[^\n]*\n$"));
    }

    private VmmProcess StartWithPort(out int port)
    {
        using (var listener = new TcpListener(IPAddress.Loopback, 0))
        {
            listener.Start();
            port = ((IPEndPoint)listener.LocalEndpoint).Port;
        }
        return StartBackend("net", "--user", "--port", $"{port}:80");
    }

    private static bool IsTcp(byte[] frame) => frame.Length > 40 && frame[12] == 8 && frame[13] == 0 && frame[23] == 6;

    private static int ParentOf(int id)
    {
        try
        {
            return int.Parse(File.ReadAllText($"/proc/{id}/stat").Split(") ")[1].Split(' ')[1], System.Globalization.CultureInfo.InvariantCulture);
        }
        catch (IOException)
        {
            return 0;
        }
    }
}
