using System.Net;
using System.Text;
using NUnit.Framework;
using Vmm.Devices.Backends.Net;
using Vmm.Tests.Boot;

namespace Vmm.Tests.Devices.Backends.Net;

public sealed class PasstProgramTests
{
    private static readonly ForwardedPort[] s_ports = [new(IPAddress.Loopback, 8080, 80), new(IPAddress.Any, 53, 5353, IsUdp: true)];

    [Test]
    public void Arguments_Ports_AreThoseOfPasst()
    {
        Assert.That(string.Join(' ', PasstProgram.Arguments(s_ports, hasDefaultRoute: true, opensHost: true, fd: 3)),
            Does.StartWith("--foreground --quiet --fd 3 --address 10.0.2.15 --netmask 24 --gateway 10.0.2.2 --dns-forward 10.0.2.3")
                .And.EndWith("--tcp-ports 127.0.0.1/8080:80 --udp-ports 53:5353").And.Not.Contain("--no-map-gw"));
        Assert.That(PasstProgram.Arguments([], hasDefaultRoute: true, opensHost: false, fd: 3), Does.Contain("--no-map-gw").And.Not.Contain("--ipv4-only"));
    }

    // What the filter of the stream drops must not be there: see docs/adr/0017.
    [TestCase(true, true, false, false)]
    [TestCase(true, false, true, false)]
    [TestCase(false, true, true, true)]
    [TestCase(false, false, true, true)]
    public void VhostUserArguments_HostIsClosed_HaveNoIpv6(bool hasDefaultRoute, bool opensHost, bool isIpv4Only, bool isOnLoopback)
    {
        string[] arguments = PasstProgram.VhostUserArguments(s_ports, hasDefaultRoute, opensHost, fd: 7);

        Assert.That(string.Join(' ', arguments), Does.StartWith("--vhost-user --foreground --quiet --fd 7 ").And.Contain("--tcp-ports 127.0.0.1/8080:80 --udp-ports 53:5353"));
        Assert.That(arguments.Contains("--no-map-gw"), Is.EqualTo(!opensHost));
        Assert.That(arguments.Contains("--ipv4-only"), Is.EqualTo(isIpv4Only));
        Assert.That(arguments.Contains("lo"), Is.EqualTo(isOnLoopback));
    }

    [TestCase("\u007fELF  --vhost-user\t\tEnable vhost-user mode\n", true)]
    [TestCase("\u007fELF  -F, --fd FD\t\tUse FD as pre-opened connected socket\n", false)]
    [TestCase("", false)]
    public void KnowsVhostUser_Help_SaysSo(string contents, bool expected)
    {
        using var file = new TempFile(Encoding.ASCII.GetBytes(new string('\0', 100_000) + contents));

        Assert.That(PasstProgram.KnowsVhostUser(file.Path), Is.EqualTo(expected));
    }

    [Test]
    public void KnowsVhostUser_NoSuchFile_DoesNot()
    {
        Assert.That(PasstProgram.KnowsVhostUser("/nonexistent"), Is.False);
        Assert.That(PasstProgram.KnowsVhostUser("/dev"), Is.False);
    }
}
