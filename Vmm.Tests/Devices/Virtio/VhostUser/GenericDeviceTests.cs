using NUnit.Framework;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.VhostUser;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.User.Protocol;
using Register = Vmm.Devices.Virtio.VirtioMmioRegister;

namespace Vmm.Tests.Devices.Virtio.VhostUser;

public sealed class GenericDeviceTests
{
    private readonly string _path = FakeBackend.NewPath();

    private FakeBackend Backend => new(_path) { Config = [.. Enumerable.Range(1, 200).Select(i => (byte)i)] };

    private GenericDeviceOptions Options(VirtioDeviceType type) =>
        new() { Kind = DeviceKind.Of(type), Peer = VhostUserMachine.PeerAt(_path) };

    // VIRTIO 1.2 §5: type, queues, those of them that the back-end works, bytes of configuration.
    [TestCase(VirtioDeviceType.Rng, 1, 1, 0)]
    [TestCase(VirtioDeviceType.Console, 2, 2, 12)]
    [TestCase(VirtioDeviceType.Scsi, 3, 3, 36)]
    [TestCase(VirtioDeviceType.Gpu, 2, 2, 16)]
    [TestCase(VirtioDeviceType.Input, 2, 2, 136)]
    [TestCase(VirtioDeviceType.Vsock, 3, 2, 8)]
    [TestCase(VirtioDeviceType.Sound, 4, 4, 12)]
    [TestCase(VirtioDeviceType.I2c, 1, 1, 0)]
    [TestCase(VirtioDeviceType.Can, 3, 3, 2)]
    [TestCase(VirtioDeviceType.Gpio, 2, 2, 8)]
    [TestCase((VirtioDeviceType)99, 1, 1, 0)]
    public void Device_OfAType_HasItsShape(VirtioDeviceType type, int queues, int delegated, int configSize)
    {
        using var machine = new VhostUserMachine(Backend, Options(type));
        Assert.That(machine.Driver[Register.DeviceId], Is.EqualTo((uint)type));
        Assert.That(machine.Device.QueueCount, Is.EqualTo(queues));
        Assert.That(Enumerable.Range(0, queues).Count(machine.Device.IsDelegated), Is.EqualTo(delegated));
        Assert.That(machine.Config, Has.Length.EqualTo(configSize));
        machine.StartDriver(queues);
        Assert.That(machine.Driver.Status & VirtioDriver.NeedsReset, Is.Zero);
        Assert.That(machine.Backend.All(1, VhostUserRequest.SetVringKick), Has.Length.EqualTo(delegated));
    }

    [Test]
    public void Config_GivenByTheUser_IsInPlaceOfTheBackends()
    {
        GenericDeviceOptions options = Options(VirtioDeviceType.Vsock);
        using var machine = new VhostUserMachine(Backend, options with { Peer = options.Peer with { Config = new byte[] { 9, 0, 0, 0, 0, 0, 0, 0 } } });
        Assert.That(machine.Config, Is.EqualTo(new byte[] { 9, 0, 0, 0, 0, 0, 0, 0 }));
        Assert.That(machine.Backend.Names(1), Does.Not.Contain(VhostUserRequest.GetConfig));
    }

    // The CID, which the VMM reads, is less than that, or more.
    [TestCase(12)]
    [TestCase(2)]
    public void Config_OfAnotherSizeThanTheTypes_StartsAllTheSame(int size)
    {
        GenericDeviceOptions options = Options(VirtioDeviceType.Vsock);
        byte[] given = [9, .. new byte[size - 1]];
        using var machine = new VhostUserMachine(Backend, options with { Peer = options.Peer with { Config = given } });
        machine.StartDriver(3);
        Assert.That(machine.Driver.Status & VirtioDriver.NeedsReset, Is.Zero);
        Assert.That(machine.Config, Is.EqualTo(given));
    }

    [Test]
    public void Config_NeededAndNotThere_IsRefused() => Assert.That(
        () => new VhostUserMachine(new FakeBackend(_path) { ProtocolFeatures = VhostUserProtocolFeatures.Mq }, Options(VirtioDeviceType.Gpio)),
        Throws.InstanceOf<VhostException>().With.Message
            .EqualTo($"--vhost-user type=gpio: {_path}: has no configuration space (the protocol feature CONFIG), which the device needs"));

    [Test]
    public void Scsi_BackendWithoutConfig_HasTheUsualOne()
    {
        using var machine = new VhostUserMachine(
            new FakeBackend(_path) { ProtocolFeatures = VhostUserProtocolFeatures.Mq }, Options(VirtioDeviceType.Scsi) with { Queues = 2 });
        Assert.That(machine.Device.QueueCount, Is.EqualTo(4));
        Assert.That(BitConverter.ToUInt32(machine.Config, 0), Is.EqualTo(2), "num_queues");
        Assert.That(BitConverter.ToUInt32(machine.Config, 20), Is.EqualTo(96), "sense_size");
    }

    [TestCase(2, 0UL)]
    [TestCase(4, 2UL)]
    public void Console_SeveralPorts_NeedMoreQueues(int queues, ulong expected)
    {
        var backend = new FakeBackend(_path) { Features = FakeBackend.DefaultFeatures | 2 };
        using var machine = new VhostUserMachine(backend, Options(VirtioDeviceType.Console) with { Queues = queues });
        Assert.That(machine.Device.Features & 2, Is.EqualTo(expected));
    }

    [Test]
    public void Input_SelectorWritten_IsAnswered()
    {
        FakeBackend backend = Backend;
        backend.Script = (message, _) =>
        {
            if ((VhostUserRequest)message.Header.Request == VhostUserRequest.SetConfig)
                backend.Config = [.. Enumerable.Repeat(message.Payload[^1], 200)];
            return false;
        };
        using var machine = new VhostUserMachine(backend, Options(VirtioDeviceType.Input));
        machine.StartDriver(2);
        machine.Transport.Write(Register.Config, [3]);
        Assert.That(machine.Config, Is.All.EqualTo(3));
        machine.Transport.Write(Register.Config + 1, [4]);
        Assert.That(machine.Config, Is.All.EqualTo(4));
    }

    // VIRTIO 1.2 §5.10.6.7: the driver ends its connections, and reads the CID again.
    [TestCase(true, true)]
    [TestCase(true, false)]
    [TestCase(false, true)]
    public void Vsock_BackendGone_TellsTheDriverThatTheTransportWasReset(bool reconnect, bool hasBuffer)
    {
        GenericDeviceOptions options = Options(VirtioDeviceType.Vsock);
        FakeBackend backend = Backend;
        using var machine = new VhostUserMachine(backend, options with { Peer = options.Peer with { Reconnect = reconnect } });
        machine.StartDriver(3);
        ulong ring = VhostUserMachine.AddressOf(2);
        const ulong buffer = 0x8000;
        machine.Memory.Write(new(ring), buffer);                  // a descriptor
        machine.Memory.Write(new(ring + 8), 8U | (2UL << 32));     // of 8 bytes, for the device to write
        machine.Memory.Write(new(buffer), ulong.MaxValue);
        void Offer() => machine.Memory.Write(new(ring + 0x1000 + 2), (ushort)1);
        ushort Used() => machine.Memory.Read<ushort>(new(ring + 0x2000 + 2));
        if (hasBuffer)
            Offer();
        machine.Transport.Interrupt.Drain();
        backend.Config = [9, 0, 0, 0, 0, 0, 0, 0, .. new byte[192]];
        backend.Kill();
        if (reconnect)
            Eventually.True(() => machine.Config[0] == 9, () => "the back-end is not taken");
        if (!hasBuffer)
        {
            Assert.That(Used(), Is.Zero);
            Offer();
            machine.Driver[Register.QueueNotify] = 2;
        }
        Eventually.True(() => Used() == 1, () => "the driver hears nothing");
        Assert.That(machine.Memory.Read<ulong>(new(ring + 0x2000 + 4)), Is.EqualTo(4UL << 32), "descriptor 0, 4 bytes");
        Assert.That(machine.Memory.Read<ulong>(new(buffer)), Is.EqualTo(0xFFFF_FFFF_0000_0000));
        Eventually.True(() => machine.Transport.Interrupt.Drain() > 0, () => "there is no interrupt");
    }

    // Linux reads the CID at that event only: the one that tells of the end comes before the next back-end does.
    [TestCase(9, 2)]
    [TestCase(1, 1, Description = "the same as before")]
    public void Vsock_BackendComesBack_TellsTheDriverOfAnotherCid(byte cid, int events)
    {
        FakeBackend backend = Backend;
        backend.Config = [1, 0, 0, 0, 0, 0, 0, 0, .. new byte[192]];
        using var machine = new VhostUserMachine(backend, Options(VirtioDeviceType.Vsock));
        machine.StartDriver(3);
        ulong ring = VhostUserMachine.AddressOf(2);
        for (ulong i = 0; i < 3; i++)
        {
            machine.Memory.Write(new(ring + (16 * i)), 0x8000 + (8 * i));               // a descriptor
            machine.Memory.Write(new(ring + (16 * i) + 8), 8U | (2UL << 32));           // of 8 bytes, for the device to write
            machine.Memory.Write(new(ring + 0x1000 + 4 + (2 * i)), (ushort)i);
        }
        machine.Memory.Write(new(ring + 0x1000 + 2), (ushort)3);
        ushort Used() => machine.Memory.Read<ushort>(new(ring + 0x2000 + 2));
        backend.Config[0] = cid;
        backend.Kill();
        Eventually.True(() => backend.Connections == 2 && backend.All(2, VhostUserRequest.SetVringEnable).Length == 2, () => "the back-end is not taken");
        Eventually.True(() => Used() == events, () => $"{Used()} events");
        Assert.That(machine.Config[0], Is.EqualTo(cid));
        // It says that its configuration has changed, and it has not.
        int read = backend.All(2, VhostUserRequest.GetConfig).Length;
        backend.Ask(VhostUserBackendRequest.ConfigChange, []);
        Eventually.True(() => backend.All(2, VhostUserRequest.GetConfig).Length > read, () => "it is not read again");
        lock (machine.Device.Sync)
            Assert.That(Used(), Is.EqualTo(events));
    }

    [Test]
    public void QueueSize_OfTheUser_IsShown()
    {
        GenericDeviceOptions options = Options(VirtioDeviceType.Rng);
        using var machine = new VhostUserMachine(Backend, options with { Peer = options.Peer with { QueueSize = 512 } });
        Assert.That(machine.Driver[Register.QueueNumMax], Is.EqualTo(512));
    }
}
