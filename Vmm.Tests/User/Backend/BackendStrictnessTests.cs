using System.Diagnostics;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.User.Protocol;
using Feature = Vmm.Vhost.User.Protocol.VhostUserProtocolFeatures;
using Request = Vmm.Vhost.User.Protocol.VhostUserRequest;

namespace Vmm.Tests.User.Backend;

/// <summary>What the protocol does not allow closes the connection, and leaves no descriptor behind; what cannot be done is refused.</summary>
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class BackendStrictnessTests : IDisposable
{
    private const Feature Everything =
        Feature.Mq | Feature.Config | Feature.ConfigureMemSlots | Feature.Status | Feature.ResetDevice | Feature.BackendReq
        | Feature.InflightShmFd | Feature.LogShmFd | Feature.Rarp | Feature.Mtu | Feature.DeviceState | Feature.Shmem
        | Feature.InbandNotifications | Feature.BackendSendFd | Feature.GetVringBaseInflight | Feature.GetVringBaseSkipDrain;

    private readonly int _descriptorsBefore = OpenDescriptors.Count;
    private readonly EchoDevice _device = new()
    {
        Extra = Feature.Rarp | Feature.Mtu | Feature.DeviceState | Feature.Shmem | Feature.InbandNotifications,
    };
    private readonly FrontEndDriver _frontEnd;
    private readonly EventFd _event = new();

    public BackendStrictnessTests() => _frontEnd = FrontEndDriver.ConnectedTo(_device);

    public void Dispose()
    {
        _frontEnd.Dispose();
        _event.Dispose();
        OpenDescriptors.AssertBackTo(_descriptorsBefore);
    }

    private static IEnumerable<Request> Known =>
        Enum.GetValues<Request>().Where(request => MessageRule.Find(request) is MessageRule rule && Everything.HasFlag(rule.Needs));

    private static IEnumerable<Request> Limited =>
        Known.Where(request => MessageRule.Find(request)!.Value.MaxSize < VhostUserHeader.MaxPayload);

    private static IEnumerable<Request> WithPayload => Known.Where(request => MessageRule.Find(request)!.Value.MinSize > 0);

    private static IEnumerable<Request> WithoutDescriptors => Known.Where(request => MessageRule.Find(request)!.Value.MaxDescriptors == 0);

    private static IEnumerable<Request> WithDescriptors => Known.Where(request => MessageRule.Find(request)!.Value.MinDescriptors > 0);

    private static IEnumerable<Request> Gated =>
        Enum.GetValues<Request>().Where(request => MessageRule.Find(request)!.Value.Needs != Feature.None);

    [TestCase(0U)]
    [TestCase(46U)]
    [TestCase(uint.MaxValue)]
    public void Message_UnknownRequest_ClosesTheConnection(uint request)
    {
        _frontEnd.Send((Request)request);
        Assert.That(_frontEnd.IsClosed());
    }

    [TestCase(0U)]
    [TestCase(2U)]
    [TestCase(3U)]
    [TestCase(1U | 4, Description = "a reply")]
    [TestCase(1U | 16, Description = "a reserved flag")]
    [TestCase(1U | 1U << 31, Description = "another")]
    public void Message_OtherVersionOrFlags_ClosesTheConnection(uint flags)
    {
        byte[] header = FrontEndDriver.Bytes(new VhostUserHeader((uint)Request.GetFeatures, (VhostUserFlags)flags, 0));
        _frontEnd.Connection.Socket.TrySend(header, []);
        Assert.That(_frontEnd.IsClosed());
    }

    [TestCase(4097U)]
    [TestCase(uint.MaxValue)]
    public void Message_HugeSize_ClosesTheConnection(uint size)
    {
        byte[] header = FrontEndDriver.Bytes(new VhostUserHeader((uint)Request.SetFeatures, VhostUserFlags.Version1, size));
        _frontEnd.Connection.Socket.TrySend(header, []);
        Assert.That(_frontEnd.IsClosed());
    }

    [TestCaseSource(nameof(Limited))]
    public void Message_TooLong_ClosesTheConnection(Request request)
    {
        MessageRule rule = MessageRule.Find(request)!.Value;
        _frontEnd.Negotiate(0, Everything);
        _frontEnd.Send(request, new byte[rule.MaxSize + 1], 0, Events(rule.MinDescriptors));
        Assert.That(_frontEnd.IsClosed());
    }

    [TestCaseSource(nameof(WithPayload))]
    public void Message_TooShort_ClosesTheConnection(Request request)
    {
        MessageRule rule = MessageRule.Find(request)!.Value;
        _frontEnd.Negotiate(0, Everything);
        _frontEnd.Send(request, new byte[rule.MinSize - 1], 0, Events(rule.MinDescriptors));
        Assert.That(_frontEnd.IsClosed());
    }

    [TestCaseSource(nameof(WithoutDescriptors))]
    public void Message_UnexpectedDescriptor_ClosesTheConnection(Request request)
    {
        MessageRule rule = MessageRule.Find(request)!.Value;
        _frontEnd.Negotiate(0, Everything);
        _frontEnd.Send(request, new byte[rule.MinSize], 0, _event);
        Assert.That(_frontEnd.IsClosed());
    }

    // The kick is a socket; the region is, and the channel, and the log's event; and an uninvited one.
    [TestCase(Request.SetVringKick, 8)]
    [TestCase(Request.AddMemReg, 40)]
    [TestCase(Request.SetBackendReqFd, 0)]
    [TestCase(Request.SetLogFd, 0)]
    [TestCase(Request.GetFeatures, 0)]
    public void Descriptor_WhoseCloseWaits_HoldsNobodyUp(Request request, byte size)
    {
        using var hostile = new HostileDescriptor();
        long start = Stopwatch.GetTimestamp();
        _frontEnd.Negotiate(0, Everything);
        hostile.SendWith(_frontEnd.Connection.Socket, [(byte)request, 0, 0, 0, 1, 0, 0, 0, size, 0, 0, 0, .. new byte[size]]);
        Assert.That(_frontEnd.IsClosed());
        _frontEnd.Leave();      // stops the server
        Assert.That(Stopwatch.GetElapsedTime(start), Is.LessThan(HostileDescriptor.Patience));
    }

    [Test]
    public void Descriptor_WhoseCloseWaitsAndThatIsNotReceived_HoldsNobodyUp()
    {
        using var hostile = new HostileDescriptor();
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (ours)
        {
            ours.TrySend([99, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], []);     // the connection is closed because of this
            hostile.SendWith(ours, [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
            long start = Stopwatch.GetTimestamp();
            using (var server = new VhostUserServer(theirs, new EchoDevice()))
                server.Run();
            Assert.That(Stopwatch.GetElapsedTime(start), Is.LessThan(HostileDescriptor.Patience));
        }
    }

    [TestCaseSource(nameof(WithDescriptors))]
    public void Message_NoDescriptor_ClosesTheConnection(Request request)
    {
        _frontEnd.Negotiate(0, Everything);
        _frontEnd.Send(request, new byte[MessageRule.Find(request)!.Value.MinSize]);
        Assert.That(_frontEnd.IsClosed());
    }

    [TestCaseSource(nameof(Gated))]
    public void Message_FeatureNotAgreedOn_ClosesTheConnection(Request request)
    {
        MessageRule rule = MessageRule.Find(request)!.Value;
        _frontEnd.Negotiate();
        _frontEnd.Send(request, new byte[rule.MinSize], 0, Events(rule.MinDescriptors));
        Assert.That(_frontEnd.IsClosed());
    }

    [TestCase(Request.IotlbMsg)]
    [TestCase(Request.GpuSetSocket)]
    public void Message_ThatNoDeviceHere_Has_ClosesTheConnection(Request request)
    {
        MessageRule rule = MessageRule.Find(request)!.Value;
        _frontEnd.Negotiate(0, Everything);
        _frontEnd.Send(request, new byte[rule.MinSize], 0, Events(rule.MinDescriptors));
        Assert.That(_frontEnd.IsClosed());
    }

    [Test]
    public void Message_TooManyDescriptors_ClosesTheConnection()
    {
        EventFd[] events = [.. Enumerable.Range(0, 32).Select(_ => new EventFd())];
        _frontEnd.Negotiate();
        byte[] header = FrontEndDriver.Bytes(new VhostUserHeader((uint)Request.SetMemTable, VhostUserFlags.Version1, 72));
        _frontEnd.Connection.Socket.TrySend(header, events);
        _frontEnd.Connection.Socket.TrySend(new byte[8], events);
        Assert.That(_frontEnd.IsClosed());
        foreach (EventFd one in events)
            one.Dispose();
    }

    [Test]
    public void Message_HalfOfIt_ClosesTheConnectionWithItsDescriptors()
    {
        byte[] header = FrontEndDriver.Bytes(new VhostUserHeader((uint)Request.SetVringKick, VhostUserFlags.Version1, 8));
        _frontEnd.Connection.Socket.TrySend(header, [_event]);
        _frontEnd.Connection.Dispose();
        Eventually.True(() => _device.Events.Contains("gone"), () => "the session has not ended");
    }

    [TestCase(Request.SetVringKick, 0x100UL, 1)]
    [TestCase(Request.SetVringKick, 0UL, 0)]
    [TestCase(Request.SetVringCall, 0x101UL, 1)]
    [TestCase(Request.SetVringCall, 1UL, 0)]
    [TestCase(Request.SetVringErr, 0x100UL, 1)]
    [TestCase(Request.SetVringErr, 0UL, 0)]
    [TestCase(Request.SetVringKick, 0x200UL, 1, Description = "an unknown flag")]
    public void VringDescriptor_FlagAndDescriptorDisagree_ClosesTheConnection(Request request, ulong value, int descriptors)
    {
        _frontEnd.Negotiate();
        _frontEnd.Send(request, value, 0, Events(descriptors));
        Assert.That(_frontEnd.IsClosed());
    }

    [Test]
    public void VringDescriptor_NoEventfd_IsRefused()
    {
        _frontEnd.Negotiate();
        Assert.That(_frontEnd.Ask(Request.SetVringKick, 0UL, _frontEnd.Memory.File), Is.EqualTo(1));
        Assert.That(_frontEnd.Get(Request.GetFeatures), Is.Not.Zero, "and one goes on");
    }

    [TestCase(Request.SetVringNum)]
    [TestCase(Request.SetVringBase)]
    [TestCase(Request.SetVringEnable)]
    public void Ring_OutOfRange_IsRefused(Request request)
    {
        _frontEnd.Negotiate();
        Assert.That(_frontEnd.Ask(request, new VringState(2, 1)), Is.EqualTo(1));
        Assert.That(_frontEnd.Ask(request, new VringState(uint.MaxValue, 1)), Is.EqualTo(1));
    }

    [TestCase(Request.SetVringKick, 2UL)]
    [TestCase(Request.SetVringCall, 255UL)]
    [TestCase(Request.SetVringErr, 2UL)]
    public void Ring_OutOfRangeWithDescriptor_IsRefused(Request request, ulong index)
    {
        _frontEnd.Negotiate();
        Assert.That(_frontEnd.Ask(request, index, _event), Is.EqualTo(1));
    }

    [Test]
    public void Refusal_NoReplyWanted_ClosesTheConnection()
    {
        _frontEnd.Negotiate();
        _frontEnd.Send(Request.SetVringNum, new VringState(9, 16));
        Assert.That(_frontEnd.IsClosed());
    }

    [Test]
    public void GetVringBase_OutOfRange_ClosesTheConnection()
    {
        _frontEnd.Negotiate();
        _frontEnd.Send(Request.GetVringBase, new VringState(2, 0));
        Assert.That(_frontEnd.IsClosed());
    }

    [TestCase(0U)]
    [TestCase(3U, Description = "no power of two")]
    [TestCase(65536U)]
    [TestCase(uint.MaxValue)]
    public void SetVringNum_ImpossibleSize_IsRefused(uint size)
    {
        _frontEnd.Negotiate();
        Assert.That(_frontEnd.Ask(Request.SetVringNum, new VringState(0, size)), Is.EqualTo(1));
    }

    [TestCase(8UL, 0UL, 0UL, 0U)]
    [TestCase(0UL, 2UL, 0UL, 0U)]
    [TestCase(0UL, 0UL, 1UL, 0U)]
    [TestCase(0UL, 0UL, 0UL, 2U, Description = "an unknown flag")]
    public void SetVringAddr_MisalignedOrUnknownFlags_ClosesTheConnection(ulong descriptor, ulong used, ulong available, uint flags)
    {
        _frontEnd.Negotiate();
        _frontEnd.ShareMemory();
        const ulong Base = FrontEndDriver.UserBase;
        _frontEnd.Send(Request.SetVringAddr, new VringAddress(0, flags, Base + descriptor, Base + used, Base + available, 0));
        Assert.That(_frontEnd.IsClosed());
    }

    [Test]
    public void SetVringAddr_BeforeMemory_IsRefused()
    {
        _frontEnd.Negotiate();
        using FrontEndRing ring = _frontEnd.Ring();
        Assert.That(_frontEnd.Ask(Request.SetVringAddr, ring.Address), Is.EqualTo(1));
    }

    [TestCase(FrontEndDriver.MemorySize, Description = "behind memory")]
    [TestCase(ulong.MaxValue, Description = "before memory")]
    public void SetVringAddr_NotInMemory_IsRefused(ulong offset)
    {
        _frontEnd.Negotiate();
        _frontEnd.ShareMemory();
        ulong address = unchecked(FrontEndDriver.UserBase + offset) & ~15UL;
        Assert.That(_frontEnd.Ask(Request.SetVringAddr, new VringAddress(0, 0, address, address, address, 0)), Is.EqualTo(1));
    }

    [Test]
    public void Start_RingAcrossTwoRegions_IsRefused()
    {
        _frontEnd.Negotiate();
        const ulong Half = FrontEndDriver.MemorySize / 2;
        byte[] table = _frontEnd.MemoryTable(
            new(FrontEndDriver.GuestBase, Half, FrontEndDriver.UserBase, 0),
            new(FrontEndDriver.GuestBase + Half, Half, FrontEndDriver.UserBase + Half, Half));
        Assert.That(_frontEnd.Ask(Request.SetMemTable, table, _frontEnd.Memory.File, _frontEnd.Memory.File), Is.Zero);
        using FrontEndRing ring = _frontEnd.Ring();
        Assert.That(_frontEnd.Ask(Request.SetVringNum, new VringState(0, 256)), Is.Zero);
        VringAddress address = ring.Address with { Descriptor = FrontEndDriver.UserBase + Half - 16 };
        Assert.That(_frontEnd.Ask(Request.SetVringAddr, address), Is.Zero);
        Assert.That(_frontEnd.Ask(Request.SetVringKick, 0UL, ring.Kick), Is.Zero);
        Assert.That(_frontEnd.Ask(Request.SetVringEnable, new VringState(0, 1)), Is.EqualTo(1));
        Assert.That(_device.Events, Has.None.EqualTo("start 0"));
    }

    [Test]
    public void SetVringEnable_NeitherOnNorOff_ClosesTheConnection()
    {
        _frontEnd.Negotiate();
        _frontEnd.Send(Request.SetVringEnable, new VringState(0, 2));
        Assert.That(_frontEnd.IsClosed());
    }

    [Test]
    public void SetVringEnable_WithoutProtocolFeatures_ClosesTheConnection()
    {
        Assert.That(_frontEnd.Get(Request.GetFeatures), Is.Not.Zero);
        _frontEnd.Send(Request.SetFeatures, VirtioFeatures.Version1);
        _frontEnd.Send(Request.SetVringEnable, new VringState(0, 1));
        Assert.That(_frontEnd.IsClosed());
    }

    [TestCase(1UL << 5)]
    [TestCase(1UL << 63)]
    [TestCase(VirtioFeatures.AccessPlatform)]
    public void SetFeatures_NotOffered_IsRefused(ulong features)
    {
        _frontEnd.Negotiate();
        Assert.That(_frontEnd.Ask(Request.SetFeatures, FrontEndDriver.Features | features), Is.EqualTo(1));
    }

    [TestCase(Feature.GpaAddresses)]
    [TestCase(Feature.PageFault)]
    [TestCase((Feature)(1UL << 40))]
    public void SetProtocolFeatures_NotOffered_ClosesTheConnection(Feature feature)
    {
        _frontEnd.Send(Request.SetProtocolFeatures, (ulong)feature);
        Assert.That(_frontEnd.IsClosed());
    }

    [TestCase(Feature.InbandNotifications | Feature.ReplyAck)]
    [TestCase(Feature.InbandNotifications | Feature.BackendReq)]
    [TestCase(Feature.GetVringBaseSkipDrain)]
    [TestCase(Feature.GetVringBaseSkipDrain | Feature.InflightShmFd)]
    public void SetProtocolFeatures_WithoutWhatTheyNeed_ClosesTheConnection(Feature features)
    {
        _frontEnd.Send(Request.SetProtocolFeatures, (ulong)features, VhostUserFlags.NeedReply);
        Assert.That(_frontEnd.IsClosed());
    }

    [TestCase(0U, 12U, 3U)]
    [TestCase(0U, 8U, 0U)]
    [TestCase(0U, 13U, 0U)]
    public void GetConfig_UnknownFlagsOrOtherSize_ClosesTheConnection(uint offset, uint size, uint flags)
    {
        _frontEnd.Negotiate(0, Feature.Config);
        _frontEnd.Send(Request.GetConfig, [.. FrontEndDriver.Bytes(new ConfigHeader(offset, size, flags)), .. new byte[12]]);
        Assert.That(_frontEnd.IsClosed());
    }

    [TestCase(8U, 1, Description = "behind the end")]
    [TestCase(6U, 4, Description = "across the end")]
    [TestCase(uint.MaxValue, 1, Description = "wraps")]
    [TestCase(0U, 4, Description = "a field that the device does not let be written")]
    public void SetConfig_NotToBeWritten_IsRefused(uint offset, int size)
    {
        _frontEnd.Negotiate(0, Feature.Config);
        byte[] message = [.. FrontEndDriver.Bytes(new ConfigHeader(offset, (uint)size, 0)), .. new byte[size]];
        Assert.That(_frontEnd.Ask(Request.SetConfig, message), Is.EqualTo(1));
        _frontEnd.Send(Request.SetConfig, message);
        Assert.That(_frontEnd.Get(Request.GetFeatures), Is.Not.Zero, "nothing depends on it: one goes on");
    }

    [Test]
    public void SetVringNum_RingRuns_IsRefused()
    {
        using FrontEndRing ring = _frontEnd.Start();
        Assert.That(_frontEnd.Ask(Request.SetVringNum, ring.State(32)), Is.EqualTo(1));
        Assert.That(_frontEnd.Ask(Request.SetVringBase, ring.State(1)), Is.EqualTo(1));
        ring.Add([1], 1);
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 2 }));
    }

    [Test]
    public void SetStatus_NoStatus_IsRefused()
    {
        _frontEnd.Negotiate(0, Feature.Status);
        Assert.That(_frontEnd.Ask(Request.SetStatus, 0x100UL), Is.EqualTo(1));
    }

    [Test]
    public void NetSetMtu_TooLarge_IsRefused()
    {
        _frontEnd.Negotiate(0, Feature.Mtu);
        Assert.That(_frontEnd.Ask(Request.NetSetMtu, 1500UL), Is.Zero);
        Assert.That(_frontEnd.Ask(Request.NetSetMtu, 9000UL), Is.EqualTo(1));
        Assert.That(_frontEnd.Ask(Request.NetSetMtu, ulong.MaxValue), Is.EqualTo(1));
    }

    private FileDescriptor[] Events(int count) => [.. Enumerable.Repeat(_event, count)];
}
