using NUnit.Framework;
using Vmm.Tests.Integration.Hostile;

namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>A hostile driver of devices whose rings the host's kernel works (vhost-net, vhost-vsock). The guest is no Linux, but the host has to be one with these
/// modules, and root's.</summary>
[Category("Linux")]
public class HostileKernelTests : HostileGuestTest
{
    [OneTimeSetUp]
    public void LoadModules()
    {
        if (LinuxHost.WhyNoLinux() is string reason)
            Assert.Ignore(reason);
        if (!Environment.IsPrivilegedProcess)
            Assert.Ignore("taps and kernel modules are root's: run as root, or in the emulated KVM host");
        HostCommand.Run("modprobe", "-a", "vhost_net", "vhost_vsock", "tun");
    }

    [TestCase("badregisters", "queues")]
    [TestCase("badregisters", "rewrite")]
    [TestCase("badrings", "patterns")]
    [TestCase("badrings", "race")]
    public void Kernel_DriverAttacks_HarmsNobodyElse(string payload, string attack)
    {
        HostTap tap = Keep(new HostTap(7));
        Attack(payload, attack, 1, "--net", $"tap={tap.Name}", "--vsock", "cid=3");
    }
}
