using System.Net;
using NUnit.Framework;
using Vmm.Tests.Devices.Backends.Net;

namespace Vmm.Tests.Integration.Peers;

/// <summary>QEMU without a guest, as a front-end of our network back-end: what they agree on, and what QEMU asks for.</summary>
public class QemuNetTests : PeerTest
{
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(2);

    private int _port;

    [TestCase(1, 1)]
    [TestCase(2, 2)]
    [TestCase(3, 2)]
    [CancelAfter(300_000)]
    public void Qemu_AsManyPairsAsThereAre_BothAreContent(int has, int wants)
    {
        VmmProcess backend = StartWire(has);
        PeerProcess qemu = StartQemu(wants);
        qemu.WaitForOutput("(qemu)", s_limit);
        qemu.Send("info network\nquit\n");
        Assert.That(qemu.WaitForEnd(s_limit), Is.Zero, qemu.Text);
        Assert.That(qemu.Text, Does.Not.Contain("warning").And.Not.Contain("Failed").And.Not.Contain("not supported"), qemu.Text);
        Assert.That(qemu.Output, Does.Contain($"index={wants - 1},type=nic"));
        backend.Signal(Tmds.Linux.LibC.SIGTERM);
        Assert.That(backend.WaitForEnd().Errors, Is.Empty);
    }

    [TestCase(1, 2)]
    [TestCase(2, 3)]
    [CancelAfter(300_000)]
    public void Qemu_MorePairsThanThereAre_SaysSoAndTheBackEndServesOn(int has, int wants)
    {
        VmmProcess backend = StartWire(has);
        PeerProcess qemu = StartQemu(wants);
        Fakes.Eventually.True(() => qemu.Text.Contains($"you are asking more queues than supported: {has}", StringComparison.Ordinal), () => qemu.Text);
        qemu.Dispose();
        Qemu_AnotherOne_IsServed(has);
        backend.Signal(Tmds.Linux.LibC.SIGTERM);
        Assert.That(backend.WaitForEnd().Errors, Is.Empty);
    }

    [Test]
    [CancelAfter(300_000)]
    public void Qemu_AnnouncesItsGuestAfterAMigration_ARarpGoesOut()
    {
        StartWire(1);
        using var wire = UdpWires.Connect(new IPEndPoint(IPAddress.Loopback, _port + 1), new IPEndPoint(IPAddress.Loopback, _port));
        wire.ReceiveTimeout = (int)s_limit.TotalMilliseconds;
        PeerProcess qemu = StartQemu(1, ",mac=52:54:00:01:02:03");
        qemu.WaitForOutput("(qemu)", s_limit);
        // What it does by itself once a migration has come to its end.
        qemu.Send("announce_self\n");
        byte[] buffer = new byte[2000];
        NetBackendMessageTests.AssertIsRarp(buffer[..wire.Receive(buffer)], [0x52, 0x54, 0, 1, 2, 3]);
        qemu.Send("quit\n");
        qemu.WaitForEnd(s_limit);
        Assert.That(qemu.Text, Does.Not.Contain("RARP"), "QEMU complains");
    }

    private void Qemu_AnotherOne_IsServed(int pairs)
    {
        PeerProcess qemu = StartQemu(pairs);
        qemu.WaitForOutput("(qemu)", s_limit);
        qemu.Send("quit\n");
        Assert.That(qemu.WaitForEnd(s_limit), Is.Zero, qemu.Text);
    }

    // Pairs use ports behind each other, first the device's, then the wire's.
    private VmmProcess StartWire(int pairs)
    {
        Require("qemu-system-x86_64", "qemu-system-x86");
        _port = Random.Shared.Next(20000, 60000);
        return StartBackend("net", "--socket-udp", $"local=127.0.0.1:{_port},remote=127.0.0.1:{_port + pairs}", "--queues", $"{pairs}");
    }

    private PeerProcess StartQemu(int pairs, string options = "") => StartPeer(
        Require("qemu-system-x86_64", "qemu-system-x86"),
        "-accel", "tcg", "-machine", "q35,memory-backend=mem", "-object", "memory-backend-memfd,id=mem,size=64M,share=on", "-m", "64M",
        "-nodefaults", "-no-user-config", "-display", "none", "-monitor", "stdio",
        "-chardev", $"socket,id=net,path={SocketPath}", "-netdev", $"vhost-user,id=n,chardev=net,queues={pairs}",
        "-device", $"virtio-net-pci,netdev=n,mq={(pairs > 1 ? "on" : "off")},vectors=0,romfile={options}");
}
