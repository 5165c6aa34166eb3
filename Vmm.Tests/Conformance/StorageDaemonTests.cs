using NUnit.Framework;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.VhostUser;
using Vmm.Tests.Devices.Virtio.VhostUser;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Frontend;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Conformance;

/// <summary>The front-end and qemu-storage-daemon, with a software guest that drives a disk of two queues.</summary>
public sealed class StorageDaemonTests : PeerTest
{
    private const int Sectors = 32 << 10;
    private const int ConfigSize = 60;   // struct virtio_blk_config to the end of write zeroes
    private const byte Pattern = 0xA7;
    private const ulong AllFeatures = ulong.MaxValue;
    private const ulong PlainFeatures = ~(VirtioFeatures.EventIndex | VirtioFeatures.IndirectDescriptors);

    // For a failure, not a figure.
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(30);

    private static readonly (GuestAddress, ulong)[] s_threeRegions =
        [(new(0), 4 << 20), (new(0xC000_0000 - (4 << 20)), 4 << 20), (new(1UL << 32), 4 << 20)];

    private string Image => Path.Combine(Scratch, "disk");

    private string Socket => Path.Combine(Scratch, "blk.sock");

    [SetUp]
    public void SetUp() => Require(StorageDaemon);

    [TestCase(AllFeatures)]
    [TestCase(PlainFeatures)]
    public void Requests_OfEveryType_AreDone(ulong features)
    {
        using HostDaemon daemon = StartDaemon();
        using PeerGuest guest = Connect();
        guest.Start(features);
        Assert.That(guest.Frontend.MaxRingCount, Is.EqualTo(2));
        byte[] config = new byte[ConfigSize];
        guest.Frontend.ReadConfig(config);
        Assert.That(BitConverter.ToUInt64(config), Is.EqualTo(Sectors), "capacity");
        Assert.That(BitConverter.ToUInt32(config, 20), Is.EqualTo(BlockClient.SectorSize), "blk_size");
        Assert.That(BitConverter.ToUInt16(config, 34), Is.EqualTo(2), "num_queues");

        foreach (PeerQueue queue in guest.Queues)
        {
            var disk = new BlockClient(guest.Heap, queue);
            byte[] data = RandomBytes(queue.Config.Index, 64 * BlockClient.SectorSize);
            disk.Write(8, data);
            disk.Flush();
            Assert.That(ReadImage(8, data.Length), Is.EqualTo(data), "what the host sees");
            Assert.That(disk.Read(8, data.Length), Is.EqualTo(data));
            Assert.That(disk.Read(9, BlockClient.SectorSize), Is.EqualTo(data[BlockClient.SectorSize..(2 * BlockClient.SectorSize)]));

            disk.WriteZeroes(16, 8, mayUnmap: false);
            disk.WriteZeroes(24, 8, mayUnmap: true);
            data.AsSpan(8 * BlockClient.SectorSize, 16 * BlockClient.SectorSize).Clear();
            Assert.That(disk.Read(8, data.Length), Is.EqualTo(data));
            disk.Discard(40, 16);   // what is read there now is anybody's guess
            Assert.That(disk.Read(56, 16 * BlockClient.SectorSize), Is.EqualTo(data[(48 * BlockClient.SectorSize)..]));

            Assert.That(disk.GetId(), Is.Not.Empty);
            Assert.That(disk.Try(type: 77, sector: 0, room: 0), Is.EqualTo(BlockClient.Unsupported));
            Assert.That(disk.Try(type: 0, sector: Sectors, room: BlockClient.SectorSize), Is.EqualTo(BlockClient.IoError), "after the end");
            Assert.That(queue.IsIdle);
            Assert.That(queue.IsBroken, Is.False);
        }
        Assert.That(guest.Told, Is.Empty);
    }

    [Test]
    public void Requests_ManyAtATimeOnBothQueues_AllComeBack()
    {
        const int depth = 16, stripe = 32;
        using HostDaemon daemon = StartDaemon();
        using PeerGuest guest = Connect(s_threeRegions);
        guest.Start(AllFeatures);
        // Buffers and queues are in three regions, on both sides of the hole below 4 GiB and above it.
        BlockClient[] disks = [.. guest.Queues.Select((queue, i) => new BlockClient(guest.Heap, queue, depth, region: 2 - i, slotSize: stripe * BlockClient.SectorSize))];
        byte[] model = RandomBytes(1, Sectors * BlockClient.SectorSize / 4);
        int stripes = model.Length / (stripe * BlockClient.SectorSize);
        for (int writes = 1; writes >= 0; writes--)
        {
            for (int i = 0; i < stripes + 2 * depth; i++)
            {
                BlockClient disk = disks[i % 2];
                if (i >= 2 * depth)
                    Finish(disk, writes == 0);
                if (i < stripes && writes == 1)
                    disk.SubmitWrite(i * stripe, Part(i * stripe), i * stripe);
                else if (i < stripes)
                    disk.SubmitRead(i * stripe, stripe * BlockClient.SectorSize, i * stripe);
            }
        }
        Assert.That(guest.Queues.All(queue => queue.IsIdle));
        Assert.That(ReadImage(0, model.Length).AsSpan().SequenceEqual(model), "what the host sees");
        Assert.That(guest.Told, Is.Empty);

        ReadOnlySpan<byte> Part(int sector) => model.AsSpan(sector * BlockClient.SectorSize, stripe * BlockClient.SectorSize);

        void Finish(BlockClient disk, bool isRead)
        {
            (BlockClient.Slot slot, byte status) = disk.Complete();
            Assert.That(status, Is.EqualTo(BlockClient.Ok));
            if (isRead)
                Assert.That(slot.Read(guest.Heap.Memory).AsSpan().SequenceEqual(Part((int)slot.Tag!)), $"sector {slot.Tag}");
        }
    }

    [Test]
    public void Pause_WithMemoryShownAgain_GoesOnWhereItWas()
    {
        using HostDaemon daemon = StartDaemon();
        using PeerGuest guest = Connect(s_threeRegions);
        guest.Start(AllFeatures);
        var disk = new BlockClient(guest.Heap, guest.Queues[1], region: 2);
        for (uint i = 0; i < 5; i++)
        {
            byte[] data = RandomBytes((int)i, 4096);
            disk.Write(i * 8, data);
            Assert.That(guest.Pause(frontend => frontend.SetMemory(guest.Heap.Memory)), Is.EqualTo(new uint[] { 0, 2 * i + 1 }));
            Assert.That(disk.Read(i * 8, data.Length), Is.EqualTo(data));
        }
        Assert.That(guest.Told, Is.Empty);
    }

    [Test]
    public void Reset_AndOtherMemory_TheConnectionStays()
    {
        using HostDaemon daemon = StartDaemon();
        using PeerGuest guest = Connect();
        byte[] data = RandomBytes(1, 8192);
        guest.Start(AllFeatures);
        new BlockClient(guest.Heap, guest.Queues[0]).Write(100, data);
        guest.Reset();
        guest.ReplaceMemory(s_threeRegions);
        guest.Start(PlainFeatures);
        Assert.That(new BlockClient(guest.Heap, guest.Queues[1], region: 1).Read(100, data.Length), Is.EqualTo(data));
        Assert.That(guest.Told, Is.Empty);
    }

    // This daemon answers GET_VRING_BASE while reads are in flight, and does not tell of their end any more.
    [Test]
    public void Reset_ReadsInFlight_WaitsUntilTheyAreDone()
    {
        const int reads = 4;
        using HostDaemon daemon = StartThrottledDaemon(readsPerSecond: 2);
        using PeerGuest guest = Connect(change: options => options with { StopTimeout = s_limit, CompletesRequests = true });
        guest.Start(PlainFeatures);
        SubmitReads(guest, reads);
        guest.Reset();
        Assert.That(guest.Heap.Memory.Read<ushort>(guest.Queues[0].Config.DeviceArea + 2), Is.EqualTo(reads), "the used index");
        Assert.That(guest.Frontend.MayWrite(guest.Heap.Memory), Is.False);
        Assert.That(guest.Told, Is.Empty);
    }

    [Test]
    public void Reset_ReadsThatTakeTooLong_LeavesItTheMemoryAndWorksWithOther([Values] bool reconnect)
    {
        const int reads = 4;
        using HostDaemon daemon = StartThrottledDaemon(readsPerSecond: 1);
        using PeerGuest guest = Connect(change: options => options with { StopTimeout = TimeSpan.FromMilliseconds(100), Reconnect = reconnect });
        guest.Start(PlainFeatures);
        GuestMemory old = guest.Heap.Memory;
        GuestAddress[] buffers = SubmitReads(guest, reads);
        guest.Reset();
        Assert.That(guest.Frontend.MayWrite(old));
        Assert.That(guest.Disconnections, Is.LessThanOrEqualTo(1));

        guest.ReplaceMemory((new(0), 16 << 20));
        guest.Start(PlainFeatures);
        Assert.That(guest.Frontend.MayWrite(guest.Heap.Memory), Is.False);
        var disk = new BlockClient(guest.Heap, guest.Queues[0], slotSize: 4096);   // one buffer, where the first of the others was
        Assert.That(disk.Read(0, 4096), Is.All.EqualTo(Pattern), "of the daemon that is back");
        // What it writes when it is too late is in the memory that was left to it. It accepts no connection before it is done.
        Assert.That(buffers.Select(buffer => old.Read<byte>(buffer)), Is.All.EqualTo(Pattern));
        Assert.That(guest.Heap.Memory.Slice(buffers[0], 4096).IndexOfAnyExcept((byte)0), Is.Negative);
    }

    [Test]
    public void Kill_ReadsInFlight_TheDeadWriteNothing()
    {
        using HostDaemon daemon = StartThrottledDaemon(readsPerSecond: 1);
        using PeerGuest guest = Connect();
        guest.Start(PlainFeatures);
        SubmitReads(guest, 4);
        daemon.Kill();
        Eventually.True(() => guest.Disconnections == 1, () => "nobody has noticed");
        Assert.That(guest.Frontend.MayWrite(guest.Heap.Memory), Is.False);
    }

    [Test]
    public void Kill_WhileWritesAreChecked_NothingIsLostOrMixedUp()
    {
        const int kills = 8, length = 16 * BlockClient.SectorSize;
        using HostDaemon daemon = StartDaemon();
        using PeerGuest guest = Connect();
        guest.Start(AllFeatures);
        BlockClient[] disks = [.. guest.Queues.Select(queue => new BlockClient(guest.Heap, queue))];
        var model = new byte[kills * 64 * length];
        for (int kill = 0; kill < kills; kill++)
        {
            // It ends in the middle of them, wherever that is.
            var killer = new Thread(() =>
            {
                Thread.Sleep(kill);
                daemon.Kill();
                daemon.Start();
            });
            killer.Start();
            for (int i = kill * 64; i < (kill + 1) * 64; i++)
            {
                byte[] data = RandomBytes(i, length);
                data.CopyTo(model, i * length);
                disks[i % 2].Write(i * 16, data);
                Assert.That(disks[(i + 1) % 2].Read(i * 16, length), Is.EqualTo(data), $"write {i}");
            }
            killer.Join();
            guest.WaitUntilRestored(kill + 1);
        }
        Assert.That(ReadImage(0, model.Length).AsSpan().SequenceEqual(model), "what the host sees");
        Assert.That(guest.Disconnections, Is.GreaterThanOrEqualTo(kills), guest.Told);
    }

    // It keeps its number of sectors, whatever its image has.
    [Test]
    public void Restart_WithALargerImage_IsAChangedCapacity()
    {
        using HostDaemon daemon = StartDaemon();
        using var machine = new VhostUserMachine(null, new BlockDeviceOptions { Peer = VhostUserMachine.PeerAt(Socket), Queues = 2 });
        machine.StartDriver(2);
        Assert.That(BitConverter.ToUInt64(machine.Config), Is.EqualTo(Sectors));
        daemon.Kill();
        using (FileStream image = File.OpenWrite(Image))
            image.SetLength(2 * Sectors * BlockClient.SectorSize);
        daemon.Start();
        Eventually.True(() => BitConverter.ToUInt64(machine.Config) == 2 * Sectors, () => $"{BitConverter.ToUInt64(machine.Config)} sectors");
        Eventually.True(() => (machine.Driver[VirtioMmioRegister.InterruptStatus] & 2) != 0, () => "nobody tells the driver");
        Assert.That(machine.Driver.Status & VirtioDriver.NeedsReset, Is.Zero);
    }

    [Test]
    public void Memory_OfMoreRegionsThanATableHas_IsAddedOneByOne()
    {
        const int count = 12;
        const ulong size = 1 << 20;
        using HostDaemon daemon = StartDaemon();
        using GuestMemory memory = GuestMemory.Create([(new(0), count * size)]);
        var heap = new GuestHeap(memory);
        using var queue = new PeerQueue(heap, 0, PeerGuest.QueueSize, VirtioFeatures.Version1);
        // To the daemon these are regions far from one another and in another order than in the guest.
        var regions = new MemoryRegionPayload[count];
        for (int i = 0; i < count; i++)
            regions[i] = new MemoryRegionPayload((ulong)i * size, size, UserAddress((ulong)i * size), (ulong)i * size);
        var files = new FileDescriptor[count];
        Array.Fill(files, memory.File);

        // The socket's file is there a moment before somebody listens on it.
        using var connector = new PeerConnector(VhostUserEndpoint.ConnectTo(Socket), "the storage daemon");
        using var session = new VhostUserSession(connector.Connect(s_limit), "the storage daemon", s_limit);
        Assert.That(session.GetFeatures() & VirtioFeatures.VhostUserProtocolFeatures, Is.Not.Zero);
        session.SetProtocolFeatures(
            session.GetProtocolFeatures() & (VhostUserProtocolFeatures.ConfigureMemSlots | VhostUserProtocolFeatures.ReplyAck));
        session.SetOwner();
        session.SetFeatures(VirtioFeatures.Version1);
        session.ShareMemory(regions, files);
        VringConfig ring = queue.Config;
        session.SetRingSize(0, ring.Size);
        session.SetRingAddress(new VringAddress(
            0, 0, UserAddress(ring.DescriptorArea.Value), UserAddress(ring.DeviceArea.Value), UserAddress(ring.DriverArea.Value), 0));
        session.SetRingBase(0, 0);
        session.SetRingCall(0, ring.Call);
        session.SetRingKick(0, ring.Kick);
        session.SetRingEnabled(0, true);

        heap.Allocate((int)(10 * size), alignment: 1);   // what comes next is in the last regions
        var disk = new BlockClient(heap, queue);
        byte[] data = RandomBytes(1, 4096);
        disk.Write(16, data);
        Assert.That(disk.Read(16, data.Length), Is.EqualTo(data));
        Assert.That(ReadImage(16, data.Length), Is.EqualTo(data));

        Assert.That(session.GetRingBase(0), Is.EqualTo(2));
        session.RemoveMemoryRegion(regions[5]);
        session.AddMemoryRegion(regions[5], memory.File);

        static ulong UserAddress(ulong address) => (1UL << 40) - (address >> 20 << 30) + (address & (size - 1));
    }

    private HostDaemon StartDaemon() => HostDaemon.Disk(Socket, Image, Sectors * BlockClient.SectorSize);

    // A disk of bytes that are all Pattern.
    private HostDaemon StartThrottledDaemon(int readsPerSecond)
    {
        byte[] contents = new byte[1 << 20];
        contents.AsSpan().Fill(Pattern);
        File.WriteAllBytes(Image, contents);
        return HostDaemon.Disk(Socket, Image, contents.Length, readsPerSecond);
    }

    // Submits reads of 4 KiB each, and waits until the first is done. Gives where their data goes.
    private static GuestAddress[] SubmitReads(PeerGuest guest, int count)
    {
        var disk = new BlockClient(guest.Heap, guest.Queues[0], depth: count, slotSize: 4096);
        GuestAddress[] buffers = disk.FreeBuffers;
        for (int i = 0; i < count; i++)
            disk.SubmitRead(i * 8, 4096);
        Eventually.True(() => guest.Heap.Memory.Read<ushort>(guest.Queues[0].Config.DeviceArea + 2) > 0, () => "it reads nothing");
        return buffers;
    }

    private PeerGuest Connect(
        (GuestAddress, ulong)[]? regions = null, Func<VhostUserFrontendOptions, VhostUserFrontendOptions>? change = null) => new(Socket, queues: 2, regions, options =>
    {
        options = options with { ConfigSize = ConfigSize, ConfigRequired = true };
        return change?.Invoke(options) ?? options;
    });

    private byte[] ReadImage(long sector, int length)
    {
        using FileStream file = new(Image, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        file.Position = sector * BlockClient.SectorSize;
        byte[] bytes = new byte[length];
        file.ReadExactly(bytes);
        return bytes;
    }

    private static byte[] RandomBytes(int seed, int length)
    {
        byte[] bytes = new byte[length];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }
}
