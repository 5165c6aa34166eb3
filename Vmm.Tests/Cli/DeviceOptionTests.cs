using NUnit.Framework;
using Vmm.Cli;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Net;
using Vmm.Devices.Virtio.Scsi;
using Vmm.Devices.Virtio.Vdpa;
using Vmm.Devices.Virtio.Vsock;
using Vmm.Machine;

namespace Vmm.Tests.Cli;

public class DeviceOptionTests
{
    private static IReadOnlyList<VirtioDeviceOptions> Devices(params string[] options) => Read(options).Devices;

    private static MachineConfig Read(params string[] options) =>
        RunOptionsReader.Read((RunOptions)Verbs.Parse(["run", "--kernel", "k", .. options]));

    [Test]
    public void Net_AllKeys_AreRead()
    {
        var net = (NetDeviceOptions)Devices("--net", "tap=vmtap0,mac=02:00:00:00:00:01,queues=4,queue_size=512,mtu=9000,vhost=on").Single();
        Assert.That(net.Tap, Is.EqualTo("vmtap0"));
        Assert.That($"{net.Mac}", Is.EqualTo("02:00:00:00:00:01"));
        Assert.That((net.QueuePairs, net.QueueSize, net.Mtu), Is.EqualTo((4, 512, 9000)));
    }

    [TestCase("tap")]
    [TestCase("tap,queues=1")]
    [TestCase("queues=1")]
    public void Net_NoInterface_MakesOne(string text)
    {
        var net = (NetDeviceOptions)Devices("--net", text).Single();
        Assert.That(net.Tap, Is.Null);
        Assert.That(net.Fds, Is.Empty);
        Assert.That((net.QueuePairs, net.QueueSize, net.Mtu), Is.EqualTo((1, 256, (int?)null)));
    }

    [Test]
    public void Net_Descriptors_AreAPairEach()
    {
        var net = (NetDeviceOptions)Devices("--net=fd=3:7").Single();
        Assert.That(net.Fds, Is.EqualTo(new[] { 3, 7 }));
        Assert.That(net.QueuePairs, Is.EqualTo(2));
    }

    [TestCase("--net: fd=3 is given to another --net, too: each device needs a descriptor of its own", "--net", "fd=3", "--net", "fd=4:3")]
    [TestCase("--vhost-user: fd=4 is given to --net, too: each device needs a descriptor of its own", "--net", "fd=3:4", "--vhost-user", "type=rng,fd=4")]
    [TestCase("--vhost-user: fd=3 is given to another --vhost-user, too: each device needs a descriptor of its own",
        "--vhost-user", "type=rng,fd=3", "--vhost-user", "type=net,fd=3")]
    [TestCase("--disk: fd=7 is given to --fs, too: each device needs a descriptor of its own", "--disk", "fd=7", "--fs", "tag=x,fd=7")]
    public void Descriptor_OfTwoDevices_IsRefused(string message, params string[] options) =>
        Assert.That(() => Devices(options), Throws.TypeOf<UsageException>().With.Message.EqualTo(message));

    [Test]
    public void Descriptors_OneForEachDevice_AreTaken() => Assert.That(
        Devices("--net", "fd=3:4", "--net", "fd=5", "--vhost-user", "type=rng,fd=6", "--disk", "fd=7", "--fs", "tag=x,fd=8").SelectMany(device => device.InheritedDescriptors),
        Is.EquivalentTo(new[] { 3, 4, 5, 6, 7, 8 }));

    [TestCase("tap=aninterfacename1", "--net: tap='aninterfacename1' is too long for an interface: at most 15 bytes")]
    [TestCase("tap=a/b", "--net: tap='a/b' is not the name of an interface")]
    [TestCase("tap=a%d", "--net: tap='a%d' is not the name of an interface")]
    [TestCase("tap=..", "--net: tap='..' is not the name of an interface")]
    [TestCase("tap=a,fd=3", "--net: tap='a' cannot stand beside fd=: an interface is given by name or by descriptors")]
    [TestCase("fd=2", "--net: fd='2' is not a number from 3 to 2147483647")]
    [TestCase("fd=3:3", "--net: fd='3:3' names a descriptor twice")]
    [TestCase("fd=3:x", "--net: fd='x' is not a number from 3 to 2147483647")]
    [TestCase("fd=3,queues=2", "--net: queues='2' is not the number of descriptors, 1: fd= wants one for each pair of queues")]
    [TestCase("queues=0", "--net: queues='0' is not a number from 1 to 127")]
    [TestCase("queues=128", "--net: queues='128' is not a number from 1 to 127")]
    [TestCase("queue_size=100", "--net: queue_size='100' is not a power of two")]
    [TestCase("queue_size=65536", "--net: queue_size='65536' is not a number from 2 to 32768")]
    [TestCase("mtu=67", "--net: mtu='67' is not a number from 68 to 65535")]
    [TestCase("mac=02:00", "--net: mac='02:00' is not an Ethernet address: write it as 02:00:00:12:34:56")]
    [TestCase("mac=01:00:00:00:00:00", "--net: mac='01:00:00:00:00:00' cannot be an interface's: the first byte must be even, and not all may be zero")]
    [TestCase("mac=00:00:00:00:00:00", "--net: mac='00:00:00:00:00:00' cannot be an interface's: the first byte must be even, and not all may be zero")]
    [TestCase("vhost=off", "--net: vhost='off' is not possible: packets are always the kernel's vhost-net's; leave it out")]
    [TestCase("bridge=br0", "--net: unknown key 'bridge': allowed are tap, fd, socket, mac, queues, queue_size, mtu, vhost, server, reconnect, timeout")]
    public void Net_BadValue_IsRefused(string text, string expected) => AssertRefused("--net", text, expected);

    [TestCase("cid=3", 3U)]
    [TestCase("cid=0xFFFFFFFE", 0xFFFF_FFFEU)]
    public void Vsock_Cid_IsRead(string text, uint expected) =>
        Assert.That(((VsockDeviceOptions)Devices("--vsock", text).Single()).Cid, Is.EqualTo(expected));

    [TestCase("cid=2")]
    [TestCase("cid=4294967295")]
    [TestCase("cid=-1")]
    public void Vsock_BadCid_IsRefused(string text) =>
        AssertRefused("--vsock", text, $"--vsock: cid='{text[4..]}' is not a number from 3 to 4294967294");

    [Test]
    public void Scsi_Target_IsRead()
    {
        var scsi = (ScsiDeviceOptions)Devices("--scsi", "wwpn=naa.5001405012345678,queues=2").Single();
        Assert.That((scsi.Wwpn, scsi.Queues, scsi.Tpgt), Is.EqualTo(("naa.5001405012345678", 2, (ushort)1)));
    }

    [TestCase("queues=2", "--scsi: 'queues=2' names no target: write wwpn=naa.HEX")]
    [TestCase("wwpn=naa.123", "--scsi: wwpn='naa.123' is not a port name: write naa. and 16 hexadecimal digits, as in /sys/kernel/config/target/vhost")]
    [TestCase("wwpn=naa.500140501234567x",
        "--scsi: wwpn='naa.500140501234567x' is not a port name: write naa. and 16 hexadecimal digits, as in /sys/kernel/config/target/vhost")]
    [TestCase("wwpn=naa.5001405012345678,queues=129", "--scsi: queues='129' is not a number from 1 to 128")]
    public void Scsi_BadValue_IsRefused(string text, string expected) => AssertRefused("--scsi", text, expected);

    [Test]
    public void Vdpa_Path_IsRead()
    {
        var vdpa = (VdpaDeviceOptions)Devices("--vdpa", "path=/dev/vhost-vdpa-0").Single();
        Assert.That((vdpa.Path, vdpa.Queues), Is.EqualTo(("/dev/vhost-vdpa-0", (int?)null)));
    }

    [TestCase("queues=2", "--vdpa: 'queues=2' names no device: write path=/dev/vhost-vdpa-N")]
    [TestCase("path=/dev/x,queues=0", "--vdpa: queues='0' is not a number from 1 to 256")]
    public void Vdpa_BadValue_IsRefused(string text, string expected) => AssertRefused("--vdpa", text, expected);

    [Test]
    public void Devices_SeveralOfAKind_KeepTheirOrder() => Assert.That(
        Devices("--net", "tap=a", "--vsock", "cid=3", "--net=tap=b", "--cpus", "2", "--net", "tap=c").OfType<NetDeviceOptions>().Select(net => net.Tap),
        Is.EqualTo(new[] { "a", "b", "c" }));

    [Test]
    public void Devices_ValueThatLooksLikeAnOption_IsAValue() =>
        Assert.That(Read("--cmdline", "--net", "--net", "tap=a").Kernel.CommandLine, Is.EqualTo("--net"));

    [Test]
    public void Devices_MoreThanSlots_AreRefused()
    {
        string[] options = [.. Enumerable.Range(0, 17).SelectMany(i => new[] { "--net", $"tap=t{i}" })];
        Assert.That(() => Devices(options), Throws.TypeOf<UsageException>()
            .With.Message.EqualTo("--net, --fs, --disk and the other devices: there are 17, and a machine has room for 16: leave 1 out"));
    }

    [Test]
    public void Vsock_Twice_IsRefused() => Assert.That(
        () => Devices("--vsock", "cid=3", "--vsock", "cid=4"),
        Throws.TypeOf<UsageException>().With.Message.StartsWith("--vsock: given more than once"));

    [Test]
    public void Net_WithoutValue_IsRefused() => Assert.That(
        () => Devices("--net"), Throws.TypeOf<UsageException>().With.Message.StartsWith("--net: its value is missing"));

    private static void AssertRefused(string option, string text, string expected) =>
        Assert.That(() => Devices(option, text), Throws.TypeOf<UsageException>().With.Message.EqualTo(expected));
}
