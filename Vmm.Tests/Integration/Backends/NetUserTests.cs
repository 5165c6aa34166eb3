using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Runtime.Versioning;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Integration.Backends;

/// <summary><c>vmm backend net --user</c>: passt, started before the back-end is confined.</summary>
[SupportedOSPlatform("linux")]
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

    // A passt of the test's own, in the place of the host's for these processes alone: a back-end of ours, behind the arguments of passt's.
    [Test]
    public void VhostUser_FrontEndConnects_TheProcessBecomesPasst()
    {
        string unshare = Require("unshare", "util-linux"), arguments = Path.Combine(Scratch, "arguments"), fake = Path.Combine(Scratch, "passt");
        File.WriteAllText(fake, $"""
            #!/bin/sh
            # --vhost-user
            echo "$@" > {arguments}
            exec {string.Join(' ', VmmProcess.Command)} backend net --fd "$5" --once --sandbox off --socket-udp local=127.0.0.1:45671,remote=127.0.0.1:45672

            """);
        File.SetUnixFileMode(fake, UnixFileMode.UserRead | UnixFileMode.UserExecute);
        using UnixListener listener = UnixListener.Listen(SocketPath);
        string[] command = [.. VmmProcess.Command, "backend", "net", "--fd", "3", "--once", "--user", "--vhost-user", "--port", "8080:80"];
        using var process = ChildProcess.Start(
            unshare, ["-rm", "sh", "-c", $"mount --bind {fake} /usr/bin/passt || exit 77; exec \"$@\"", "sh", .. command], listener);
        using (var frontEnd = new FrontEndDriver(UnixSocket.Connect(SocketPath)))
        {
            try
            {
                Assert.That(frontEnd.Get(Vmm.Vhost.User.Protocol.VhostUserRequest.GetFeatures), Is.Not.Zero);
            }
            catch (Vmm.Vhost.VhostException) when (process.WaitForEnd(1000) && process.End == "status 77")
            {
                Assert.Ignore("here is no user namespace in which something can be mounted");
            }
            Assert.That(File.ReadAllText(arguments), Does.Match("^--vhost-user --foreground --quiet --fd [0-9]+ .*--no-map-gw --tcp-ports 127.0.0.1/8080:80 --ipv4-only"));
            Assert.That(File.ReadAllText($"/proc/{process.Id}/cmdline").Replace('\0', ' '), Does.Contain("--socket-udp"), "the same process");
            Assert.That(process.End, Is.Null);
        }
        Assert.That(process.WaitForEnd(20_000), "it ends with its front-end");
        Assert.That(process.End, Is.EqualTo("status 0"));
    }

    [Test]
    public void VhostUser_PasstKnowsItNot_IsOneLine()
    {
        if (Vmm.Devices.Backends.Net.PasstProgram.KnowsVhostUser("/usr/bin/passt"))
            Assert.Ignore("this passt knows it");
        using UnixListener listener = UnixListener.Listen(SocketPath);
        using var process = ChildProcess.Start(VmmProcess.Command[0], [.. VmmProcess.Command.Skip(1), "backend", "net", "--fd", "3", "--once", "--user", "--vhost-user"], listener);

        Assert.That(process.WaitForEnd(20_000));
        byte[] line = new byte[1000];
        int count = process.Output.TryRead(line);
        Assert.That((process.End, System.Text.Encoding.UTF8.GetString(line, 0, count)), Is.EqualTo(("status 1",
            "vmm: --user: /usr/bin/passt knows no --vhost-user: install passt of 2024-12-11 or later, or let its frames come by a stream (vhost_user=off of --net user)\n")));
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
