using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;
using Feature = Vmm.Vhost.User.Protocol.VhostUserProtocolFeatures;
using Request = Vmm.Vhost.User.Protocol.VhostUserRequest;

namespace Vmm.Tests.User.Backend;

/// <summary>Rings that run: requests, calls, starts and stops, in the orders of all front-ends.</summary>
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class BackendRingTests : IDisposable
{
    private const ulong Split = 0;
    private const ulong Packed = VirtioFeatures.RingPacked;
    private const ulong EventIndex = VirtioFeatures.EventIndex;
    private const ulong Indirect = VirtioFeatures.IndirectDescriptors;

    private readonly int _descriptorsBefore = OpenDescriptors.Count;
    private readonly EchoDevice _device = new();
    private readonly FrontEndDriver _frontEnd;

    public BackendRingTests() => _frontEnd = FrontEndDriver.ConnectedTo(_device);

    public void Dispose()
    {
        _frontEnd.Dispose();
        OpenDescriptors.AssertBackTo(_descriptorsBefore);
    }

    [TestCase(Split, 16)]
    [TestCase(Split | EventIndex | Indirect | VirtioFeatures.InOrder, 16)]
    [TestCase(Packed, 16)]
    [TestCase(Packed | EventIndex | Indirect | VirtioFeatures.InOrder, 16)]
    [TestCase(Packed | EventIndex, 7, Description = "a packed ring of any size")]
    public void Ring_Requests_AreAnsweredInOrderAndCalled(ulong features, int size)
    {
        using FrontEndRing ring = _frontEnd.Start(features, size);
        ring.Queue.EnableCalls();
        for (int i = 0; i < 200; i++)
        {
            ushort id = ring.Add([(byte)i, 7], 4, indirect: (features & Indirect) != 0 && i % 2 == 0);
            (ushort used, uint written, byte[] bytes) = ring.Take();
            Assert.That(ring.WaitForCall(), $"request {i}");
            ring.Queue.EnableCalls();
            Assert.That(used, Is.EqualTo(id));
            Assert.That(written, Is.EqualTo(2));
            Assert.That(bytes, Is.EqualTo(new[] { (byte)(i + 1), (byte)8 }));
        }
    }

    [TestCase(Split)]
    [TestCase(Split | EventIndex)]
    [TestCase(Packed)]
    [TestCase(Packed | EventIndex)]
    public void Ring_NoCallsWanted_GetsNone(ulong features)
    {
        using FrontEndRing ring = _frontEnd.Start(features);
        ring.Add([1], 1);
        ring.Take();
        ring.WaitForCall();
        ring.Queue.DisableCalls();
        ring.Add([1], 1);
        ring.Take();
        ring.Stop();   // all has been done by then
        Assert.That(ring.Call.Drain(), Is.Zero);
    }

    [TestCase(Split, false)]
    [TestCase(Split, true)]
    [TestCase(Packed | EventIndex, false)]
    public void Ring_ManyRequestsAtOnceByTwoRings_AreAllAnswered(ulong features, bool sharesThread)
    {
        var device = new EchoDevice();
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(device, new() { SharesThread = sharesThread });
        frontEnd.Negotiate(features);
        frontEnd.ShareMemory();
        FrontEndRing[] rings = [frontEnd.Ring(0, 64, features), frontEnd.Ring(1, 64, features)];
        foreach (FrontEndRing ring in rings)
        {
            ring.SetUp();
            ring.Enable(true);
        }
        for (int round = 0; round < 100; round++)
        {
            foreach (FrontEndRing ring in rings)
            {
                for (int i = 0; i < 32; i++)
                    ring.Add([(byte)i], 1);
            }
            foreach (FrontEndRing ring in rings)
            {
                for (int i = 0; i < 32; i++)
                    Assert.That(ring.Take().Bytes, Is.EqualTo(new[] { (byte)(i + 1) }), $"ring {ring.Index}, round {round}");
            }
        }
        foreach (FrontEndRing ring in rings)
            ring.Dispose();
    }

    [Test]
    public void Ring_KickedBeforeItIsEnabled_IsWorkedThen()
    {
        _frontEnd.Negotiate();
        _frontEnd.ShareMemory();
        using FrontEndRing ring = _frontEnd.Ring();
        ring.SetUp();
        ring.Add([1], 1);
        Assert.That(_frontEnd.Get(Request.GetFeatures), Is.Not.Zero);
        Assert.That(_device.Events, Has.None.EqualTo("start 0"), "it is not enabled");
        Assert.That(ring.Kick.Drain(), Is.Not.Zero, "nobody has taken the kick");
        // Even without the kick: a ring that starts is looked at.
        ring.Enable(true);
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 2 }));
    }

    [Test]
    public void Ring_WithoutProtocolFeatures_RunsAtOnce()
    {
        ulong offered = _frontEnd.Get(Request.GetFeatures);
        Assert.That(offered & VirtioFeatures.VhostUserProtocolFeatures, Is.Not.Zero);
        _frontEnd.Send(Request.SetOwner);
        _frontEnd.Send(Request.SetFeatures, VirtioFeatures.Version1);
        _frontEnd.Send(Request.SetMemTable, _frontEnd.MemoryTable(_frontEnd.Region), 0, _frontEnd.Memory.File);
        using FrontEndRing ring = _frontEnd.Ring();
        _frontEnd.Send(Request.SetVringNum, ring.State(16));
        _frontEnd.Send(Request.SetVringBase, ring.State(0));
        _frontEnd.Send(Request.SetVringAddr, ring.Address);
        _frontEnd.Send(Request.SetVringCall, 0UL, 0, ring.Call);
        _frontEnd.Send(Request.SetVringKick, 0UL, 0, ring.Kick);
        ring.Add([1], 1);
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 2 }));
    }

    [Test]
    public void Ring_OrderOfQemu72_Works()
    {
        // Calls, errors and enables come before features and memory, the latter for each ring again.
        _frontEnd.Get(Request.GetFeatures);
        _frontEnd.Get(Request.GetProtocolFeatures);
        _frontEnd.Send(Request.SetProtocolFeatures, (ulong)(Feature.ReplyAck | Feature.Mq | Feature.Config));
        Assert.That(_frontEnd.Get(Request.GetQueueNum), Is.EqualTo(2));
        _frontEnd.Send(Request.SetOwner);
        using FrontEndRing ring = _frontEnd.Ring();
        using var other = new EventFd();
        for (ulong i = 0; i < 2; i++)
        {
            _frontEnd.Send(Request.SetVringCall, i, 0, other);
            _frontEnd.Send(Request.SetVringErr, i, 0, other);
        }
        for (uint i = 0; i < 2; i++)
            Assert.That(_frontEnd.Ask(Request.SetVringEnable, new VringState(i, 1)), Is.Zero);
        Assert.That(_frontEnd.Ask(Request.SetFeatures, FrontEndDriver.Features), Is.Zero);
        _frontEnd.ShareMemory();
        ring.SetUp();
        Assert.That(_frontEnd.Ask(Request.SetVringEnable, ring.State(1)), Is.Zero);
        ring.Add([1], 1);
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 2 }));
    }

    [Test]
    public void Ring_OrderOfDpdk_Works()
    {
        // Calls first, features, memory, then rings out of order; stopped by ENABLE 0 and GET_VRING_BASE.
        using FrontEndRing ring = _frontEnd.Ring(), second = _frontEnd.Ring(1);
        _frontEnd.Send(Request.SetOwner);
        _frontEnd.Get(Request.GetFeatures);
        _frontEnd.Get(Request.GetProtocolFeatures);
        _frontEnd.Send(Request.SetProtocolFeatures, (ulong)(Feature.ReplyAck | Feature.Mq | Feature.Status));
        Assert.That(_frontEnd.Ask(Request.SetStatus, 0UL), Is.Zero);
        Assert.That(_frontEnd.Ask(Request.SetStatus, 3UL), Is.Zero);
        Assert.That(_frontEnd.Get(Request.GetStatus), Is.EqualTo(3));
        _frontEnd.Send(Request.SetVringCall, 1UL, 0, second.Call);
        _frontEnd.Send(Request.SetVringCall, 0UL, 0, ring.Call);
        Assert.That(_frontEnd.Ask(Request.SetFeatures, FrontEndDriver.Features), Is.Zero);
        _frontEnd.ShareMemory();
        foreach (FrontEndRing one in new[] { second, ring })
        {
            _frontEnd.Send(Request.SetVringNum, one.State(16));
            _frontEnd.Send(Request.SetVringBase, one.State(0));
            _frontEnd.Send(Request.SetVringAddr, one.Address);
            _frontEnd.Send(Request.SetVringKick, (ulong)one.Index, 0, one.Kick);
        }
        _frontEnd.Send(Request.SetVringEnable, ring.State(1));
        ring.Add([1], 1);
        ring.Take();
        _frontEnd.Send(Request.SetVringEnable, ring.State(0));
        Assert.That(ring.Stop(), Is.EqualTo(1));
        Assert.That(second.Stop(), Is.Zero);
    }

    [TestCase(Split)]
    [TestCase(Packed)]
    public void GetVringBase_StopsAndBeginsAgainThere(ulong features)
    {
        using FrontEndRing ring = _frontEnd.Start(features);
        uint next = ring.StartBase;
        for (int round = 0; round < 40; round++)
        {
            ring.Add([(byte)round], 1);
            Assert.That(ring.Take().Bytes, Is.EqualTo(new[] { (byte)(round + 1) }));
            next = ring.Stop();
            Assert.That(ring.Stop(), Is.EqualTo(next), "a stopped ring keeps it");
            ring.Add([(byte)round], 1);
            Assert.That(_frontEnd.Get(Request.GetFeatures), Is.Not.Zero);
            Assert.That(ring.Queue.TryGetUsed(out _, out _), Is.False, "a stopped ring is left alone");
            ring.SetUp(next);
            Assert.That(ring.Take().Bytes, Is.EqualTo(new[] { (byte)(round + 1) }));
        }
        Assert.That(next, Is.Not.EqualTo(ring.StartBase));
    }

    [Test]
    public void SetVringBase_PackedInOneHalf_BothBeginThere()
    {
        // As DPDK's front-end says it: the upper half, where to give back, is 0.
        _frontEnd.Negotiate(Packed);
        _frontEnd.ShareMemory();
        using FrontEndRing ring = _frontEnd.Ring(0, 16, Packed);
        ring.SetUp(1 << 15);
        ring.Enable(true);
        ring.Add([1], 1);
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 2 }));
    }

    [Test]
    public void GetVringBase_RequestsInFlight_AreCompletedFirst()
    {
        _device.Holds = true;
        using FrontEndRing ring = _frontEnd.Start();
        ushort id = ring.Add([1], 1);
        Eventually.True(() => _device.Events.Contains($"held {id}"), () => "the request was not taken");
        Assert.That(ring.Stop(), Is.EqualTo(1));
        Assert.That(ring.Queue.TryGetUsed(out ushort used, out _) && used == id);
        Assert.That(ring.WaitForCall());
    }

    [Test]
    public void SetVringEnable_Off_StopsAndKeepsTheBase()
    {
        using FrontEndRing ring = _frontEnd.Start();
        ring.Add([1], 1);
        ring.Take();
        ring.Enable(false);
        Assert.That(_device.Events, Has.Some.EqualTo("end"));
        ring.Add([2], 1);
        ring.Enable(true);
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 3 }));
        Assert.That(ring.Stop(), Is.EqualTo(2));
    }

    [Test]
    public void SetVringCall_RingRuns_TheNewOneIsCalled()
    {
        using FrontEndRing ring = _frontEnd.Start();
        using var other = new EventFd();
        Assert.That(_frontEnd.Ask(Request.SetVringCall, 0UL, other), Is.Zero);
        ring.Call.Drain();
        ring.Add([1], 1);
        ring.Take();
        ring.Stop();
        Assert.That(other.Drain(), Is.Not.Zero);
        Assert.That(ring.Call.Drain(), Is.Zero);
    }

    // What was completed before may have been told to the old one only, which nobody reads any more.
    [Test]
    public void SetVringCall_RingRuns_TheNewOneIsCalledAtOnce()
    {
        using FrontEndRing ring = _frontEnd.Start();
        ring.Add([1], 1);
        ring.Take();
        using var other = new EventFd();
        Assert.That(_frontEnd.Ask(Request.SetVringCall, 0UL, other), Is.Zero);
        Assert.That(other.Drain(), Is.Not.Zero);
    }

    [Test]
    public void SetVringKick_RingRuns_TheNewOneKicks()
    {
        using FrontEndRing ring = _frontEnd.Start();
        using var other = new EventFd();
        Assert.That(_frontEnd.Ask(Request.SetVringKick, 0UL, other), Is.Zero);
        ring.Add([1], 1, kick: false);
        other.Signal();
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 2 }));
    }

    [Test]
    public void SetVringKick_NoDescriptor_RingIsPolled()
    {
        using FrontEndRing ring = _frontEnd.Start();
        Assert.That(_frontEnd.Ask(Request.SetVringKick, VringDescriptor.NoFd), Is.Zero);
        ring.Add([1], 1, kick: false);
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 2 }));
        ring.Add([2], 1, kick: false);
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 3 }));
    }

    // The driver's last kick may have gone to the old one, and not have been seen.
    [Test]
    public void SetVringKick_RingRuns_IsLookedAt()
    {
        using FrontEndRing ring = _frontEnd.Start();
        using var other = new EventFd();
        ring.Add([1], 1);
        ring.Take();
        ring.Add([2], 1, kick: false);
        Assert.That(_frontEnd.Ask(Request.SetVringKick, 0UL, other), Is.Zero);
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 3 }));
    }

    // Three times around, with an end in the middle of a chain that the next round begins with: the next place is 0 with a wrap counter of 0, and the first descriptor is the driver's.
    [Test]
    public void SetVringEnable_PackedRingIsAtItsFirstPlaceAgain_GoesOn()
    {
        using FrontEndRing ring = _frontEnd.Start(Packed, size: 7);
        ring.Add([0]);
        ring.Take();
        for (byte i = 1; i <= 10; i++)
        {
            ring.Add([i], 1);
            Assert.That(ring.Take().Bytes, Is.EqualTo(new[] { (byte)(i + 1) }));
        }
        ring.Enable(false);
        ring.Enable(true);
        ring.Add([20], 1);
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 21 }));
        Assert.That(ring.Stop() & 0xFFFF, Is.EqualTo(2), "it was the first place");
    }

    [Test]
    public void ResetOwner_DisablesRingsAndNothingElse()
    {
        using FrontEndRing ring = _frontEnd.Start();
        Assert.That(_frontEnd.Ask(Request.ResetOwner), Is.Zero);
        ring.Add([1], 1);
        Assert.That(_frontEnd.Get(Request.GetFeatures), Is.Not.Zero);
        Assert.That(ring.Queue.TryGetUsed(out _, out _), Is.False, "a disabled ring is left alone");
        ring.Enable(true);
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 2 }));
    }

    [Test]
    public void VringKick_IsAnsweredWhenItWasSeenTo()
    {
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(new EchoDevice { Extra = Feature.InbandNotifications });
        using FrontEndRing ring = StartInband(frontEnd);
        Assert.That(frontEnd.Ask(Request.SetVringEnable, ring.State(1)), Is.Zero);
        for (byte i = 0; i < 20; i++)
        {
            ring.Add([i], 1, kick: false);
            Assert.That(frontEnd.Ask(Request.VringKick, ring.State(0)), Is.Zero);
            Assert.That(ring.Queue.TryGetUsed(out ushort id, out _), $"request {i}");
            ring.Forget(id);
        }
    }

    [Test]
    public void SetVringKick_NoDescriptorBesideMessages_RingIsPolled()
    {
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(new EchoDevice { Extra = Feature.InbandNotifications });
        using FrontEndRing ring = StartInband(frontEnd);
        Assert.That(frontEnd.Ask(Request.SetVringKick, VringDescriptor.NoFd), Is.Zero);
        Assert.That(frontEnd.Ask(Request.SetVringEnable, ring.State(1)), Is.Zero);
        for (byte i = 0; i < 3; i++)
        {
            ring.Add([i], 1, kick: false);
            Assert.That(ring.Take().Bytes, Is.EqualTo(new[] { (byte)(i + 1) }));
        }
    }

    private static FrontEndRing StartInband(FrontEndDriver frontEnd)
    {
        frontEnd.Negotiate(0, Feature.InbandNotifications | Feature.BackendReq);
        frontEnd.ShareMemory();
        FrontEndRing ring = frontEnd.Ring();
        Assert.That(frontEnd.Ask(Request.SetVringNum, ring.State(16)), Is.Zero);
        Assert.That(frontEnd.Ask(Request.SetVringBase, ring.State(0)), Is.Zero);
        Assert.That(frontEnd.Ask(Request.SetVringAddr, ring.Address), Is.Zero);
        return ring;
    }

    // An image that somebody else has, for example.
    [Test]
    public void StartRing_DeviceRefuses_IsARefusalAndCanBeTriedAgain([Values] bool byMemoryTable)
    {
        bool refuses = true;
        _device.OnStart = _ =>
        {
            if (refuses)
                throw new VhostException("somebody else has it");
        };
        _frontEnd.Negotiate();
        _frontEnd.ShareMemory();
        using FrontEndRing ring = _frontEnd.Ring();
        ring.SetUp();
        Assert.That(_frontEnd.Ask(Request.SetVringEnable, ring.State(1)), Is.EqualTo(1));
        if (byMemoryTable)
            Assert.That(_frontEnd.Ask(Request.SetMemTable, _frontEnd.MemoryTable(_frontEnd.Region), _frontEnd.Memory.File), Is.EqualTo(1));
        refuses = false;
        ring.Enable(true);
        ring.Add([1], 1);
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 2 }));
        ring.Stop();
    }

    // Other rings may wait for what it has taken: blocks of a disk, for example.
    [Test]
    public void Ring_DriverBreaksItWithRequestsInFlight_TheyAreCompleted()
    {
        _device.Holds = true;
        using FrontEndRing ring = _frontEnd.Start();
        ushort id = ring.Add([1], 1);
        Eventually.True(() => _device.Events.Contains($"held {id}"), () => "the request was not taken");
        _frontEnd.Memory.Write(ring.Queue.Layout.DriverArea + 2, (ushort)100);
        ring.Kick.Signal();
        Eventually.True(() => ring.Queue.TryGetUsed(out ushort used, out _) && used == id, () => "the request is still held");
        Assert.That(_device.Events.Count(what => what == "drain 0"), Is.EqualTo(1));
        ring.Stop();
    }

    [Test]
    public void Ring_DriverBreaksIt_StandsStillAndSaysSo()
    {
        using FrontEndRing ring = _frontEnd.Start();
        _frontEnd.Memory.Write(ring.Queue.Layout.DriverArea + 2, (ushort)100);
        ring.Kick.Signal();
        Span<PollEntry> entries = [new PollEntry(ring.Error, PollEvents.Readable)];
        Assert.That(Poll.Wait(entries, 20000), Is.EqualTo(1));
        _frontEnd.Memory.Write(ring.Queue.Layout.DriverArea + 2, (ushort)0);
        Assert.That(ring.Stop(), Is.Zero);
        // A reset, and it works again.
        ring.SetUp(0);
        ring.Add([1], 1);
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 2 }));
    }

    [Test]
    public void Ring_DriverNeverStops_OthersHaveTheirTurn()
    {
        // Whenever a request is completed there is the next: the device never finds the ring empty.
        bool isStopping = false;
        using FrontEndRing ring = _frontEnd.Start();
        _device.AfterEach = () =>
        {
            while (ring.Queue.TryGetUsed(out ushort id, out _))
                ring.Forget(id);
            if (!Volatile.Read(ref isStopping))
                ring.Add([1], 1, kick: false);
        };
        ring.Add([1], 1);
        try
        {
            for (int i = 0; i < 3; i++)
                Assert.That(_frontEnd.Ask(Request.SetVringErr, 0UL, ring.Error), Is.Zero);
        }
        finally
        {
            Volatile.Write(ref isStopping, true);
        }
        ring.Stop();
    }

    [Test]
    public void Inband_KicksAndCalls_GoByMessages()
    {
        var device = new EchoDevice { Extra = Feature.InbandNotifications };
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(device);
        frontEnd.Negotiate(0, Feature.InbandNotifications | Feature.BackendReq | Feature.ReplyAck);
        frontEnd.ShareMemory();
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        Assert.That(frontEnd.Ask(Request.SetBackendReqFd, [], theirs), Is.Zero);
        theirs.Dispose();
        using var channel = new FrontEndDriver(ours);
        using FrontEndRing ring = frontEnd.Ring();
        Assert.That(frontEnd.Ask(Request.SetVringNum, ring.State(16)), Is.Zero);
        Assert.That(frontEnd.Ask(Request.SetVringAddr, ring.Address), Is.Zero);
        Assert.That(frontEnd.Ask(Request.SetVringCall, VringDescriptor.NoFd), Is.Zero);
        ring.Enable(true);
        ring.Add([1], 1, kick: false);
        Assert.That(device.Events, Has.None.EqualTo("start 0"));
        Assert.That(frontEnd.Ask(Request.VringKick, ring.State(0)), Is.Zero, "this one starts it");
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 2 }));
        using (VhostUserMessageOf(channel, VhostUserBackendRequest.VringCall))
        {
        }
        ring.Add([2], 1, kick: false);
        Assert.That(frontEnd.Ask(Request.VringKick, ring.State(0)), Is.Zero);
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 3 }));
        // And an error.
        frontEnd.Memory.Write(ring.Queue.Layout.DriverArea + 2, (ushort)100);
        Assert.That(frontEnd.Ask(Request.VringKick, ring.State(0)), Is.Zero);
        VhostUserBackendRequest request;
        do
        {
            using Vmm.Vhost.User.VhostUserMessage message = channel.Receive();
            request = (VhostUserBackendRequest)message.Header.Request;
            Assert.That(message.Read<VringState>().Index, Is.Zero);
        }
        while (request == VhostUserBackendRequest.VringCall);
        Assert.That(request, Is.EqualTo(VhostUserBackendRequest.VringErr));
    }

    private static Vmm.Vhost.User.VhostUserMessage VhostUserMessageOf(FrontEndDriver channel, VhostUserBackendRequest request)
    {
        Vmm.Vhost.User.VhostUserMessage message = channel.Receive();
        Assert.That(message.Header.Request, Is.EqualTo((uint)request));
        return message;
    }
}
