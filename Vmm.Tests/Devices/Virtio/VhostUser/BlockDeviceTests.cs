using System.Buffers.Binary;
using NUnit.Framework;
using Vmm.Devices.Virtio.VhostUser;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.User.Protocol;
using Register = Vmm.Devices.Virtio.VirtioMmioRegister;

namespace Vmm.Tests.Devices.Virtio.VhostUser;

public sealed class BlockDeviceTests
{
    private const ulong ReadOnly = 1 << 5;
    private const ulong ConfigWce = 1 << 11;
    private const ulong MultiQueue = 1 << 12;
    private const ulong Features = FakeBackend.DefaultFeatures | ConfigWce | MultiQueue;
    private const int SpaceSize = 60;

    private readonly string _path = FakeBackend.NewPath();

    private FakeBackend Backend(ulong features = Features) => new(_path) { Features = features, Config = [.. Enumerable.Range(1, 96).Select(i => (byte)i)] };

    private VhostUserMachine Machine(Func<BlockDeviceOptions, BlockDeviceOptions>? change = null, FakeBackend? backend = null)
    {
        var options = new BlockDeviceOptions { Peer = VhostUserMachine.PeerAt(_path) };
        return new VhostUserMachine(backend ?? Backend(), change?.Invoke(options) ?? options);
    }

    [Test]
    public void Config_OfTheBackend_HasTheNumberOfQueues()
    {
        using VhostUserMachine machine = Machine(options => options with { Queues = 3 });
        byte[] expected = [.. Enumerable.Range(1, SpaceSize).Select(i => (byte)i)];
        BinaryPrimitives.WriteUInt16LittleEndian(expected.AsSpan(34), 3);
        Assert.That(machine.Config, Is.EqualTo(expected));
        Assert.That(machine.Device.QueueCount, Is.EqualTo(3));
    }

    [TestCase(64, 62U)]
    [TestCase(128, 126U)]
    [TestCase(256, 126U)]
    public void Config_LimitOfSegments_FitsTheRing(int queueSize, uint expected)
    {
        const ulong segmentLimit = 1 << 2;
        FakeBackend backend = Backend(Features | segmentLimit);
        BinaryPrimitives.WriteUInt32LittleEndian(backend.Config.AsSpan(12), 126);
        using VhostUserMachine machine = Machine(options => options with { Peer = options.Peer with { QueueSize = queueSize } }, backend);
        Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(machine.Config.AsSpan(12)), Is.EqualTo(expected));
    }

    [TestCase(1, false, Features & ~MultiQueue)]
    [TestCase(2, false, Features)]
    [TestCase(2, true, Features | ReadOnly)]
    public void Features_OfTheBackend_FitTheOptions(int queues, bool isReadOnly, ulong expected)
    {
        using VhostUserMachine machine = Machine(options => options with { Queues = queues, IsReadOnly = isReadOnly });
        const ulong own = VirtioFeatures.VhostUserProtocolFeatures | VirtioFeatures.RingPacked;
        Assert.That(machine.Device.Features, Is.EqualTo(expected & ~own));
    }

    [Test]
    public void ReadOnly_AcceptedByTheDriver_IsNotTheBackendsBusiness()
    {
        using VhostUserMachine machine = Machine(options => options with { IsReadOnly = true });
        machine.StartDriver(1, VirtioFeatures.Version1 | ReadOnly);
        Assert.That(machine.Backend.All(1, VhostUserRequest.SetFeatures).Single().Number,
            Is.EqualTo(VirtioFeatures.Version1 | VirtioFeatures.VhostUserProtocolFeatures));
        Assert.That(machine.Driver.Status & VirtioDriver.NeedsReset, Is.Zero);
    }

    [Test]
    public void Queues_BackendWithoutMultiQueue_AreRefused() => Assert.That(
        () => Machine(options => options with { Queues = 2 }, Backend(Features & ~MultiQueue)),
        Throws.InstanceOf<VhostException>().With.Message
            .EqualTo($"--disk: {_path}: the back-end has one queue (no VIRTIO_BLK_F_MQ): leave queues=2 out"));

    [Test]
    public void Backend_ForLegacyDriversOnly_IsRefused() => Assert.That(
        () => Machine(backend: Backend(Features & ~VirtioFeatures.Version1)),
        Throws.InstanceOf<VhostException>().With.Message.Contains("the back-end is one for legacy drivers (no VIRTIO_F_VERSION_1)"));

    [Test]
    public void Config_ChangedByTheBackend_InterruptsTheDriver()
    {
        using VhostUserMachine machine = Machine();
        machine.StartDriver(1);
        uint generation = machine.Driver[Register.ConfigGeneration];
        machine.Backend.Config = [.. Enumerable.Repeat((byte)7, 96)];
        Assert.That(machine.Backend.Ask(VhostUserBackendRequest.ConfigChange, []), Is.Zero);
        Eventually.True(() => machine.Driver[Register.ConfigGeneration] != generation, () => "the configuration did not change");
        Assert.That(machine.Driver[Register.Config], Is.EqualTo(0x0707_0707));
        Assert.That(machine.Driver[Register.InterruptStatus] & 2, Is.EqualTo(2));
    }

    [Test]
    public void WriteConfig_Writeback_GoesToTheBackendAndNothingElseDoes()
    {
        using VhostUserMachine machine = Machine();
        machine.StartDriver(1);
        machine.Transport.Write(Register.Config + 32, [0]);
        machine.Transport.Write(Register.Config, [9]);
        Assert.That(machine.Backend.All(1, VhostUserRequest.SetConfig).Select(said => said.Payload[^1]), Is.EqualTo(new byte[] { 0 }));
        Assert.That(machine.Config[32], Is.Zero);
        Assert.That(machine.Config[0], Is.EqualTo(1));
    }

    [Test]
    public void Reset_ByTheDriver_StopsRingsAndKeepsTheConnection()
    {
        using VhostUserMachine machine = Machine();
        for (int time = 0; time < 2; time++)
        {
            machine.StartDriver(1);
            machine.Driver.Status = 0;
        }
        VhostUserRequest[] names = machine.Backend.Names(1);
        Assert.That(names.Count(name => name == VhostUserRequest.SetVringKick), Is.EqualTo(2));
        Assert.That(names.Count(name => name == VhostUserRequest.GetVringBase), Is.EqualTo(2));
        Assert.That(names.Count(name => name == VhostUserRequest.ResetDevice), Is.EqualTo(2));
        Assert.That(machine.Backend.Connections, Is.EqualTo(1));
    }

    [Test]
    public void Backend_GoneWithoutReconnect_NeedsAResetThatDoesNotHelp()
    {
        using VhostUserMachine machine = Machine(options => options with { Peer = options.Peer with { Reconnect = false } });
        machine.StartDriver(1);
        machine.Backend.Kill();
        Eventually.True(() => (machine.Driver.Status & VirtioDriver.NeedsReset) != 0, () => "nobody told the driver");
        machine.StartDriver(1);
        Assert.That(machine.Driver.Status & VirtioDriver.FeaturesOk, Is.Zero, "the driver is told at once");
        Assert.That(machine.Backend.Connections, Is.EqualTo(1));
    }

    [Test]
    public void FeaturesOk_RefusedByTheBackend_StaysClear()
    {
        using VhostUserMachine machine = Machine();
        machine.Backend.RefusedStatus = (byte)VirtioDriver.FeaturesOk;
        machine.Driver.Negotiate(VirtioFeatures.Version1);
        Assert.That(machine.Driver.Status, Is.EqualTo(VirtioDriver.Acknowledge | VirtioDriver.Driver));
        machine.Backend.RefusedStatus = 0;
        machine.StartDriver(1);
        Assert.That(machine.Driver.Status, Is.EqualTo(VirtioDriver.Acknowledge | VirtioDriver.Driver | VirtioDriver.FeaturesOk | VirtioDriver.DriverOk));
    }

    [Test]
    public void NeedsReset_OfTheBackend_ReachesTheDriver()
    {
        using VhostUserMachine machine = Machine();
        machine.StartDriver(1);
        machine.Backend.AddedStatus = (byte)VirtioDriver.NeedsReset;
        machine.Backend.Ask(VhostUserBackendRequest.ConfigChange, []);
        Eventually.True(() => (machine.Driver.Status & VirtioDriver.NeedsReset) != 0, () => "nobody told the driver");
        Assert.That(machine.Driver[Register.InterruptStatus] & 2, Is.EqualTo(2), "a configuration interrupt");
        machine.Backend.AddedStatus = 0;
        machine.StartDriver(1);
        Assert.That(machine.Driver.Status & VirtioDriver.NeedsReset, Is.Zero);
    }

    [Test]
    public void Reset_BackendThatDoesNotStop_NeedsOtherMemory([Values] bool reconnect)
    {
        using VhostUserMachine machine = Machine(options => options with { Peer = options.Peer with { Reconnect = reconnect } });
        machine.StartDriver(1);
        machine.Memory.Write<ushort>(new(VhostUserMachine.AddressOf(0) + 0x1002), 1);   // a request that is never done
        machine.Backend.Script = (message, connection) =>
        {
            if (message.Header.Request != (uint)VhostUserRequest.GetVringBase)
                return false;
            connection.Send(message.Header.Request, VhostUserFlags.Reply, BitConverter.GetBytes(1UL << 32), [], TimeSpan.FromSeconds(10));
            return true;
        };
        machine.Driver.Status = 0;
        Assert.That(machine.Driver.Status, Is.EqualTo(VirtioDriver.NeedsReset), "the reset is not complete");
        Assert.That(machine.Transport.MayWriteToMemory);
        machine.Driver.Negotiate(VirtioFeatures.Version1);
        Assert.That(machine.Driver.Status & VirtioDriver.FeaturesOk, Is.Zero, "a driver that does not look is refused");

        using GuestMemory other = GuestMemory.Create([(new(0), 1 << 20)]);
        machine.Transport.Reset(other);
        Assert.That(machine.Driver.Status, Is.Zero);
        machine.StartDriver(1);
        Assert.That(machine.Driver.Status, Is.EqualTo(VirtioDriver.Acknowledge | VirtioDriver.Driver | VirtioDriver.FeaturesOk | VirtioDriver.DriverOk));
        Eventually.True(() => machine.Backend.All(2, VhostUserRequest.SetVringEnable).Length > 0, () => "the disk is dead");
        machine.Backend.Script = null;
        machine.Driver.Status = 0;
    }

    [Test]
    public void WriteConfig_BeforeTheDriverIsReady_IsForgottenByAReset()
    {
        using VhostUserMachine machine = Machine();
        machine.Driver.Negotiate(VirtioFeatures.Version1);
        machine.Transport.Write(Register.Config + 32, [0]);
        Assert.That(machine.Config[32], Is.Zero);
        machine.Driver.Status = 0;
        Assert.That(machine.Config[32], Is.EqualTo(33));
        Assert.That(machine.Backend.Names(1).Count(name => name == VhostUserRequest.ResetDevice), Is.EqualTo(1));
    }

    [Test]
    public void Capacity_AnotherWhenTheBackendIsBack_IsAChangedConfiguration()
    {
        using VhostUserMachine machine = Machine();
        machine.StartDriver(1);
        byte[] config = [.. machine.Backend.Config];
        config[1] = 0x77;
        config[34] = 0x66;     // the number of queues, which is ours
        machine.Backend.Config = config;
        machine.Backend.Kill();
        Eventually.True(() => machine.Config[1] == 0x77, () => "the driver is shown the capacity that was");
        Assert.That(machine.Config[34], Is.EqualTo(1));
        Eventually.True(() => (machine.Driver[Register.InterruptStatus] & 2) != 0, () => "nobody tells the driver");
        Assert.That(machine.Driver.Status & VirtioDriver.NeedsReset, Is.Zero);
        Assert.That(machine.Backend.Names(2), Does.Contain(VhostUserRequest.SetVringKick));
    }

    [Test]
    public void Config_AnotherWhenTheBackendIsBack_NeedsAResetThatHelps()
    {
        using VhostUserMachine machine = Machine();
        machine.StartDriver(1);
        byte[] config = [.. machine.Backend.Config];
        config[20] = 0x77;     // blk_size
        machine.Backend.Config = config;
        machine.Backend.Kill();
        Eventually.True(() => (machine.Driver.Status & VirtioDriver.NeedsReset) != 0, () => "nobody told the driver");
        machine.StartDriver(1);
        Assert.That(machine.Config[20], Is.EqualTo(0x77));
        Assert.That(machine.Driver.Status & VirtioDriver.NeedsReset, Is.Zero);
        Assert.That(machine.Backend.Names(2), Does.Contain(VhostUserRequest.SetVringKick));
    }

    [Test]
    public void Backend_GoneAndBack_WorksTheRingAgain()
    {
        using VhostUserMachine machine = Machine();
        machine.StartDriver(1);
        machine.Backend.Kill();
        Eventually.True(() => machine.Backend.Names(2).Contains(VhostUserRequest.SetVringKick), () => "the ring was not started again");
        Assert.That(machine.Driver.Status & VirtioDriver.NeedsReset, Is.Zero);
    }
}
