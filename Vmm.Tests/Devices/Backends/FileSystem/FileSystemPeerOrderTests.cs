using System.Runtime.Versioning;
using System.Text;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Protocol;
using static Vmm.Tests.Conformance.FuseClient;
using Feature = Vmm.Vhost.User.Protocol.VhostUserProtocolFeatures;
using Request = Vmm.Vhost.User.Protocol.VhostUserRequest;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>The messages of cloud-hypervisor (52, with rust-vmm's vhost 0.16), crosvm (2024) and libkrun (2.0), in the order in which they send them, to <c>vmm backend fs</c>.</summary>
[SupportedOSPlatform("linux")]
public class FileSystemPeerOrderTests : FileSystemTest
{
    private const string Tag = "work";
    private const int Size = 64;
    private const ulong Rings = VirtioFeatures.EventIndex | VirtioFeatures.IndirectDescriptors;
    private const Feature OfCloudHypervisor =
        Feature.Mq | Feature.ConfigureMemSlots | Feature.ReplyAck | Feature.InflightShmFd | Feature.LogShmFd | Feature.DeviceState;
    private const Feature ShmemMapOfCrosvm = (Feature)(1 << 20);

    private static readonly TimeSpan s_deadline = TimeSpan.FromSeconds(20);

    [SetUp]
    public void Begin() => Serve("--tag", Tag);

    [Test]
    public void CloudHypervisor_StartAndReset_StartsAgain()
    {
        FrontEndDriver frontEnd = ConnectAsCloudHypervisor();
        for (int i = 0; i < 2; i++)
        {
            foreach (FrontEndRing ring in StartAndMount(frontEnd))
            {
                ring.Enable(false);
                Base(frontEnd, ring);
            }
        }
    }

    // Firmware uses the second queue only. The log is for as many queues as are in use.
    [Test]
    public void CloudHypervisor_OneQueueOfTwoInUse_Runs()
    {
        FrontEndDriver frontEnd = ConnectAsCloudHypervisor();
        FrontEndRing[] rings = NewRings(frontEnd)[1..];
        (FileDescriptor log, _) = Activate(frontEnd, rings);
        log.Dispose();
        Mount(rings[0]);
        rings[0].Enable(false);
        Assert.That(Base(frontEnd, rings[0]), Is.EqualTo(1));
    }

    [Test]
    public void CloudHypervisor_Snapshot_GoesOnHereAndElsewhere()
    {
        FrontEndDriver frontEnd = ConnectAsCloudHypervisor();
        FrontEndRing[] rings = StartAndMount(frontEnd);
        foreach (FrontEndRing ring in rings)
            ring.Enable(false);
        uint[] bases = Array.ConvertAll(rings, ring => Base(frontEnd, ring));
        byte[] state = SaveThroughSockets(frontEnd);

        SetUp(frontEnd, rings, bases);
        Assert.That(Attributes(rings[1]), Is.Zero, "the same connection goes on");
        foreach (FrontEndRing ring in rings)
            ring.Enable(false);
        bases = Array.ConvertAll(rings, ring => Base(frontEnd, ring));
        frontEnd.Connection.Dispose();

        FrontEndDriver next = Keep(Connect(frontEnd.Memory));
        next.Send(Request.SetOwner);
        next.Get(Request.GetFeatures);
        next.Send(Request.SetProtocolFeatures, (ulong)OfCloudHypervisor);
        using (var pipe = new Pipe())
        {
            next.Send(Request.SetDeviceStateFd, new DeviceStatePayload(1, 0), VhostUserFlags.NeedReply, pipe.Reader);
            Assert.That(next.Receive<ulong>(Request.SetDeviceStateFd), Is.EqualTo(0x100));
            pipe.Writer.WriteAll(state, "the pipe");
            pipe.Writer.Dispose();
            Assert.That(next.Ask(Request.CheckDeviceState), Is.Zero);
        }
        FrontEndRing[] again = Array.ConvertAll(rings, ring => ring.On(next));
        (FileDescriptor log, _) = Activate(next, again, bases);
        log.Dispose();
        foreach (FrontEndRing ring in again)
            ring.Enable(true);
        Assert.That(Attributes(again[1]), Is.Zero, "and so does the guest elsewhere");
    }

    [Test]
    public void CloudHypervisor_Migration_LogsWhatIsWritten()
    {
        FrontEndDriver frontEnd = ConnectAsCloudHypervisor();
        FrontEndRing[] rings = StartAndMount(frontEnd);
        var payload = new LogPayload(((FrontEndDriver.GuestBase + FrontEndDriver.MemorySize - 1) / 32768) + 1, 0);
        for (int round = 0; round < 2; round++)
        {
            using FileDescriptor file = MemFd.Create("log", 0x10000);
            using MemoryMapping log = MemoryMapping.Map(file, 0x10000, MappingAccess.SharedReadWrite);
            frontEnd.Send(Request.SetLogBase, payload, VhostUserFlags.NeedReply, file);
            Assert.That(frontEnd.Receive<LogPayload>(Request.SetLogBase), Is.EqualTo(payload), "the whole log comes back");
            Assert.That(frontEnd.Ask(Request.SetFeatures, FrontEndDriver.Features | Rings | VirtioFeatures.LogAll), Is.Zero);
            foreach (FrontEndRing ring in rings)
                Assert.That(frontEnd.Ask(Request.SetVringAddr, ring.Address with { Flags = VringAddress.FlagLog }), Is.Zero);
            Assert.That(Attributes(rings[1]), Is.Zero);
            Assert.That(IsMarked(log, rings[1].Queue.Layout.DeviceArea.Value), $"round {round}");
        }
        foreach (FrontEndRing ring in rings)
            Assert.That(frontEnd.Ask(Request.SetVringAddr, ring.Address), Is.Zero);
        Assert.That(frontEnd.Ask(Request.SetFeatures, FrontEndDriver.Features | Rings), Is.Zero);
        Assert.That(Attributes(rings[1]), Is.Zero);
    }

    // What is in flight stands in the log, so the front-end's business is none of the program's that waits.
    [Test]
    public void CloudHypervisor_Migration_WhoWaitsForALockWaitsOn()
    {
        const uint setLock = 32, setLockWait = 33, writeLock = 1, unlock = 2;
        FrontEndDriver frontEnd = ConnectAsCloudHypervisor();
        FrontEndRing[] rings = StartAndMount(frontEnd);
        File.WriteAllText(In("file"), "");
        ulong node = U64(Ask(rings[1], 1, FuseGuest.Root, Name("file"), FuseGuest.EntrySize), 16);
        ulong handle = U64(Ask(rings[1], 14, node, Bytes(2U, 0U), 16), 16);
        Assert.That((int)U32(Ask(rings[1], setLock, node, FuseGuest.LockArguments(handle, 1, writeLock), 0), 4), Is.Zero);
        // On the other queue, which tells by its answer that it has seen the request behind it.
        Add(rings[0], setLockWait, node, FuseGuest.LockArguments(handle, 2, writeLock), 0, unique: 2);
        Assert.That((int)U32(Ask(rings[0], 3, 1, Bytes(0UL, 0UL), FuseGuest.AttributesSize), 4), Is.Zero);

        using FileDescriptor file = MemFd.Create("log", 0x10000);
        var payload = new LogPayload(((FrontEndDriver.GuestBase + FrontEndDriver.MemorySize - 1) / 32768) + 1, 0);
        frontEnd.Send(Request.SetLogBase, payload, VhostUserFlags.NeedReply, file);
        Assert.That(frontEnd.Receive<LogPayload>(Request.SetLogBase), Is.EqualTo(payload));
        Assert.That(frontEnd.Ask(Request.SetFeatures, FrontEndDriver.Features | Rings | VirtioFeatures.LogAll), Is.Zero);
        foreach (FrontEndRing ring in rings)
            Assert.That(frontEnd.Ask(Request.SetVringAddr, ring.Address with { Flags = VringAddress.FlagLog }), Is.Zero);

        Assert.That((int)U32(Ask(rings[1], setLock, node, FuseGuest.LockArguments(handle, 1, unlock), 0), 4), Is.Zero);
        Assert.That((int)U32(rings[0].Take().Bytes, 4), Is.Zero, "it has its lock");
        Assert.That((int)U32(Ask(rings[1], setLock, node, FuseGuest.LockArguments(handle, 1, writeLock), 0), 4), Is.EqualTo(-11), "EAGAIN");
    }

    [Test]
    public void CloudHypervisor_ConnectionIsLost_GoesOn()
    {
        FrontEndDriver frontEnd = ConnectAsCloudHypervisor();
        FrontEndRing[] rings = NewRings(frontEnd);
        (FileDescriptor file, InflightPayload payload) = Activate(frontEnd, rings);
        using FileDescriptor log = file;
        Mount(rings[1]);
        frontEnd.Connection.Dispose();

        FrontEndDriver next = ConnectAsCloudHypervisor(frontEnd.Memory);
        FrontEndRing[] again = Array.ConvertAll(rings, ring => ring.On(next));
        Assert.That(next.Ask(Request.SetFeatures, FrontEndDriver.Features | Rings), Is.Zero);
        next.ShareMemory();
        foreach (FrontEndRing ring in again)
            Assert.That(next.Ask(Request.SetVringNum, ring.State(Size)), Is.Zero);
        Assert.That(next.Ask(Request.SetInflightFd, payload, log), Is.Zero);
        SetUp(next, again, [0, 1]);
        foreach (FrontEndRing ring in again)
            ring.Kick.Signal();
        Assert.That(Attributes(again[1]), Is.Zero);
    }

    [Test]
    public void CloudHypervisor_MemoryIsAddedBeforeTheTable_Starts()
    {
        FrontEndDriver frontEnd = ConnectAsCloudHypervisor();
        Assert.That(frontEnd.Ask(Request.AddMemReg, new SingleMemoryRegion(0, frontEnd.Region), frontEnd.Memory.File), Is.Zero);
        StartAndMount(frontEnd);
    }

    [Test]
    public void Crosvm_StartSleepAndWake_GoesOn()
    {
        FrontEndDriver frontEnd = Keep(Connect());
        frontEnd.Send(Request.SetOwner);
        ulong offered = frontEnd.Get(Request.GetFeatures);
        frontEnd.Get(Request.GetProtocolFeatures);
        frontEnd.Send(Request.SetProtocolFeatures, (ulong)(Feature.Config | Feature.Mq | Feature.BackendReq | Feature.DeviceState | ShmemMapOfCrosvm | Feature.ReplyAck));
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using UnixSocket channel = ours;
        frontEnd.Send(Request.SetBackendReqFd, default, 0, theirs);
        theirs.Dispose();
        Assert.That(frontEnd.Get(Request.GetQueueNum), Is.EqualTo(2));
        frontEnd.Send(Request.GetShmemConfig);
        using (VhostUserMessage regions = frontEnd.Receive(Request.GetShmemConfig))
            Assert.That(regions.Read<uint>(0), Is.Zero, "none of the kind that crosvm means");
        byte[] config = [.. Enumerable.Range(0, 40).Select(at => ReadByte(frontEnd, (uint)at))];
        Assert.That(Encoding.UTF8.GetString(config, 0, 36).TrimEnd('\0'), Is.EqualTo(Tag));
        Assert.That(BitConverter.ToUInt32(config, 36), Is.EqualTo(1));

        // At each half of the driver's features, the lower one first. Of the rings' features it passes on one.
        frontEnd.Send(Request.SetFeatures, offered & (VirtioFeatures.EventIndex | VirtioFeatures.VhostUserProtocolFeatures));
        frontEnd.Send(Request.SetFeatures, FrontEndDriver.Features | VirtioFeatures.EventIndex);
        using FrontEndRing first = frontEnd.Ring(0, Size, VirtioFeatures.EventIndex), second = frontEnd.Ring(1, Size, VirtioFeatures.EventIndex);
        FrontEndRing[] rings = [first, second];
        // Without max-queue-size= its queues are as long as a split one can be.
        frontEnd.Send(Request.SetVringNum, first.State(32768));
        uint[] bases = [0, 0];
        for (int round = 0; round < 3; round++)
        {
            frontEnd.Send(Request.SetMemTable, frontEnd.MemoryTable(frontEnd.Region), 0, frontEnd.Memory.File);
            foreach (FrontEndRing ring in rings)
            {
                frontEnd.Send(Request.SetVringNum, ring.State(Size));
                frontEnd.Send(Request.SetVringAddr, ring.Address);
                frontEnd.Send(Request.SetVringBase, ring.State(bases[ring.Index]));
                frontEnd.Send(Request.SetVringCall, (ulong)ring.Index, 0, first.Call);
                frontEnd.Send(Request.SetVringKick, (ulong)ring.Index, 0, ring.Kick);
                frontEnd.Send(Request.SetVringEnable, ring.State(1));
            }
            if (round == 0)
                Mount(second);
            Assert.That(Attributes(second), Is.Zero, $"round {round}");
            foreach (FrontEndRing ring in rings)
            {
                frontEnd.Send(Request.SetVringEnable, ring.State(0));
                bases[ring.Index] = ring.Stop();
            }
        }
    }

    // It passes on all features, those of a packed ring, too, and says of each ring that it begins at 0.
    [TestCase(0UL)]
    [TestCase(VirtioFeatures.RingPacked)]
    public void Libkrun_StartAndReset_StartsAgain(ulong features)
    {
        FrontEndDriver frontEnd = Keep(Connect());
        frontEnd.Get(Request.GetFeatures);
        frontEnd.Get(Request.GetProtocolFeatures);
        frontEnd.Send(Request.SetProtocolFeatures, (ulong)(Feature.Config | Feature.Mq));
        Assert.That(ReadByte(frontEnd, 0, flags: 0), Is.EqualTo((byte)Tag[0]), "before the device has an owner");
        for (int round = 0; round < 3; round++)
        {
            frontEnd.Send(Request.SetOwner);
            frontEnd.Send(Request.SetMemTable, frontEnd.MemoryTable(frontEnd.Region), 0, frontEnd.Memory.File);
            frontEnd.Send(Request.SetFeatures, FrontEndDriver.Features | Rings | features);
            FrontEndRing[] rings = NewRings(frontEnd, features);
            foreach (FrontEndRing ring in rings)
            {
                frontEnd.Send(Request.SetVringNum, ring.State(Size));
                frontEnd.Send(Request.SetVringBase, ring.State(0));
                frontEnd.Send(Request.SetVringAddr, ring.Address);
                frontEnd.Send(Request.SetVringKick, (ulong)ring.Index, 0, ring.Kick);
                frontEnd.Send(Request.SetVringCall, (ulong)ring.Index, 0, rings[0].Call);
                frontEnd.Send(Request.SetVringEnable, ring.State(1));
            }
            Mount(rings[1]);
            // Enough for the ring to go around, with an odd number of rounds.
            for (int i = 0; i < 2 * Size; i++)
                Assert.That(Attributes(rings[1]), Is.Zero, $"round {round}, request {i}");
            foreach (FrontEndRing ring in rings)
                frontEnd.Send(Request.SetVringEnable, ring.State(0));
            Assert.That(frontEnd.Get(Request.GetFeatures), Is.Not.Zero, "all of that was taken");
        }
    }

    private FrontEndDriver Connect(GuestMemory? memory = null) => new(UnixSocket.Connect(SocketPath), memory: memory);

    private FrontEndDriver ConnectAsCloudHypervisor(GuestMemory? memory = null)
    {
        FrontEndDriver frontEnd = Keep(Connect(memory));
        frontEnd.Send(Request.SetOwner);
        frontEnd.Get(Request.GetFeatures);
        frontEnd.Get(Request.GetProtocolFeatures);
        frontEnd.Send(Request.SetProtocolFeatures, (ulong)OfCloudHypervisor);
        Assert.That(frontEnd.Ask(Request.GetQueueNum), Is.EqualTo(2));
        return frontEnd;
    }

    private FrontEndRing[] NewRings(FrontEndDriver frontEnd, ulong features = 0)
    {
        FrontEndRing[] rings = [Keep(frontEnd.Ring(0, Size, Rings | features)), Keep(frontEnd.Ring(1, Size, Rings | features))];
        foreach (FrontEndRing ring in rings)
            frontEnd.Memory.Slice(ring.Queue.Layout.DescriptorArea, (int)DriverQueue.AreaSize).Clear();      // as Linux does it
        return rings;
    }

    private FrontEndRing[] StartAndMount(FrontEndDriver frontEnd)
    {
        FrontEndRing[] rings = NewRings(frontEnd);
        (FileDescriptor log, _) = Activate(frontEnd, rings);
        log.Dispose();
        Mount(rings[1]);
        return rings;
    }

    // What it does at DRIVER_OK.
    private static (FileDescriptor Log, InflightPayload Payload) Activate(FrontEndDriver frontEnd, FrontEndRing[] rings, uint[]? bases = null)
    {
        Assert.That(frontEnd.Ask(Request.SetFeatures, FrontEndDriver.Features | Rings), Is.Zero);
        frontEnd.ShareMemory();
        foreach (FrontEndRing ring in rings)
            Assert.That(frontEnd.Ask(Request.SetVringNum, ring.State(Size)), Is.Zero);
        InflightPayload payload = LostRequests.GetLog(frontEnd, (ushort)rings.Length, Size, out FileDescriptor log);
        Assert.That(frontEnd.Ask(Request.SetInflightFd, payload, log), Is.Zero);
        SetUp(frontEnd, rings, bases ?? new uint[rings.Length]);
        return (log, payload);
    }

    private static void SetUp(FrontEndDriver frontEnd, FrontEndRing[] rings, uint[] bases)
    {
        for (int i = 0; i < rings.Length; i++)
        {
            Assert.That(frontEnd.Ask(Request.SetVringNum, rings[i].State(Size)), Is.Zero);
            Assert.That(frontEnd.Ask(Request.SetVringAddr, rings[i].Address), Is.Zero);
            Assert.That(frontEnd.Ask(Request.SetVringBase, rings[i].State(bases[i])), Is.Zero);
            Assert.That(frontEnd.Ask(Request.SetVringCall, (ulong)rings[i].Index, rings[i].Call), Is.Zero);
            Assert.That(frontEnd.Ask(Request.SetVringKick, (ulong)rings[i].Index, rings[i].Kick), Is.Zero);
        }
        foreach (FrontEndRing ring in rings)
            ring.Enable(true);
    }

    private static uint Base(FrontEndDriver frontEnd, FrontEndRing ring)
    {
        frontEnd.Send(Request.GetVringBase, ring.State(0), VhostUserFlags.NeedReply);
        return frontEnd.Receive<VringState>(Request.GetVringBase).Num;
    }

    // The front-end keeps a descriptor of the end that it gives away.
    private static byte[] SaveThroughSockets(FrontEndDriver frontEnd)
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using UnixSocket reader = ours, writer = theirs;
        frontEnd.Send(Request.SetDeviceStateFd, new DeviceStatePayload(0, 0), VhostUserFlags.NeedReply, writer);
        Assert.That(frontEnd.Receive<ulong>(Request.SetDeviceStateFd), Is.EqualTo(0x100));
        using var state = new MemoryStream();
        byte[] piece = new byte[65536];
        while (true)
        {
            Assert.That(Poll.Wait([new PollEntry(reader, PollEvents.Readable)], (int)s_deadline.TotalMilliseconds), Is.EqualTo(1), "the state has no end");
            int count = reader.TryRead(piece);
            Assert.That(count, Is.Not.Negative);
            if (count == 0)
                break;
            state.Write(piece, 0, count);
        }
        Assert.That(frontEnd.Ask(Request.CheckDeviceState), Is.Zero);
        return state.ToArray();
    }

    private static byte ReadByte(FrontEndDriver frontEnd, uint offset, uint flags = 1)
    {
        frontEnd.Send(Request.GetConfig, [.. FrontEndDriver.Bytes(new ConfigHeader(offset, 1, flags)), 0]);
        using VhostUserMessage reply = frontEnd.Receive(Request.GetConfig);
        Assert.That(reply.Payload.Length, Is.EqualTo(ConfigHeader.WireSize + 1));
        return reply.Payload[ConfigHeader.WireSize];
    }

    private static unsafe bool IsMarked(MemoryMapping log, ulong address) => (log.Pointer[address / 4096 / 8] >> (int)(address / 4096 % 8) & 1) != 0;

    private static void Mount(FrontEndRing ring)
    {
        byte[] reply = Ask(ring, 26, 1, Bytes(7U, 38U, 0x20000U, 0U), 64);
        Assert.That((int)U32(reply, 4), Is.Zero, "FUSE_INIT");
        Assert.That(U32(reply, 16), Is.EqualTo(7));
    }

    // The error number of FUSE_GETATTR of the root.
    private static int Attributes(FrontEndRing ring) => (int)U32(Ask(ring, 3, 1, Bytes(0UL, 0UL), FuseGuest.AttributesSize), 4);

    private static byte[] Ask(FrontEndRing ring, uint code, ulong node, byte[] arguments, uint room)
    {
        Add(ring, code, node, arguments, room);
        return ring.Take().Bytes;
    }

    private static void Add(FrontEndRing ring, uint code, ulong node, byte[] arguments, uint room, ulong unique = 1)
    {
        byte[] request = [.. Bytes((uint)(40 + arguments.Length), code), .. Bytes(unique, node), .. Bytes(0U, 0U, 0U, 0U), .. arguments];
        ring.Add(request, 16 + room);
    }
}
