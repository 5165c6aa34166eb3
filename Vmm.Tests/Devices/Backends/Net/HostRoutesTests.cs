using System.Text;
using NUnit.Framework;
using Vmm.Devices.Backends.Net;
using Vmm.Tests.Boot;

namespace Vmm.Tests.Devices.Backends.Net;

public sealed class HostRoutesTests
{
    private const string Loopback = "00000000000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000002 00000000 80200001       lo\n";
    private const string Unreachable = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";
    private const string Link = "fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n";
    private const string Groups = "ff000000000000000000000000000000 08 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000004 00000000 00000001     eth0\n";
    private const string Default = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000000000000000000000000000001 00000400 00000003 00000000 00000003     eth0\n";
    private const string Unique = "fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n";

    [TestCase("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\neth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n", true)]
    [TestCase("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\neth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n", false)]
    [TestCase("", false)]
    public void HasDefaultIn_Table_SaysSo(string table, bool expected)
    {
        using var file = new TempFile(Encoding.ASCII.GetBytes(table));

        Assert.That(HostRoutes.HasDefaultIn(file.Path), Is.EqualTo(expected));
        Assert.That(PasstProgram.Arguments([], expected, opensHost: false, fd: 3).Contains("lo"), Is.EqualTo(!expected));
    }

    [TestCase("", false)]
    [TestCase(Loopback + Unreachable + Link + Groups, false)]
    [TestCase(Loopback + Default, true)]
    [TestCase(Link + Unique, true)]
    [TestCase("no table\n", false)]
    public void HasIpv6In_Table_SaysSo(string table, bool expected)
    {
        using var file = new TempFile(Encoding.ASCII.GetBytes(table));

        Assert.That(HostRoutes.HasIpv6In(file.Path), Is.EqualTo(expected));
    }

    [Test]
    public void Tables_AreMissing_HaveNothing()
    {
        Assert.That(HostRoutes.HasDefaultIn("/nonexistent"), Is.False);
        Assert.That(HostRoutes.HasIpv6In("/nonexistent"), Is.False);
    }
}
