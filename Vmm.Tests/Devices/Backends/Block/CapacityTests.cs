using System.Buffers.Binary;
using NUnit.Framework;
using Vmm.Devices.Backends.Block;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.VhostUser;
using Vmm.Tests.Devices.Virtio.VhostUser;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.User.Protocol;
using Register = Vmm.Devices.Virtio.VirtioMmioRegister;

namespace Vmm.Tests.Devices.Backends.Block;

/// <summary>An image whose size changes while it is served.</summary>
public sealed class CapacityTests
{
    [Test]
    public void Size_ThatChanges_IsToldToTheFrontEnd([Values] bool grows)
    {
        using var image = new Image();
        using var device = new BlockBackend(new BlockOptions { Path = image.Path });
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(device);
        using FrontEndRing ring = frontEnd.Start(
            BlockFeatures.Flush, protocolFeatures: VhostUserProtocolFeatures.Config | VhostUserProtocolFeatures.BackendReq);
        using VhostUserConnection requests = OpenChannel(frontEnd);
        image.Resize(grows ? 2 * Image.Size : Image.Size / 2);
        using VhostUserMessage? message = requests.Receive(TimeSpan.FromSeconds(60), TimeSpan.FromSeconds(60), null);
        Assert.That(message?.Header.Request, Is.EqualTo((uint)VhostUserBackendRequest.ConfigChange));
        var config = new byte[60];
        device.ReadConfig(config);
        Assert.That(BinaryPrimitives.ReadUInt64LittleEndian(config), Is.EqualTo(grows ? 4096 : 1024));
        ring.Stop();
    }

    // QEMU drops what it is told while its guest does not use the disk.
    [Test]
    public void Size_ThatChangesWhileNoRingRuns_IsToldWhenOneDoes()
    {
        using var image = new Image();
        using var device = new BlockBackend(new BlockOptions { Path = image.Path });
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(device);
        using FrontEndRing ring = frontEnd.Start(
            BlockFeatures.Flush, protocolFeatures: VhostUserProtocolFeatures.Config | VhostUserProtocolFeatures.BackendReq);
        using VhostUserConnection requests = OpenChannel(frontEnd);
        ring.Stop();
        image.Resize(2 * Image.Size);
        device.UpdateCapacity();
        Assert.That(requests.Receive(TimeSpan.FromMilliseconds(50), TimeSpan.FromSeconds(1), null), Is.Null);
        ring.SetUp(0);
        using VhostUserMessage? message = requests.Receive(TimeSpan.FromSeconds(60), TimeSpan.FromSeconds(60), null);
        Assert.That(message?.Header.Request, Is.EqualTo((uint)VhostUserBackendRequest.ConfigChange));
        ring.Stop();
    }

    // From the file to the registers of the guest's device, by both ends of ours.
    [Test]
    public void Size_OfAnImageInAGuest_IsItsDrivers()
    {
        using var image = new Image();
        using var backend = new BlockBackend(new BlockOptions { Path = image.Path });
        string path = FakeBackend.NewPath();
        using var server = new VhostUserServer(VhostUserEndpoint.ListenOn(path), backend);
        server.Start();
        using var events = new EventLoop();
        using GuestMemory memory = GuestMemory.Create([(new(0), 1 << 20)]);
        VirtioDevice device = new BlockDeviceOptions { Peer = VhostUserMachine.PeerAt(path) }.Open(events);
        using var transport = new VirtioMmioTransport(device, memory);
        var driver = new VirtioDriver(transport);
        driver.Negotiate(VirtioFeatures.Version1);
        driver.SetUpQueue(0, 16, VhostUserMachine.AddressOf(0));
        driver.Start();
        Assert.That(driver[Register.Config], Is.EqualTo(2048));
        foreach (int size in (int[])[2 * Image.Size, 3 * Image.Size, Image.Size / 2])
        {
            image.Resize(size);
            Eventually.True(() => driver[Register.Config] == size / 512, () => $"the driver does not see {size} bytes");
        }
        Assert.That(driver[Register.InterruptStatus] & 2, Is.EqualTo(2), "a change of the configuration");
    }

    // What the back-end sends.
    private static VhostUserConnection OpenChannel(FrontEndDriver frontEnd)
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (theirs)
            Assert.That(frontEnd.Ask(VhostUserRequest.SetBackendReqFd, default, theirs), Is.Zero);
        return new VhostUserConnection(ours, "the back-end");
    }
}
