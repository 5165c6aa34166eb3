using NUnit.Framework;
using Vmm.Devices.Backends.Block;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Protocol;
using Feature = Vmm.Vhost.User.Protocol.VhostUserProtocolFeatures;
using Request = Vmm.Vhost.User.Protocol.VhostUserRequest;

namespace Vmm.Tests.Devices.Backends.Block;

/// <summary>How long a driver's choice of write-through holds. QEMU says it once, and not again when it connects again.</summary>
public sealed class BlockWriteCacheTests
{
    private const ulong Cache = BlockFeatures.Flush | BlockFeatures.WriteCacheSwitch;
    private const Feature ProtocolFeatures = Feature.Config | Feature.InflightShmFd | Feature.ResetDevice;

    private Image _image = null!;
    private BlockBackend _device = null!;

    [SetUp]
    public void Open()
    {
        _image = new Image();
        _device = new BlockBackend(new BlockOptions { Path = _image.Path, Queues = 2 });
    }

    [TearDown]
    public void Close()
    {
        _device.Dispose();
        _image.Dispose();
    }

    [Test]
    public void WriteThrough_ConnectionEnds_Stays()
    {
        using FrontEndDriver first = FrontEndDriver.ConnectedTo(_device);
        using FrontEndRing ring = first.Start(Cache, protocolFeatures: ProtocolFeatures);
        SetWriteback(first, 0);
        Assert.That(_device.IsWriteThrough, Is.True);
        first.Leave();
        Assert.That(_device.IsWriteThrough, Is.True, "nobody reset the device");

        using FrontEndDriver second = FrontEndDriver.ConnectedTo(_device);
        second.Negotiate(Cache, ProtocolFeatures);
        Assert.That(GetWriteback(second), Is.Zero);
        _device.Image.EndFlush(-Errnos.Eio);
        second.ShareMemory();
        using FrontEndRing again = second.Ring();
        again.SetUp();
        again.Enable(true);
        byte[] write = new byte[16 + 512];
        write[0] = (byte)BlockDriver.Out;
        again.Add(write, 1);
        Assert.That(again.Take().Bytes[0], Is.EqualTo(BlockDriver.IoError), "a flush follows each write, and flushes fail");
        again.Stop();

        Assert.That(second.Ask(Request.ResetDevice), Is.Zero);
        Assert.That(_device.IsWriteThrough, Is.False, "the driver begins anew");
    }

    [Test]
    public void WriteThrough_OtherFeatures_AreAnotherDriver()
    {
        using FrontEndDriver first = FrontEndDriver.ConnectedTo(_device);
        first.Negotiate(Cache, ProtocolFeatures);
        SetWriteback(first, 0);
        first.Leave();
        using FrontEndDriver second = FrontEndDriver.ConnectedTo(_device);
        second.Negotiate(BlockFeatures.Flush, ProtocolFeatures);
        Assert.That(_device.IsWriteThrough, Is.False);
    }

    // The process that knew what the driver chose was killed.
    [TestCase(0UL)]
    [TestCase(VirtioFeatures.RingPacked)]
    public void Start_WithTheInflightLogOfAnotherProcess_WritesThrough(ulong features)
    {
        using FrontEndDriver first = FrontEndDriver.ConnectedTo(_device);
        first.Negotiate(Cache | features, ProtocolFeatures);
        first.ShareMemory();
        first.Send(Request.GetInflightFd, new InflightPayload(0, 0, 1, 16));
        using VhostUserMessage reply = first.Receive(Request.GetInflightFd);
        InflightPayload payload = reply.Read<InflightPayload>();
        using FileDescriptor inflight = reply.TakeDescriptor()!;
        Assert.That(first.Ask(Request.SetInflightFd, payload, inflight), Is.Zero);
        using FrontEndRing ring = first.Ring(features: features);
        ring.SetUp();
        ring.Enable(true);
        Assert.That(_device.IsWriteThrough, Is.False, "a new log");
        first.Leave();

        _device.Dispose();
        _device = new BlockBackend(new BlockOptions { Path = _image.Path, Queues = 2 });
        using FrontEndDriver second = FrontEndDriver.ConnectedTo(_device, memory: first.Memory);
        second.Negotiate(Cache | features, ProtocolFeatures);
        second.ShareMemory();
        Assert.That(second.Ask(Request.SetInflightFd, payload, inflight), Is.Zero);
        using FrontEndRing again = ring.On(second);
        again.SetUp();
        again.Enable(true);
        Assert.That(_device.IsWriteThrough, Is.True);
        SetWriteback(second, 1);
        Assert.That(_device.IsWriteThrough, Is.False, "the driver says it again");
        again.Stop();
    }

    // A guest that moves here, or a front-end that keeps no log.
    [TestCase(0UL, 7U, true)]
    [TestCase(0UL, 0U, false)]
    [TestCase(VirtioFeatures.RingPacked, 0x8007_8007U, true)]
    [TestCase(VirtioFeatures.RingPacked, 0x8000U, false)]
    [TestCase(VirtioFeatures.RingPacked, 0x8000_8000U, false)]
    public void Start_WhereAnotherProcessStopped_WritesThrough(ulong features, uint position, bool expected)
    {
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(_device);
        frontEnd.Negotiate(Cache | features, ProtocolFeatures);
        frontEnd.ShareMemory();
        using FrontEndRing ring = frontEnd.Ring(features: features);
        ring.SetUp(position);
        ring.Enable(true);
        Assert.That(_device.IsWriteThrough, Is.EqualTo(expected));
    }

    [Test]
    public void Start_WhereThisProcessStopped_WritesAsBefore()
    {
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(_device);
        using FrontEndRing ring = frontEnd.Start(Cache, protocolFeatures: ProtocolFeatures);
        ring.Add(new byte[16], 513);
        ring.Take();
        uint position = ring.Stop();
        Assert.That(position, Is.EqualTo(1));
        ring.SetUp(position);
        Assert.That(_device.IsWriteThrough, Is.False, "a guest that paused");
    }

    [Test]
    public void Start_DriverThatCannotSwitch_IsNotGuessedAbout()
    {
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(_device);
        frontEnd.Negotiate(BlockFeatures.Flush, ProtocolFeatures);
        frontEnd.ShareMemory();
        using FrontEndRing ring = frontEnd.Ring();
        ring.SetUp(7);
        ring.Enable(true);
        Assert.That(_device.IsWriteThrough, Is.False);
    }

    private static void SetWriteback(FrontEndDriver frontEnd, byte value) =>
        Assert.That(frontEnd.Ask(Request.SetConfig, [.. FrontEndDriver.Bytes(new ConfigHeader(32, 1, 0)), value]), Is.Zero);

    private static byte GetWriteback(FrontEndDriver frontEnd)
    {
        frontEnd.Send(Request.GetConfig, [.. FrontEndDriver.Bytes(new ConfigHeader(32, 1, 0)), 0]);
        using VhostUserMessage reply = frontEnd.Receive(Request.GetConfig);
        return reply.Payload[ConfigHeader.WireSize];
    }
}
