using System.Globalization;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Kernel;

namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>vDPA devices: vhost-vdpa with the kernel's simulator.</summary>
public class VdpaTests : DeviceTest
{
    [OneTimeSetUp]
    public void LoadSimulator()
    {
        if (VdpaSimulator.Load() is string reason)
            Assert.Ignore(reason);
    }

    [Test]
    public void Devices_DiskAndNetwork_MoveData()
    {
        VdpaSimulator disk = Keep(new VdpaSimulator("blk"));
        VdpaSimulator network = Keep(new VdpaSimulator("net"));
        VmmResult result = Boot(GuestWith(
            """
            appears() { for i in $(seq 100); do [ ! -b /dev/vda ] || return; sleep 0.1; done; }
            appears
            echo size=$(cat /sys/block/vda/size)
            head -c $((16 << 20)) /dev/urandom > /tmp/data
            echo sum=$(sha256sum < /tmp/data)
            dd if=/tmp/data of=/dev/vda bs=1M seek=3 conv=fsync 2> /dev/null
            echo LNRO0005:00 > /sys/bus/platform/drivers/virtio-mmio/unbind
            echo LNRO0005:00 > /sys/bus/platform/drivers/virtio-mmio/bind
            appears
            echo again=$(dd if=/dev/vda bs=1M skip=3 count=16 2> /dev/null | sha256sum)
            ip addr add 10.8.0.1/24 dev eth0
            ip link set eth0 up
            arping -q -c 5 -I eth0 10.8.0.9
            echo sent=$(cat /sys/class/net/eth0/statistics/tx_packets)
            echo received=$(cat /sys/class/net/eth0/statistics/rx_packets)
            """,
            "--vdpa", $"path={disk.Path}", "--vdpa", $"path={network.Path}")).WaitForEnd();

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(ValueOf(result, "size"), Is.EqualTo("262144"), "sectors of the simulator's disk");
        Assert.That(ValueOf(result, "sum"), Does.Not.StartWith(HashOfNothing));
        Assert.That(ValueOf(result, "again"), Is.EqualTo(ValueOf(result, "sum")), result.Summary);
        // The simulator's network hands back what it gets.
        Assert.That(int.Parse(ValueOf(result, "received"), CultureInfo.InvariantCulture), Is.GreaterThanOrEqualTo(5), result.Summary);
    }

    // These three use the library: the VMM says the features before each start.
    [Test]
    public void Start_WithoutFeatures_IsRefused()
    {
        VdpaSimulator disk = Keep(new VdpaSimulator("blk"));
        using var vdpa = new VhostVdpa(disk.Path);
        using var driver = new RingDriver();
        vdpa.SetMemory(driver.Memory);
        Assert.That(() => vdpa.Start([driver.Config]), Throws.TypeOf<VhostException>().With.Message.EqualTo($"{disk.Path}: has no features yet"));
    }

    [Test]
    public void Start_AfterAStop_TheDeviceKnowsTheFeaturesAgain()
    {
        VdpaSimulator network = Keep(new VdpaSimulator("net"));   // vdpa(8) shows no other kind
        using var vdpa = new VhostVdpa(network.Path);
        using var driver = new RingDriver();
        vdpa.SetMemory(driver.Memory);
        vdpa.SetFeatures(VirtioFeatures.Version1);
        for (int i = 0; i < 3; i++)
        {
            vdpa.Start([driver.Config]);
            Assert.That(network.Show(), Does.Match("negotiated_features .*VERSION_1"), $"start {i}");
            vdpa.Stop(0);
            if (i == 1)
                vdpa.WriteConfig(0, [2]);   // the device is no longer as the reset left it, and still has no features
        }
    }

    [Test]
    public void ReadConfig_OfNothing_IsNoError()
    {
        using var vdpa = new VhostVdpa(Keep(new VdpaSimulator("blk")).Path);
        Assert.That(() => vdpa.ReadConfig([]), Throws.Nothing);
    }

    [Test]
    public void Device_MoreQueuesThanItHas_FailsBeforeTheGuestBoots()
    {
        VdpaSimulator disk = Keep(new VdpaSimulator("blk"));
        VmmResult result = Boot(GuestWith("", "--vdpa", $"path={disk.Path},queues=9")).WaitForEnd();
        Assert.That(result.ExitCode, Is.EqualTo(1));
        Assert.That(result.Errors, Is.EqualTo($"vmm: --vdpa path={disk.Path}: queues=9 are more than the device has, 1\n"));
    }
}
