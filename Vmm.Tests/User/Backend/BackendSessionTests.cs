using NUnit.Framework;
using Tmds.Linux;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.User.Protocol;
using Feature = Vmm.Vhost.User.Protocol.VhostUserProtocolFeatures;
using Request = Vmm.Vhost.User.Protocol.VhostUserRequest;

namespace Vmm.Tests.User.Backend;

/// <summary>Messages about the device as a whole, and how they are answered.</summary>
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class BackendSessionTests : IDisposable
{
    private readonly int _descriptorsBefore = OpenDescriptors.Count;
    private readonly EchoDevice _device = new() { Extra = Feature.Rarp | Feature.Mtu | Feature.DeviceState | Feature.Shmem };
    private readonly FrontEndDriver _frontEnd;

    public BackendSessionTests() => _frontEnd = FrontEndDriver.ConnectedTo(_device);

    public void Dispose()
    {
        _frontEnd.Dispose();
        OpenDescriptors.AssertBackTo(_descriptorsBefore);
    }

    [Test]
    public void GetFeatures_HasTheDevicesAndTheLibrarys()
    {
        Assert.That(_frontEnd.Get(Request.GetFeatures), Is.EqualTo(
            _device.Features | VirtioFeatures.Version1 | VirtioFeatures.IndirectDescriptors | VirtioFeatures.EventIndex
            | VirtioFeatures.RingPacked | VirtioFeatures.InOrder | VirtioFeatures.RingReset | VirtioFeatures.LogAll
            | VirtioFeatures.VhostUserProtocolFeatures));
        var features = (Feature)_frontEnd.Get(Request.GetProtocolFeatures);
        Assert.That(features.HasFlag(Feature.Config));
        Assert.That(features.HasFlag(Feature.InbandNotifications), Is.False, "the device does not want it");
        Assert.That(features & (Feature.GpaAddresses | Feature.PageFault | Feature.CrossEndian | Feature.XenMmap), Is.EqualTo(Feature.None));
    }

    [TestCase(Request.GetFeatures)]
    [TestCase(Request.GetProtocolFeatures)]
    [TestCase(Request.GetQueueNum)]
    [TestCase(Request.GetMaxMemSlots)]
    [TestCase(Request.GetStatus)]
    public void Get_NeedReplySet_IsAnsweredOnce(Request request)
    {
        _frontEnd.Negotiate(0, Feature.Mq | Feature.ConfigureMemSlots | Feature.Status);
        _frontEnd.Send(request, [], VhostUserFlags.NeedReply);
        _frontEnd.Receive<ulong>(request);
        Assert.That(_frontEnd.Ask(Request.SetOwner), Is.Zero, "the next reply is the next request's");
    }

    [Test]
    public void Message_NeedReplyWithoutReplyAck_IsNotAnswered()
    {
        _frontEnd.Send(Request.SetOwner, [], VhostUserFlags.NeedReply);
        _frontEnd.Get(Request.GetFeatures);
    }

    [Test]
    public void Message_ReplyAckWithoutGetProtocolFeatures_IsAnswered()
    {
        _frontEnd.Send(Request.SetProtocolFeatures, (ulong)Feature.ReplyAck);
        Assert.That(_frontEnd.Ask(Request.SetOwner), Is.Zero);
    }

    [Test]
    public void Message_ByteByByte_IsUnderstood()
    {
        byte[] message = [.. FrontEndDriver.Bytes(new VhostUserHeader((uint)Request.SetProtocolFeatures, VhostUserFlags.Version1, 8)),
            .. FrontEndDriver.Bytes((ulong)Feature.ReplyAck)];
        foreach (byte one in message)
        {
            Assert.That(_frontEnd.Connection.Socket.TrySend([one], []), Is.EqualTo(1));
            Thread.Yield();
        }
        Assert.That(_frontEnd.Ask(Request.SetOwner), Is.Zero);
    }

    [TestCase(0U)]
    [TestCase(1U)]
    [TestCase(2U)]
    public void GetConfig_AnyFlags_GivesWhatWasAskedFor(uint flags)
    {
        _frontEnd.Negotiate(0, Feature.Config);
        Assert.That(GetConfig(0, 8, flags), Is.EqualTo(_device.Config));
        Assert.That(GetConfig(3, 2, flags), Is.EqualTo(new byte[] { 4, 5 }), "the offset counts");
        Assert.That(GetConfig(4, 8, flags), Is.EqualTo(new byte[] { 5, 6, 7, 8, 0, 0, 0, 0 }), "behind the end is nothing");
    }

    [Test]
    public void GetConfig_HeaderAlone_IsAnswered()
    {
        _frontEnd.Negotiate(0, Feature.Config);
        _frontEnd.Send(Request.GetConfig, new ConfigHeader(0, 8, 0));
        using VhostUserMessage reply = _frontEnd.Receive(Request.GetConfig);
        Assert.That(reply.Payload[12..].ToArray(), Is.EqualTo(_device.Config));
    }

    [TestCase(uint.MaxValue, 4)]
    [TestCase(4090U, 8)]
    [TestCase(0U, 0)]
    public void GetConfig_OutOfRange_GivesNothing(uint offset, int size)
    {
        _frontEnd.Negotiate(0, Feature.Config);
        _frontEnd.Send(Request.GetConfig, [.. FrontEndDriver.Bytes(new ConfigHeader(offset, (uint)size, 0)), .. new byte[size]]);
        using VhostUserMessage reply = _frontEnd.Receive(Request.GetConfig);
        Assert.That(reply.Payload.Length, Is.Zero);
    }

    [Test]
    public void SetConfig_FieldThatMayBe_IsWritten()
    {
        _frontEnd.Negotiate(0, Feature.Config);
        byte[] message = [.. FrontEndDriver.Bytes(new ConfigHeader(4, 2, 1)), 9, 8];
        Assert.That(_frontEnd.Ask(Request.SetConfig, message), Is.Zero);
        Assert.That(GetConfig(0, 8, 0), Is.EqualTo(new byte[] { 1, 2, 3, 4, 9, 8, 7, 8 }));
    }

    [Test]
    public void SendRarp_TellsTheMac()
    {
        _frontEnd.Negotiate(0, Feature.Rarp);
        Assert.That(_frontEnd.Ask(Request.SendRarp, 0x0000_0605_0403_0201UL), Is.Zero);
        Assert.That(_device.Events, Has.Some.EqualTo("rarp 010203040506"));
    }

    [TestCase(Request.ResetDevice)]
    [TestCase(Request.ResetOwner)]
    [TestCase(Request.SetStatus)]
    public void Reset_StopsRingsAndKeepsTheConnection(Request request)
    {
        using FrontEndRing ring = _frontEnd.Start(0, 16, Feature.ResetDevice | Feature.Status);
        Assert.That(_frontEnd.Ask(request, new byte[request == Request.SetStatus ? 8 : 0]), Is.Zero);
        Assert.That(_device.Events, Has.Some.EqualTo("end"));
        ring.Add([1], 1);
        Assert.That(_frontEnd.Get(Request.GetFeatures), Is.Not.Zero);
        Assert.That(ring.Queue.TryGetUsed(out _, out _), Is.False);
        ring.SetUp(0);
        ring.Enable(true);
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 2 }));
    }

    [TestCase(Request.ResetDevice, Feature.ResetDevice)]
    [TestCase(Request.SetStatus, Feature.Status)]
    public void Reset_ThenTheSameFeatures_TellsTheDeviceOfThemAgain(Request request, Feature feature)
    {
        using FrontEndRing ring = _frontEnd.Start(0, 16, feature);
        Assert.That(_frontEnd.Ask(request, new byte[request == Request.SetStatus ? 8 : 0]), Is.Zero);
        Assert.That(_frontEnd.Ask(Request.SetFeatures, FrontEndDriver.Features), Is.Zero);
        string told = $"features 0x{FrontEndDriver.Features:x}";
        Assert.That(_device.Events.Where(what => what == "reset" || what == told), Is.EqualTo(new[] { told, "reset", told }));
    }

    // QEMU says so whenever a VM pauses.
    [Test]
    public void SetStatus_ZeroWhereThereIsResetDevice_StopsRingsAndResetsNothing()
    {
        using FrontEndRing ring = _frontEnd.Start(0, 16, Feature.ResetDevice | Feature.Status);
        Assert.That(_frontEnd.Ask(Request.SetStatus, 0UL), Is.Zero);
        Assert.That(_device.Events, Has.Some.EqualTo("end"));
        Assert.That(_device.Events, Has.None.EqualTo("reset"));
    }

    [Test]
    public void SetFeatures_OthersWhileARingRuns_StartsItAgain()
    {
        using FrontEndRing ring = _frontEnd.Start();
        Assert.That(_frontEnd.Ask(Request.SetFeatures, FrontEndDriver.Features | 1), Is.Zero);
        Assert.That(_device.Events, Is.EqualTo(new[]
        {
            $"features 0x{FrontEndDriver.Features:x}", "start 0", "drain 0", "end", $"features 0x{FrontEndDriver.Features | 1:x}", "start 0",
        }));
        ring.Add([1], 1);
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 2 }));
    }

    [Test]
    public void SetFeatures_TheSameWhileRequestsAreInFlight_ChangesNothing()
    {
        _device.Holds = true;
        using FrontEndRing ring = _frontEnd.Start();
        ushort id = ring.Add([1], 1);
        Eventually.True(() => _device.Events.Contains($"held {id}"), () => "the request was not taken");
        Assert.That(_frontEnd.Ask(Request.SetFeatures, FrontEndDriver.Features), Is.Zero);
        Assert.That(_device.Events, Has.None.EqualTo("drain 0"));
        _device.Holds = false;
        ring.Kick.Signal();
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 2 }));
    }

    [Test]
    public void GetShmemConfig_HasSizesById()
    {
        _frontEnd.Negotiate(0, Feature.Shmem);
        _frontEnd.Send(Request.GetShmemConfig);
        using VhostUserMessage reply = _frontEnd.Receive(Request.GetShmemConfig);
        Assert.That(reply.Payload.Length, Is.EqualTo(2056));
        Assert.That(reply.Read<ulong>(0), Is.EqualTo(1), "one that is not empty");
        Assert.That(reply.Read<ulong>(8), Is.Zero);
        Assert.That(reply.Read<ulong>(16), Is.EqualTo(0x10000));
    }

    [Test]
    public void DeviceState_Saved_CanBeLoaded()
    {
        _frontEnd.Negotiate(0, Feature.DeviceState);
        _device.State = [.. Enumerable.Range(0, 100).Select(i => (byte)i)];
        using var pipe = new Pipe();
        _frontEnd.Send(Request.SetDeviceStateFd, new DeviceStatePayload(0, 0), 0, pipe.Writer);
        Assert.That(_frontEnd.Receive<ulong>(Request.SetDeviceStateFd), Is.EqualTo(0x100));
        pipe.Writer.Dispose();
        byte[] saved = new byte[1000];
        int length = 0;
        while (pipe.Reader.TryRead(saved.AsSpan(length)) is int count and > 0)
            length += count;
        Assert.That(_frontEnd.Get(Request.CheckDeviceState), Is.Zero);
        Assert.That(saved[..length], Is.EqualTo(_device.State));

        _device.State = [];
        using var other = new Pipe();
        _frontEnd.Send(Request.SetDeviceStateFd, new DeviceStatePayload(1, 0), 0, other.Reader);
        Assert.That(_frontEnd.Receive<ulong>(Request.SetDeviceStateFd), Is.EqualTo(0x100));
        other.Writer.WriteAll(saved.AsSpan(0, length), "the pipe");
        other.Writer.Dispose();
        Assert.That(_frontEnd.Get(Request.CheckDeviceState), Is.Zero);
        Assert.That(_device.State, Has.Length.EqualTo(100));
    }

    [Test]
    public void DeviceState_BadOrNone_IsAnError()
    {
        _frontEnd.Negotiate(0, Feature.DeviceState);
        Assert.That(_frontEnd.Get(Request.CheckDeviceState), Is.Not.Zero, "nothing was transferred");
        using var pipe = new Pipe();
        _frontEnd.Send(Request.SetDeviceStateFd, new DeviceStatePayload(2, 0), 0, pipe.Reader);
        Assert.That(_frontEnd.Receive<ulong>(Request.SetDeviceStateFd), Is.EqualTo(0x101), "an unknown direction");
        _frontEnd.Send(Request.SetDeviceStateFd, new DeviceStatePayload(1, 0), 0, pipe.Reader);
        Assert.That(_frontEnd.Receive<ulong>(Request.SetDeviceStateFd), Is.EqualTo(0x100));
        pipe.Writer.WriteAll(new byte[101], "the pipe");
        pipe.Writer.Dispose();
        Assert.That(_frontEnd.Get(Request.CheckDeviceState), Is.Not.Zero, "the device does not take it");
    }

    // Memory for the state, or a descriptor for the transfer. The front-end waits for the pipe's end, and goes on with the device.
    [TestCase(false)]
    [TestCase(true)]
    public void DeviceState_Shortage_IsAnErrorAndThePipeIsClosed(bool isOfDescriptors)
    {
        _frontEnd.Negotiate(0, Feature.DeviceState);
        using var pipe = new Pipe();
        ulong limit = ResourceLimit.OpenFiles.Current!.Value;
        // What is collected gives descriptors back.
        GC.Collect();
        GC.WaitForPendingFinalizers();
        _device.OnCall = name =>
        {
            if (name != nameof(_device.SaveState))
                return;
            if (!isOfDescriptors)
                throw new InsufficientMemoryException("on purpose");
            using var next = new EventFd();
            ResourceLimit.OpenFiles.TrySet((ulong)next.Number);
        };
        try
        {
            _frontEnd.Send(Request.SetDeviceStateFd, new DeviceStatePayload(0, 0), 0, pipe.Writer);
            Assert.That(_frontEnd.Receive<ulong>(Request.SetDeviceStateFd), Is.EqualTo(0x101));
        }
        finally
        {
            ResourceLimit.OpenFiles.TrySet(limit);
        }
        pipe.Writer.Dispose();
        Assert.That(Poll.Wait([new PollEntry(pipe.Reader, PollEvents.Readable)], 10_000), Is.EqualTo(1), "nobody else has the other end, once the closer has closed it");
        Assert.That(pipe.Reader.TryRead(new byte[1]), Is.Zero);
        Assert.That(_frontEnd.Get(Request.CheckDeviceState), Is.Not.Zero);
        Assert.That(_frontEnd.Get(Request.GetFeatures), Is.Not.Zero, "it serves on");
    }

    [Test]
    public void DeviceState_LoadedWhenARingRuns_IsAnError()
    {
        using FrontEndRing ring = _frontEnd.Start(protocolFeatures: Feature.DeviceState);
        ring.Stop();
        byte[] before = _device.State!;
        using var pipe = new Pipe();
        _frontEnd.Send(Request.SetDeviceStateFd, new DeviceStatePayload(1, 0), 0, pipe.Reader);
        Assert.That(_frontEnd.Receive<ulong>(Request.SetDeviceStateFd), Is.EqualTo(0x100));
        pipe.Writer.WriteAll([7], "the pipe");
        pipe.Writer.Dispose();
        ring.SetUp();
        ring.Enable(true);
        Assert.That(_frontEnd.Get(Request.CheckDeviceState), Is.EqualTo(1));
        Assert.That(_device.State, Is.EqualTo(before));
        ring.Add([1], 1);
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 2 }), "the ring runs on");
    }

    // Its description is the front-end's, too.
    [Test]
    public void DeviceState_PipeThatWasMadeBlocking_HoldsNothingUp([Values] bool isLoad)
    {
        _frontEnd.Negotiate(0, Feature.DeviceState);
        _device.State = new byte[4 << 20];
        using var pipe = new Pipe();
        FileDescriptor end = isLoad ? pipe.Reader : pipe.Writer;
        _frontEnd.Send(Request.SetDeviceStateFd, new DeviceStatePayload(isLoad ? 1u : 0, 0), 0, end);
        Assert.That(_frontEnd.Receive<ulong>(Request.SetDeviceStateFd), Is.EqualTo(0x100));
        // The thread sets its flag first. A pipe that was full is then writable again.
        Eventually.True(() => (Fcntl(end, LibC.F_GETFL) & LibC.O_NONBLOCK) != 0, () => "nobody reads or writes");
        if (!isLoad)
            Eventually.True(() => Poll.Wait([new PollEntry(pipe.Writer, PollEvents.Writable)], 0) == 0, () => "the pipe is not full");
        Assert.That(Fcntl(end, LibC.F_SETFL), Is.Zero);
        if (isLoad)
            pipe.Writer.WriteAll([1], "the pipe");
        else
            pipe.Reader.TryRead(new byte[32 << 10]);
        Assert.That(Task.Run(_frontEnd.Leave).Wait(TimeSpan.FromSeconds(10)), "the session waits for the pipe");
        Eventually.True(() => OpenDescriptors.OfPipe(pipe.Reader) == 2, () => "the thread has not ended");

        static int Fcntl(FileDescriptor descriptor, int command)
        {
            using HeldDescriptor held = descriptor.Hold();
            return LibC.fcntl(held.Number, command, 0);
        }
    }

    [Test]
    public void DeviceState_TransferThatNobodyWantsAnyMore_KeepsNothing()
    {
        using var pipe = new Pipe();
        var transfer = StateTransfer.Load(pipe.Reader);
        pipe.Writer.WriteAll(new byte[1 << 20], "the pipe");
        Eventually.True(() => transfer.Bytes.Length > 0, () => "nothing is read");
        transfer.Dispose();
        Assert.That(transfer.Bytes.Length, Is.Zero);
    }

    [TestCase(0, true)]
    [TestCase(1, false)]
    public void DeviceState_AsLargeAsMayBe_IsRead(int more, bool isTaken)
    {
        using var pipe = new Pipe();
        using var transfer = StateTransfer.Load(pipe.Reader);
        byte[] piece = new byte[1 << 20];
        for (int sent = 0; sent < VhostUserDevice.MaxStateSize; sent += piece.Length)
            pipe.Writer.WriteAll(piece, "the pipe");
        pipe.Writer.WriteAll(piece.AsSpan(0, more), "the pipe");
        pipe.Writer.Dispose();
        Assert.That(transfer.Wait(TimeSpan.FromSeconds(30)), Is.EqualTo(isTaken));
        Assert.That(transfer.Bytes.Length, Is.EqualTo(VhostUserDevice.MaxStateSize));
    }

    [Test]
    public void Channel_ConfigurationChangedAndSharedMemory_AreAsked([Values] bool takesConfig)
    {
        using FrontEndRing ring = _frontEnd.Start(0, 16, Feature.BackendReq | Feature.BackendSendFd | Feature.Shmem | (takesConfig ? Feature.Config : 0));
        Assert.That(_device.FrontEnd, Is.Null);
        using FrontEndDriver channel = OpenChannel();
        _device.FrontEnd!.ConfigurationChanged();
        if (takesConfig)
        {
            using VhostUserMessage change = channel.Receive();
            Assert.That(change.Header, Is.EqualTo(new VhostUserHeader((uint)VhostUserBackendRequest.ConfigChange, VhostUserFlags.Version1, 0)));
        }

        var mapping = Task.Run(() => _device.FrontEnd!.MapSharedMemory(1, 0x1000, _frontEnd.Memory.File, 0x2000, 0x3000, isWritable: true));
        using (VhostUserMessage map = channel.Receive())   // the first message of all, where the configuration was not agreed on
        {
            Assert.That(map.Header.Request, Is.EqualTo((uint)VhostUserBackendRequest.ShmemMap));
            Assert.That(map.Header.Flags, Is.EqualTo(VhostUserFlags.Version1 | VhostUserFlags.NeedReply));
            Assert.That(map.Read<ShmemMapPayload>(), Is.EqualTo(new ShmemMapPayload(1, 0x2000, 0x1000, 0x3000, 1)));
            Assert.That(map.DescriptorCount, Is.EqualTo(1));
        }
        channel.Send((Request)VhostUserBackendRequest.ShmemMap, 0UL, VhostUserFlags.Reply);
        Assert.That(mapping.Wait(TimeSpan.FromSeconds(20)));

        var unmapping = Task.Run(() => _device.FrontEnd!.UnmapSharedMemory(1, 0x1000, 0x3000));
        channel.Receive().Dispose();
        channel.Send((Request)VhostUserBackendRequest.ShmemUnmap, 1UL, VhostUserFlags.Reply);
        Assert.That(async () => await unmapping, Throws.TypeOf<VhostUserException>());
    }

    // vhost-user.rst, "Suspended device state": no messages while all rings are stopped. QEMU drops this one, and never asks again.
    [Test]
    public void Channel_ConfigurationChangesWhileNoRingRuns_IsToldWhenOneDoes()
    {
        _frontEnd.Negotiate(0, Feature.BackendReq | Feature.Config);
        _frontEnd.ShareMemory();
        using FrontEndDriver first = OpenChannel();
        _device.FrontEnd!.ConfigurationChanged();
        _device.FrontEnd!.ConfigurationChanged();
        AssertSilent(first);
        using FrontEndDriver channel = OpenChannel();   // what the first one did not tell is not lost
        using FrontEndRing ring = _frontEnd.Ring(0), other = _frontEnd.Ring(1);
        ring.SetUp();
        AssertSilent(channel);
        ring.Enable(true);
        AssertTold(channel);
        other.SetUp();
        other.Enable(true);
        ring.Stop();
        _device.FrontEnd!.ConfigurationChanged();
        AssertTold(channel);    // a ring runs
        other.Enable(false);
        _device.FrontEnd!.ConfigurationChanged();
        AssertSilent(channel);
        other.Enable(true);
        AssertTold(channel);
        AssertSilent(channel);  // once

        static void AssertTold(FrontEndDriver channel)
        {
            using VhostUserMessage change = channel.Receive();
            Assert.That(change.Header.Request, Is.EqualTo((uint)VhostUserBackendRequest.ConfigChange));
        }

        static void AssertSilent(FrontEndDriver channel) =>
            Assert.That(channel.Connection.Receive(TimeSpan.FromMilliseconds(50), TimeSpan.FromSeconds(1)), Is.Null);
    }

    [Test]
    public void Channel_DeviceHasClosedIt_TheEndStopsRingsAllTheSame()
    {
        using FrontEndRing ring = _frontEnd.Start(0, 16, Feature.BackendReq);
        using FrontEndDriver channel = OpenChannel();
        _device.FrontEnd!.Dispose();
        _frontEnd.Leave();
        Assert.That(_device.Events.TakeLast(3), Is.EqualTo(new[] { "drain 0", "end", "gone" }));
    }

    [Test]
    public void Channel_FrontEndLeavesWhileItIsAsked_EndsTheWait()
    {
        _frontEnd.Negotiate(0, Feature.BackendReq | Feature.BackendSendFd | Feature.Shmem);
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        Assert.That(_frontEnd.Ask(Request.SetBackendReqFd, [], theirs), Is.Zero);
        theirs.Dispose();
        var mapping = Task.Run(() => _device.FrontEnd!.UnmapSharedMemory(1, 0x1000, 0x3000));
        using var channel = new FrontEndDriver(ours);
        channel.Receive().Dispose();
        _frontEnd.Connection.Dispose();
        Assert.That(async () => await mapping.WaitAsync(TimeSpan.FromSeconds(5)), Throws.TypeOf<VhostUserException>());
        Eventually.True(() => _device.FrontEnd is null, () => "there is still a channel");
    }

    [Test]
    public void SetBackendReqFd_NoSocket_IsRefused()
    {
        _frontEnd.Negotiate(0, Feature.BackendReq);
        Assert.That(_frontEnd.Ask(Request.SetBackendReqFd, [], _frontEnd.Memory.File), Is.EqualTo(1));
    }

    private FrontEndDriver OpenChannel()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (theirs)
            Assert.That(_frontEnd.Ask(Request.SetBackendReqFd, [], theirs), Is.Zero);
        return new FrontEndDriver(ours);
    }

    private byte[] GetConfig(uint offset, uint size, uint flags)
    {
        var header = new ConfigHeader(offset, size, flags);
        _frontEnd.Send(Request.GetConfig, [.. FrontEndDriver.Bytes(header), .. new byte[size]]);
        using VhostUserMessage reply = _frontEnd.Receive(Request.GetConfig);
        Assert.That(reply.Read<ConfigHeader>(), Is.EqualTo(header));
        return reply.Payload[ConfigHeader.WireSize..].ToArray();
    }
}
