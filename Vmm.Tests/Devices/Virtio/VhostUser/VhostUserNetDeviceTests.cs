using System.Buffers.Binary;
using NUnit.Framework;
using Vmm.Devices.Net;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Net;
using Vmm.Devices.Virtio.VhostUser;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Devices.Virtio.VhostUser;

public sealed class VhostUserNetDeviceTests
{
    private const ulong Control = NetFeatures.CtrlVq | NetFeatures.Mq | NetFeatures.GuestAnnounce;

    private readonly string _path = FakeBackend.NewPath();

    private VhostUserMachine Machine(int pairs, FakeBackend? backend = null, bool reconnect = true, bool own = false) => new(own ? null : backend ?? new FakeBackend(_path), new VhostUserNetDeviceOptions
    {
        Peer = VhostUserMachine.PeerAt(_path) with { Reconnect = reconnect },
        QueuePairs = pairs,
        Mac = new MacAddress([2, 0, 0, 0, 0, 1]),
        Mtu = 1400,
    });

    private static ushort Status(VhostUserMachine machine) => BinaryPrimitives.ReadUInt16LittleEndian(machine.Config.AsSpan(6));

    private static string Enabled(VhostUserMachine machine) => string.Join(' ', machine.Backend.All(1, VhostUserRequest.SetVringEnable)
        .Select(said => $"{said.State.Index}{(said.State.Num == 1 ? '+' : '-')}"));

    [Test]
    public void Config_OfADevice_IsOurs()
    {
        using VhostUserMachine machine = Machine(2);
        Assert.That(machine.Config, Is.EqualTo(new byte[] { 2, 0, 0, 0, 0, 1, 1, 0, 2, 0, 0x78, 5 }));
        Assert.That(machine.Device.QueueCount, Is.EqualTo(5));
        Assert.That(machine.Device.Features & (NetFeatures.Mq | NetFeatures.Mtu | NetFeatures.Status | NetFeatures.CtrlGuestOffloads),
            Is.EqualTo(NetFeatures.Mq | NetFeatures.Mtu | NetFeatures.Status));
    }

    [Test]
    public void Features_OfTheSwitch_AreOfferedWhereItMustKnow()
    {
        var backend = new FakeBackend(_path) { Features = FakeBackend.DefaultFeatures | NetFeatures.Csum | NetFeatures.CtrlRxExtra };
        using VhostUserMachine machine = Machine(1, backend);
        Assert.That(machine.Device.Features & (NetFeatures.Csum | NetFeatures.GuestCsum | NetFeatures.HostTso4 | NetFeatures.CtrlRxExtra),
            Is.EqualTo(NetFeatures.Csum | (FakeBackend.DefaultFeatures & NetFeatures.Csum)));
    }

    [Test]
    public void Queues_MoreThanTheSwitchHasPairs_AreRefused() => Assert.That(
        () => Machine(2, new FakeBackend(_path) { QueueNum = 1 }),
        Throws.InstanceOf<VhostException>().With.Message.StartsWith($"--net: {_path}: has 1 pair of queues (2 rings), fewer than the 4 rings of the device"));

    [Test]
    public void Pairs_AskedForByTheDriver_AreEnabled()
    {
        using VhostUserMachine machine = Machine(2);
        machine.StartDriver(5, VirtioFeatures.Version1 | Control);
        Assert.That(Enabled(machine), Is.EqualTo("0+ 1+"));
        var device = (INetControl)machine.Device;
        Assert.That(device.TrySetQueuePairs(3), Is.False);
        Assert.That(device.TrySetQueuePairs(2));
        Assert.That(Enabled(machine), Is.EqualTo("0+ 1+ 2+ 3+"));
        Assert.That(device.TrySetQueuePairs(1));
        Assert.That(Enabled(machine), Is.EqualTo("0+ 1+ 2+ 3+ 2- 3-"));
        Assert.That(device.TrySetQueuePairs(2));
        Assert.That(Enabled(machine), Is.EqualTo("0+ 1+ 2+ 3+ 2- 3- 2+ 3+"));
    }

    // DPDK reads the MTU when the last ring of a pair starts, and never again.
    [TestCase(NetFeatures.GuestAnnounce, 0)]
    [TestCase(0UL, 1)]
    public void Start_OnEachConnection_TellsWhatTheSwitchMustKnowBeforeTheRings(ulong announce, int announcedBySwitch)
    {
        var backend = new FakeBackend(_path)
        {
            Features = FakeBackend.DefaultFeatures | NetFeatures.Mtu,
            ProtocolFeatures = FakeBackend.DefaultProtocolFeatures | VhostUserProtocolFeatures.Mtu | VhostUserProtocolFeatures.Rarp,
        };
        using VhostUserMachine machine = Machine(1, backend);
        machine.StartDriver(3, VirtioFeatures.Version1 | NetFeatures.CtrlVq | NetFeatures.Mtu | announce);
        backend.Kill();
        Eventually.True(() => backend.Names(2).Contains(VhostUserRequest.SetVringKick), () => "the rings do not run again");
        for (int connection = 1; connection <= 2; connection++)
        {
            List<VhostUserRequest> names = [.. backend.Names(connection)];
            int mtu = names.IndexOf(VhostUserRequest.NetSetMtu);
            Assert.That(mtu, Is.GreaterThan(names.IndexOf(VhostUserRequest.SetFeatures)).And.LessThan(names.IndexOf(VhostUserRequest.SetVringNum)));
            Assert.That(backend.All(connection, VhostUserRequest.NetSetMtu).Single().Number, Is.EqualTo(1400));
        }
        Assert.That(backend.Names(1), Does.Not.Contain(VhostUserRequest.SendRarp));
        Assert.That(backend.All(2, VhostUserRequest.SendRarp).Select(said => said.Number), Is.EqualTo(Enumerable.Repeat(0x0100_0000_0002UL, announcedBySwitch)));
    }

    [Test]
    public void Switch_GoneForGood_IsALinkThatIsDown()
    {
        using VhostUserMachine machine = Machine(1, reconnect: false);
        machine.StartDriver(3, VirtioFeatures.Version1 | (Control & ~NetFeatures.Mq));
        Assert.That(Status(machine), Is.EqualTo(1));
        machine.Backend.Kill();
        Eventually.True(() => (machine.Driver[VirtioMmioRegister.InterruptStatus] & 2) != 0, () => "nobody tells the driver");
        Assert.That(Status(machine), Is.Zero);
    }

    // The device has the other switch at once. But only a driver that resets the device can use it.
    [Test]
    public void Switch_AnotherThatLacksAFeature_IsALinkThatIsDownUntilTheReset()
    {
        var first = new FakeBackend(_path).Start();
        using VhostUserMachine machine = Machine(1, own: true);
        machine.StartDriver(3, VirtioFeatures.Version1 | VirtioFeatures.EventIndex);
        first.Dispose();
        using FakeBackend second = new FakeBackend(_path) { Features = FakeBackend.DefaultFeatures & ~VirtioFeatures.EventIndex }.Start();
        Eventually.True(() => (machine.Driver.Status & VirtioDriver.NeedsReset) != 0, () => "it is taken");
        lock (machine.Device.Sync)
            Assert.That(Status(machine), Is.Zero);
        machine.StartDriver(3, VirtioFeatures.Version1);
        Eventually.True(() => Status(machine) == 1, () => "the link is down for ever");
    }

    [Test]
    public void Switch_GoneAndBack_IsALinkThatWasDown()
    {
        using VhostUserMachine machine = Machine(1);
        machine.StartDriver(3, VirtioFeatures.Version1 | (Control & ~NetFeatures.Mq));
        Assert.That(Status(machine), Is.EqualTo(1));
        machine.Backend.Kill();
        Eventually.True(() => machine.Backend.Connections == 2 && Status(machine) == 3, () => $"status {Status(machine)}");
        lock (machine.Device.Sync)
            ((INetControl)machine.Device).AcknowledgeAnnounce();
        Assert.That(Status(machine), Is.EqualTo(1));
    }
}
