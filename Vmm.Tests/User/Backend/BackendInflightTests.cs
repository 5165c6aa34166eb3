using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Protocol;
using Feature = Vmm.Vhost.User.Protocol.VhostUserProtocolFeatures;
using Request = Vmm.Vhost.User.Protocol.VhostUserRequest;

namespace Vmm.Tests.User.Backend;

/// <summary>Requests outlive the back-end that had taken them.</summary>
public sealed class BackendInflightTests
{
    private const Feature Inflight = Feature.InflightShmFd;
    private const Feature Leave = Inflight | Feature.GetVringBaseInflight;
    private const Feature Skip = Leave | Feature.GetVringBaseSkipDrain;

    [TestCase(0UL)]
    [TestCase(VirtioFeatures.RingPacked)]
    [TestCase(VirtioFeatures.RingPacked | VirtioFeatures.EventIndex | VirtioFeatures.IndirectDescriptors)]
    public void SetInflightFd_AfterTheBackEndWasLost_RequestsAreDoneOnceInOrder(ulong features)
    {
        bool isIndirect = (features & VirtioFeatures.IndirectDescriptors) != 0;
        using var lost = new LostRequests(5, features, Inflight, add: (ring, i) => ring.Add([(byte)i], 1, isIndirect));
        Assert.That(lost.Device.Events, Has.None.EqualTo("reset"), "what the driver chose outlives the connection");
        Assert.That(lost.Device.Continued, Is.Empty);

        var next = new EchoDevice { Holds = true };
        using FrontEndRing again = lost.GiveTo(next);
        again.Add([99], 1, isIndirect);
        again.Enable(true);
        Eventually.True(() => next.Events.Count(what => what.StartsWith("held", StringComparison.Ordinal)) == 6, () => "not all were taken again");
        Assert.That(
            next.Events.Where(what => what.StartsWith("held", StringComparison.Ordinal)).Take(5),
            Is.EqualTo(lost.Ids.Select(id => $"held {id}")), "oldest first");
        Assert.That(next.Continued, Is.EqualTo(new[] { 0 }));
        next.Holds = false;
        again.Kick.Signal();
        for (int i = 0; i < 6; i++)
            Assert.That(again.Take().Bytes, Is.EqualTo(new[] { (byte)(i == 5 ? 100 : i + 1) }));
        Assert.That(again.Queue.TryGetUsed(out _, out _), Is.False, "none twice");
        Assert.That(again.Stop() & 0x7FFF, Is.EqualTo(PlaceAfter(features, isIndirect)));
    }

    // QEMU's `stop` and `cont`, while the next back-end has not yet taken again what the lost one had.
    [TestCase(0UL, Inflight)]
    [TestCase(VirtioFeatures.RingPacked, Inflight)]
    [TestCase(0UL, Inflight | Feature.GetVringBaseInflight)]
    public void Stop_BeforeAllWasTakenAgain_LosesNothing(ulong features, Feature protocolFeatures)
    {
        const int count = 5;
        using var lost = new LostRequests(count, features, protocolFeatures);
        var next = new EchoDevice { Limit = 2 };
        using FrontEndRing again = lost.GiveTo(next);
        again.Enable(true);
        for (int i = 0; i < 2; i++)
            Assert.That(again.Take().Bytes, Is.EqualTo(new[] { (byte)(i + 1) }));
        uint place = again.Stop();
        next.Limit = int.MaxValue;
        again.SetUp(place);
        again.Enable(true);
        for (int i = 2; i < count; i++)
            Assert.That(again.Take().Bytes, Is.EqualTo(new[] { (byte)(i + 1) }));
        Assert.That(again.Queue.TryGetUsed(out _, out _), Is.False, "none twice");
        again.Stop();
    }

    // A migration without the in-flight log: the next back-end has nothing but the base of the ring.
    [TestCase(0UL)]
    [TestCase(VirtioFeatures.RingPacked)]
    public void Stop_BeforeAllWasTakenAgain_FinishesWhatIsLeft(ulong features)
    {
        const int count = 5;
        using var lost = new LostRequests(count, features, Inflight);
        var next = new EchoDevice { Limit = 2 };
        using FrontEndRing again = lost.GiveTo(next);
        again.Enable(true);
        for (int i = 0; i < 2; i++)
            Assert.That(again.Take().Bytes, Is.EqualTo(new[] { (byte)(i + 1) }));
        next.Limit = int.MaxValue;   // nobody has it look again but the stop
        again.Stop();
        for (int i = 2; i < count; i++)
        {
            Assert.That(again.Queue.TryGetUsed(out _, out _), $"request {i} is left");
        }
        Assert.That(again.Queue.TryGetUsed(out _, out _), Is.False, "none twice");
    }

    // QEMU says status 0 after it has stopped the rings of a VM that moves: what they left is in the memory that moves along. It disables all rings before it stops the first.
    [Test]
    public void GetVringBaseSkipDrain_LeavesWhatIsInFlight([Values] bool pauses, [Values] bool disables)
    {
        var device = new EchoDevice { Holds = true, Leaves = true };
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(device);
        using FrontEndRing ring = StartHolding(frontEnd, device, Skip | Feature.Status | Feature.ResetDevice, out _);
        if (disables)
            ring.Enable(false);
        frontEnd.Send(Request.GetVringBaseSkipDrain, ring.State(0));
        Assert.That(frontEnd.Receive<VringState>(Request.GetVringBaseSkipDrain).Num, Is.EqualTo(1));
        Assert.That(ring.Queue.TryGetUsed(out _, out _), Is.False);
        device.Holds = false;
        if (pauses)
            Assert.That(frontEnd.Ask(Request.SetStatus, 0UL), Is.Zero);
        ring.SetUp(1);
        ring.Enable(true);
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 2 }));
    }

    // QEMU's way to stop a ring for good, or for a reset by the driver.
    [TestCase(0UL, Skip, Request.GetVringBase)]
    [TestCase(VirtioFeatures.RingPacked, Skip, Request.GetVringBase)]
    [TestCase(0UL, Skip, Request.ResetDevice)]
    [TestCase(0UL, Skip, Request.ResetOwner)]
    [TestCase(0UL, Skip, Request.SetFeatures)]
    [TestCase(0UL, Leave, Request.ResetDevice)]
    public void Disabled_ThenStopped_CompletesWhatIsInFlightAndTakesNothingNew(ulong features, Feature protocolFeatures, Request stop)
    {
        var device = new EchoDevice { Holds = true, Leaves = true };
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(device);
        using FrontEndRing ring = StartHolding(frontEnd, device, protocolFeatures | Feature.ResetDevice, out ushort id, features);
        ring.Enable(false);
        Assert.That(ring.Queue.TryGetUsed(out _, out _), Is.False);
        ring.Add([5], 1);
        switch (stop)
        {
            case Request.GetVringBase:
                uint place = features == 0 ? 1 : PackedDriverQueue.Start | 2;
                Assert.That(ring.Stop(), Is.EqualTo(features == 0 ? place : place | place << 16));
                break;
            case Request.SetFeatures:
                Assert.That(frontEnd.Ask(stop, FrontEndDriver.Features | features | VirtioFeatures.EventIndex), Is.Zero);
                break;
            default:
                Assert.That(frontEnd.Ask(stop), Is.Zero);
                break;
        }
        Assert.That(ring.Queue.TryGetUsed(out ushort used, out _) && used == id);
        Assert.That(ring.Queue.TryGetUsed(out _, out _), Is.False, "the ring is disabled");
        Assert.That(device.Events.Count(what => what == $"held {id}"), Is.EqualTo(2), "taken again");
    }

    [TestCase(0UL)]
    [TestCase(VirtioFeatures.RingPacked)]
    public void Disabled_ThenEnabled_TakesAgainWhatIsInFlight(ulong features)
    {
        var device = new EchoDevice { Holds = true, Leaves = true };
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(device);
        using FrontEndRing ring = StartHolding(frontEnd, device, Leave, out ushort id, features);
        ring.Enable(false);
        ring.Add([5], 1);
        device.Holds = false;
        frontEnd.ShareMemory();   // others may come meanwhile
        Assert.That(ring.Queue.TryGetUsed(out _, out _), Is.False);
        ring.Enable(true);
        Assert.That(ring.Take().Id, Is.EqualTo(id));
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 6 }));
        Assert.That(ring.Queue.TryGetUsed(out _, out _), Is.False, "none twice");
    }

    // The log is for the death of this process only: cloud-hypervisor saves a guest whose rings are disabled, and gives the log to nobody.
    [Test]
    public void Disabled_FrontEndThatWantsNothingLeft_CompletesWhatIsInFlight()
    {
        var device = new EchoDevice { Holds = true, Leaves = true };
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(device);
        using FrontEndRing ring = StartHolding(frontEnd, device, Inflight, out ushort id);
        ring.Enable(false);
        Assert.That(ring.Queue.TryGetUsed(out ushort used, out _) && used == id);
    }

    [Test]
    public void Disabled_AnotherLogComes_CompletesWhatTheFirstHas()
    {
        var device = new EchoDevice { Holds = true, Leaves = true };
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(device);
        using FrontEndRing ring = StartHolding(frontEnd, device, Leave, out ushort id);
        ring.Enable(false);
        InflightPayload payload = LostRequests.GetLog(frontEnd, 1, 16, out FileDescriptor file);
        using (file)
            Assert.That(frontEnd.Ask(Request.SetInflightFd, payload, file), Is.Zero);
        Assert.That(ring.Queue.TryGetUsed(out ushort used, out _) && used == id);
    }

    // The requests cannot be done. After a reset nobody wants them.
    [TestCase(Request.GetVringBase)]
    [TestCase(Request.ResetDevice)]
    public void Disabled_MemoryGoneWhenItStops_KeepsTheLogUntilAReset(Request stop)
    {
        var device = new EchoDevice { Holds = true, Leaves = true };
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(device);
        using FrontEndRing ring = StartHolding(frontEnd, device, Skip | Feature.ConfigureMemSlots | Feature.ResetDevice, out ushort id);
        ring.Enable(false);
        Assert.That(frontEnd.Ask(Request.RemMemReg, new SingleMemoryRegion(0, frontEnd.Region)), Is.Zero);
        bool isReset = stop == Request.ResetDevice;
        if (isReset)
            Assert.That(frontEnd.Ask(stop), Is.Zero);
        else
            Assert.That(ring.Stop(), Is.EqualTo(1));
        device.Holds = false;
        frontEnd.ShareMemory();
        ring.SetUp(1);
        ring.Enable(true);
        ushort next = ring.Add([5], 1);
        Assert.That(ring.Take().Id, Is.EqualTo(isReset ? next : id));
    }

    // A device that does a few at a time.
    [Test]
    public void GetVringBase_PredecessorsRequestsAreTakenAFewAtATime_CompletesAll()
    {
        const int count = 7;
        using var lost = new LostRequests(count, 0, Inflight);
        var next = new EchoDevice { Holds = true, MostHeld = 2 };
        using FrontEndRing again = lost.GiveTo(next);
        again.Enable(true);
        Assert.That(again.Stop(), Is.EqualTo(count));
        for (int i = 0; i < count; i++)
            Assert.That(again.Queue.TryGetUsed(out _, out _), $"request {i} is left");
    }

    // The driver resets its queue, or the front-end the device: it begins anew, in the same in-flight log.
    [Test]
    public void Start_AfterAStopOrAResetWithNothingInFlight_IsWhereTheFrontEndSays([Values(0UL, VirtioFeatures.RingPacked)] ulong features, [Values] bool isReset)
    {
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(new EchoDevice());
        frontEnd.Negotiate(features, isReset ? Inflight | Feature.ResetDevice : Inflight);
        frontEnd.ShareMemory();
        InflightPayload payload = LostRequests.GetLog(frontEnd, 1, 16, out FileDescriptor file);
        using FileDescriptor inflight = file;
        Assert.That(frontEnd.Ask(Request.SetInflightFd, payload, inflight), Is.Zero);
        for (int i = 0; i < 3; i++)
        {
            using FrontEndRing ring = frontEnd.Ring(0, 16, features);
            frontEnd.Memory.Slice(ring.Queue.Layout.DescriptorArea, (int)DriverQueue.AreaSize).Clear();
            ring.SetUp();
            ring.Enable(true);
            ring.Add([1], 1);
            Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 2 }));
            if (isReset)
                Assert.That(frontEnd.Ask(Request.ResetDevice), Is.Zero);
            else
                ring.Stop();
        }
    }

    // Who has another message for that means what vhost-user.rst says of this one: all requests are completed.
    [Test]
    public void GetVringBase_SkipDrainWasAgreedOn_CompletesWhatIsInFlight()
    {
        var device = new EchoDevice { Holds = true, Leaves = true };
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(device);
        using FrontEndRing ring = StartHolding(frontEnd, device, Skip, out ushort id);
        Assert.That(ring.Stop(), Is.EqualTo(1));
        Assert.That(ring.Queue.TryGetUsed(out ushort used, out _) && used == id);
    }

    // A front-end whose start fails undoes it, and comes back with the same memory.
    [TestCase(0UL)]
    [TestCase(VirtioFeatures.RingPacked)]
    public void GetVringBase_RingThatHasNotRun_KeepsWhatAPredecessorLeft(ulong features)
    {
        using var lost = new LostRequests(3, features, Inflight);
        var next = new EchoDevice();
        using FrontEndRing again = lost.GiveTo(next);
        again.Stop();
        again.SetUp();
        again.Enable(true);
        for (int i = 0; i < 3; i++)
            Assert.That(again.Take().Bytes, Is.EqualTo(new[] { (byte)(i + 1) }));
    }

    [TestCase((ushort)0, (ushort)16)]
    [TestCase((ushort)3, (ushort)16, Description = "more rings than there are")]
    [TestCase((ushort)1, (ushort)0)]
    [TestCase((ushort)1, (ushort)32769)]
    public void GetInflightFd_Impossible_GivesNone(ushort queues, ushort size)
    {
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(new EchoDevice());
        frontEnd.Negotiate(0, Inflight);
        frontEnd.Send(Request.GetInflightFd, new InflightPayload(0, 0, queues, size));
        Assert.That(frontEnd.Receive<InflightPayload>(Request.GetInflightFd).MmapSize, Is.Zero);
    }

    [TestCase(1UL << 60, 0UL)]
    [TestCase(4096UL, ulong.MaxValue - 100)]
    [TestCase(64UL, 0UL, Description = "too small")]
    [TestCase(0UL, 0UL)]
    public void SetInflightFd_NotInItsFile_IsRefused(ulong size, ulong offset)
    {
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(new EchoDevice());
        frontEnd.Negotiate(0, Inflight);
        using FileDescriptor file = MemFd.Create("inflight", 4096);
        frontEnd.Send(Request.SetInflightFd, new InflightPayload(size, offset, 1, 16), 0, file);
        Assert.That(frontEnd.IsClosed());
    }

    [Test]
    public void SetInflightFd_TwentyBytes_AreEnough()
    {
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(new EchoDevice());
        frontEnd.Negotiate(0, Inflight);
        frontEnd.Send(Request.GetInflightFd, FrontEndDriver.Bytes(new InflightPayload(0, 0, 1, 16)).AsSpan(0, 20));
        using VhostUserMessage reply = frontEnd.Receive(Request.GetInflightFd);
        Assert.That(reply.Payload.Length, Is.EqualTo(InflightPayload.WireSize));
        using FileDescriptor file = reply.TakeDescriptor()!;
        byte[] payload = reply.Payload[..20].ToArray();
        Assert.That(frontEnd.Ask(Request.SetInflightFd, payload, file), Is.Zero);
    }

    [TestCase(0UL)]
    [TestCase(VirtioFeatures.RingPacked)]
    public void Start_InflightMemoryIsNonsense_IsRefused(ulong features)
    {
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(new EchoDevice());
        frontEnd.Negotiate(features, Inflight);
        frontEnd.ShareMemory();
        using FileDescriptor file = MemFd.Create("inflight", 4096);
        using (MemoryMapping mapping = MemoryMapping.Map(file, 4096, MappingAccess.SharedReadWrite))
            Fill(mapping);
        Assert.That(frontEnd.Ask(Request.SetInflightFd, new InflightPayload(4096, 0, 1, 16), file), Is.Zero);
        using FrontEndRing ring = frontEnd.Ring(0, 16, features);
        ring.SetUp();
        Assert.That(frontEnd.Ask(Request.SetVringEnable, ring.State(1)), Is.EqualTo(1));
    }

    // A ring with a log and one request, which the device has taken.
    private static FrontEndRing StartHolding(FrontEndDriver frontEnd, EchoDevice device, Feature protocolFeatures, out ushort id, ulong features = 0)
    {
        frontEnd.Negotiate(features, protocolFeatures);
        frontEnd.ShareMemory();
        InflightPayload payload = LostRequests.GetLog(frontEnd, 1, 16, out FileDescriptor file);
        using (file)
            Assert.That(frontEnd.Ask(Request.SetInflightFd, payload, file), Is.Zero);
        FrontEndRing ring = frontEnd.Ring(features: features);
        ring.SetUp();
        ring.Enable(true);
        ushort added = id = ring.Add([1], 1);
        Eventually.True(() => device.Events.Contains($"held {added}"), () => "the request was not taken");
        return ring;
    }

    private static unsafe void Fill(MemoryMapping mapping) => new Span<byte>(mapping.Pointer, 4096).Fill(0xA5);

    // Six requests, of two descriptors each if they are not in a table.
    private static uint PlaceAfter(ulong features, bool isIndirect) =>
        (features & VirtioFeatures.RingPacked) == 0 || isIndirect ? 6U : 12U;
}
