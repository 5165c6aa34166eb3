using System.Runtime.InteropServices;
using System.Text;
using NUnit.Framework;
using Vmm.Devices;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.VhostUser;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;
using Register = Vmm.Devices.Virtio.VirtioMmioRegister;

namespace Vmm.Tests.Devices.Virtio.VhostUser;

public sealed class FsDeviceTests
{
    private const ulong PageSize = 4096;
    private const ulong WindowSize = 1 << 20;
    private const ulong WindowStart = 0x1_0000_0000;

    private readonly string _path = FakeBackend.NewPath();

    private FsDeviceOptions Options => new() { Peer = VhostUserMachine.PeerAt(_path), Tag = "work" };

    private static byte[] SpaceOf(string tag, byte queues) =>
        [.. Encoding.UTF8.GetBytes(tag), .. new byte[FsConfig.MaxTagBytes - Encoding.UTF8.GetByteCount(tag)], queues, 0, 0, 0];

    [Test]
    public void Config_DaemonWithout_IsOurs()
    {
        var backend = new FakeBackend(_path) { ProtocolFeatures = VhostUserProtocolFeatures.ReplyAck };
        using var machine = new VhostUserMachine(backend, Options with { Queues = 2 });
        Assert.That(machine.Config, Is.EqualTo(SpaceOf("work", 2)));
        Assert.That(machine.Device.QueueCount, Is.EqualTo(3));
        Assert.That(machine.Backend.Names(1), Does.Not.Contain(VhostUserRequest.GetQueueNum));
    }

    [Test]
    public void Config_DaemonsTag_IsKeptUnlessThereIsOne()
    {
        byte[] config = SpaceOf("theirs", 77);
        using (var machine = new VhostUserMachine(new FakeBackend(_path) { Config = config }, Options with { Tag = null }))
            Assert.That(machine.Config, Is.EqualTo(SpaceOf("theirs", 1)));
        using (var machine = new VhostUserMachine(new FakeBackend(_path) { Config = config }, Options))
            Assert.That(machine.Config, Is.EqualTo(SpaceOf("work", 1)));
    }

    [Test]
    public void Tag_NeitherOursNorTheDaemons_IsRefused() => Assert.That(
        () => new VhostUserMachine(new FakeBackend(_path) { ProtocolFeatures = VhostUserProtocolFeatures.ReplyAck }, Options with { Tag = null }),
        Throws.InstanceOf<VhostException>().With.Message
            .EqualTo($"--fs: {_path}: has no configuration space (the protocol feature CONFIG), which the device needs"));

    [Test]
    public void Queues_MoreThanTheDaemonHas_AreRefused() => Assert.That(
        () => new VhostUserMachine(new FakeBackend(_path) { QueueNum = 2, Config = SpaceOf("", 0) }, Options with { Queues = 2 }),
        Throws.InstanceOf<VhostException>().With.Message.StartsWith($"--fs tag=work: {_path}: has 2 queues"));

    [Test]
    public void Dax_DaemonWithoutSharedMemory_IsRefused() => Assert.That(
        () => new VhostUserMachine(
            new FakeBackend(_path) { ProtocolFeatures = VhostUserProtocolFeatures.ReplyAck }, Options with { Dax = true }),
        Throws.InstanceOf<VhostException>().With.Message
            .EqualTo($"--fs tag=work: {_path}: the daemon has no memory to share (the protocol feature SHMEM): leave dax=on out"));

    [Test]
    public void SharedMemory_NotAskedFor_IsNotThere()
    {
        using var machine = new VhostUserMachine(DaxBackend(WindowSize), Options);
        Assert.That(machine.Device.SharedMemory, Is.Empty);
        ulong agreed = machine.Backend.All(1, VhostUserRequest.SetProtocolFeatures).Single().Number;
        Assert.That((VhostUserProtocolFeatures)agreed & VhostUserProtocolFeatures.Shmem, Is.EqualTo(VhostUserProtocolFeatures.None));
    }

    [TestCase(0UL)]
    [TestCase(4095UL)]
    [TestCase(1UL << 62)]
    public void SharedMemory_SizeThatCannotBe_IsRefused(ulong size) => Assert.That(
        () => new VhostUserMachine(DaxBackend(size), Options with { Dax = true }),
        Throws.InstanceOf<VhostException>().With.Message.Contains("it must be whole pages, at most 64G"));

    [Test]
    public void SharedMemory_MappedByTheDaemon_IsInTheWindow()
    {
        using VhostUserMachine machine = DaxMachine(out SharedMemoryWindow window);
        machine.Driver[Register.ShmSel] = 0;
        Assert.That(machine.Driver[Register.ShmLenLow], Is.EqualTo(WindowSize));
        Assert.That(machine.Driver[Register.ShmBaseHigh], Is.EqualTo(1));

        using FileDescriptor file = FileOf(0x5A, 3 * PageSize);
        Assert.That(Map(machine, file, PageSize, 2 * PageSize, 2 * PageSize), Is.Zero);
        Assert.That(ByteAt(window, 2 * PageSize), Is.EqualTo(0x5A));
        Assert.That(IsMapped(window, PageSize), Is.False);
        Assert.That(IsMapped(window, 4 * PageSize), Is.False);
        Assert.That(Unmap(machine, 2 * PageSize, 2 * PageSize), Is.Zero);
        Assert.That(IsMapped(window, 2 * PageSize), Is.False);
        Assert.That(machine.Backend.Connections, Is.EqualTo(1));
    }

    [TestCase(0UL, 4 * PageSize, Description = "all of it")]
    [TestCase(PageSize, 2 * PageSize, Description = "the first page")]
    [TestCase(3 * PageSize, 2 * PageSize, Description = "the last page")]
    [TestCase(WindowSize, PageSize, Description = "behind the window")]
    [TestCase(WindowSize - PageSize, 2 * PageSize, Description = "beyond its end")]
    [TestCase(8 * PageSize, 100UL, Description = "part of a page")]
    [TestCase(8 * PageSize + 1, PageSize, Description = "not at a page")]
    public void MapShared_WhereItMayNot_IsRefused(ulong offset, ulong length)
    {
        using VhostUserMachine machine = DaxMachine(out SharedMemoryWindow window);
        using FileDescriptor file = FileOf(1, 8 * PageSize);
        Assert.That(Map(machine, file, 0, 2 * PageSize, 2 * PageSize), Is.Zero);
        Assert.That(Map(machine, file, 0, offset, length), Is.EqualTo(1));
        Assert.That(ByteAt(window, 2 * PageSize), Is.EqualTo(1));
    }

    [TestCase(2 * PageSize, PageSize)]
    [TestCase(3 * PageSize, PageSize)]
    [TestCase(PageSize, 3 * PageSize)]
    public void UnmapShared_NotExactlyAMapping_IsRefused(ulong offset, ulong length)
    {
        using VhostUserMachine machine = DaxMachine(out SharedMemoryWindow window);
        using FileDescriptor file = FileOf(1, 8 * PageSize);
        Assert.That(Map(machine, file, 0, 2 * PageSize, 2 * PageSize), Is.Zero);
        Assert.That(Unmap(machine, offset, length), Is.EqualTo(1));
        Assert.That(IsMapped(window, 3 * PageSize));
    }

    [Test]
    public void Reset_SomethingMapped_TakesItAway()
    {
        using VhostUserMachine machine = DaxMachine(out SharedMemoryWindow window);
        machine.StartDriver(2);
        using FileDescriptor file = FileOf(1, PageSize);
        Assert.That(Map(machine, file, 0, 0, PageSize), Is.Zero);
        machine.Driver.Status = 0;
        Assert.That(IsMapped(window, 0), Is.False);
        Assert.That(Map(machine, file, 0, 0, PageSize), Is.Zero, "again");
    }

    // Its guest runs, and may look into the window: where nothing is mapped it cannot go on.
    [Test]
    public void NeedsReset_OfTheDaemon_LeavesTheWindowUntilTheReset()
    {
        using VhostUserMachine machine = DaxMachine(out SharedMemoryWindow window);
        machine.StartDriver(2);
        using FileDescriptor file = FileOf(1, PageSize);
        Assert.That(Map(machine, file, 0, 0, PageSize), Is.Zero);
        machine.Backend.AddedStatus = (byte)VirtioDriver.NeedsReset;
        machine.Backend.Ask(VhostUserBackendRequest.ConfigChange, []);
        Eventually.True(() => (machine.Driver.Status & VirtioDriver.NeedsReset) != 0, () => "nobody told the driver");
        Assert.That(IsMapped(window, 0));
        machine.Driver.Status = 0;
        Assert.That(IsMapped(window, 0), Is.False);
    }

    // Until then the guest sees what it saw: where nothing is mapped it cannot go on.
    [Test]
    public void Daemon_GoneAndBack_MapsOverWhatItsPredecessorMapped()
    {
        using VhostUserMachine machine = DaxMachine(out SharedMemoryWindow window);
        machine.StartDriver(2);
        using FileDescriptor old = FileOf(1, 8 * PageSize), next = FileOf(2, 8 * PageSize);
        Assert.That(Map(machine, old, 0, 2 * PageSize, 4 * PageSize), Is.Zero);
        Assert.That(Map(machine, old, 0, 8 * PageSize, PageSize), Is.Zero);
        machine.Backend.Kill();
        Eventually.True(() => machine.Backend.Names(2).Contains(VhostUserRequest.SetVringKick), () => "the rings do not run again");
        Assert.That(ByteAt(window, 2 * PageSize), Is.EqualTo(1));

        Assert.That(Map(machine, next, 0, 3 * PageSize, 2 * PageSize), Is.Zero);
        byte[] pages = [.. Enumerable.Range(2, 4).Select(page => ByteAt(window, (ulong)page * PageSize))];
        Assert.That(pages, Is.EqualTo(new byte[] { 1, 2, 2, 1 }));
        Assert.That(Map(machine, next, 0, 4 * PageSize, 2 * PageSize), Is.EqualTo(1), "over one of its own");
        Assert.That(Map(machine, next, 0, 5 * PageSize, 4 * PageSize), Is.Zero);
        Assert.That(Map(machine, next, 0, 0, PageSize), Is.Zero);
        Assert.That(Unmap(machine, 3 * PageSize, 2 * PageSize), Is.Zero);
        machine.Driver.Status = 0;
        Assert.That(Enumerable.Range(0, 16).Where(page => IsMapped(window, (ulong)page * PageSize)), Is.Empty);
    }

    [Test]
    public void Daemon_BackWithAWindowOfAnotherSize_IsNotTaken()
    {
        ulong size = WindowSize;
        FakeBackend backend = DaxBackend(() => size);
        using var machine = new VhostUserMachine(backend, Options with { Dax = true });
        machine.StartDriver(2);
        size = 2 * WindowSize;
        backend.Kill();
        Eventually.True(() => (machine.Driver.Status & VirtioDriver.NeedsReset) != 0, () => "the daemon is taken");
        size = WindowSize;
        machine.StartDriver(2);
        Eventually.True(() => backend.Names(backend.Connections).Contains(VhostUserRequest.SetVringKick), () => "the device is lost for ever");
    }

    // Each mapping is one of the kernel's, and so is what is left of the region behind it.
    [Test]
    public void Map_MoreThanTheProcessMayHave_IsRefusedAndTheProcessLives()
    {
        int count = MappingBudget.Process.Limit;
        using FileDescriptor file = FileOf(1, PageSize);
        using var first = new SharedMemoryWindow(0, 2 * (ulong)count * PageSize);
        using var second = new SharedMemoryWindow(0, 16 * PageSize);
        int mapped = 0;
        string? refusal = null;
        for (ulong offset = 0; offset < first.Length && refusal is null; offset += 2 * PageSize)
        {
            try
            {
                first.Map(offset, PageSize, file, 0, isWritable: true);
                mapped++;
            }
            catch (IOException e)
            {
                refusal = e.Message;
            }
        }
        Assert.That(refusal, Does.Contain("raise vm.max_map_count"));
        Assert.That(mapped, Is.InRange(count - 3, count));
        Assert.That(() => second.Map(0, PageSize, file, 0, isWritable: true), Throws.TypeOf<VhostException>(), "one budget for all devices");
        Assert.That(MemoryMapping.Reserve(PageSize).Dispose, Throws.Nothing, "and there are mappings left for others");
        first.Clear();
        Assert.That(() => second.Map(0, PageSize, file, 0, isWritable: true), Throws.Nothing);
    }

    [Test]
    public void Map_RefusedUnmappedAndCut_GivesTheBudgetBack()
    {
        var budget = new MappingBudget(7);
        using FileDescriptor file = FileOf(1, 8 * PageSize);
        using (var window = new SharedMemoryWindow(0, WindowSize, budget))
        {
            for (int i = 0; i < 100; i++)
            {
                window.Map(0, 6 * PageSize, file, 0, isWritable: true);
                Assert.That(() => window.Map(PageSize, PageSize, file, 0, isWritable: true), Throws.TypeOf<VhostException>());
                window.Orphan();
                window.Map(PageSize, PageSize, file, 0, isWritable: true);
                window.Map(3 * PageSize, PageSize, file, 0, isWritable: true);
                Assert.That(() => window.Map(10 * PageSize, PageSize, file, 0, isWritable: true), Throws.TypeOf<VhostException>(), "5 of 7, and one may need 3");
                window.Unmap(3 * PageSize, PageSize);
                window.Clear();
            }
            window.Map(0, PageSize, file, 0, isWritable: true);
        }
        Assert.That(budget.TryTake(7));
    }

    // Its requests are served by a thread that nobody waits for.
    [Test]
    public void Map_WindowIsGone_IsRefused()
    {
        var window = new SharedMemoryWindow(0, WindowSize);
        using FileDescriptor file = FileOf(1, PageSize);
        window.Dispose();
        Assert.That(() => window.Map(0, PageSize, file, 0, isWritable: true), Throws.TypeOf<VhostException>().With.Message.Contains("is gone"));
        Assert.That(() => window.Unmap(0, PageSize), Throws.TypeOf<VhostException>());
        Assert.That(window.Clear, Throws.Nothing);
    }

    private VhostUserMachine DaxMachine(out SharedMemoryWindow window)
    {
        var machine = new VhostUserMachine(DaxBackend(WindowSize), Options with { Dax = true });
        window = machine.Device.SharedMemory.Single();
        window.Start = new GuestAddress(WindowStart);
        return machine;
    }

    private FakeBackend DaxBackend(ulong size) => DaxBackend(() => size);

    private FakeBackend DaxBackend(Func<ulong> sizeNow) => new(_path)
    {
        Config = SpaceOf("x", 1),
        Script = (message, connection) =>
        {
            if ((VhostUserRequest)message.Header.Request != VhostUserRequest.GetShmemConfig)
                return false;
            byte[] sizes = new byte[PayloadSize.ShmemConfig];
            ulong size = sizeNow();
            sizes[0] = size == 0 ? (byte)0 : (byte)1;
            MemoryMarshal.Write(sizes.AsSpan(8), in size);
            connection.Send(message.Header.Request, VhostUserFlags.Reply, sizes, [], TimeSpan.FromSeconds(5));
            return true;
        },
    };

    private static ulong? Map(VhostUserMachine machine, FileDescriptor file, ulong fileOffset, ulong offset, ulong length)
    {
        var mapping = new ShmemMapPayload(0, fileOffset, offset, length, ShmemMapPayload.FlagWritable);
        return machine.Backend.Ask(
            VhostUserBackendRequest.ShmemMap, MemoryMarshal.AsBytes(new ReadOnlySpan<ShmemMapPayload>(in mapping)), needReply: true, file);
    }

    private static ulong? Unmap(VhostUserMachine machine, ulong offset, ulong length)
    {
        var mapping = new ShmemMapPayload(0, 0, offset, length, 0);
        return machine.Backend.Ask(VhostUserBackendRequest.ShmemUnmap, MemoryMarshal.AsBytes(new ReadOnlySpan<ShmemMapPayload>(in mapping)));
    }

    private static unsafe FileDescriptor FileOf(byte content, ulong size)
    {
        FileDescriptor file = MemFd.Create("shared", size);
        using MemoryMapping mapping = MemoryMapping.Map(file, size, MappingAccess.SharedReadWrite);
        new Span<byte>(mapping.Pointer, (int)size).Fill(content);
        return file;
    }

    private static byte ByteAt(SharedMemoryWindow window, ulong offset) => Marshal.ReadByte(window.HostAddress + (nint)offset);

    // Whether the kernel has something there that may be read.
    private static bool IsMapped(SharedMemoryWindow window, ulong offset)
    {
        ulong address = (ulong)window.HostAddress + offset;
        foreach (string line in File.ReadLines("/proc/self/maps"))
        {
            string[] range = line.Split(' ')[0].Split('-');
            if (address >= Convert.ToUInt64(range[0], 16) && address < Convert.ToUInt64(range[1], 16))
                return line.Split(' ')[1].StartsWith('r');
        }
        return false;
    }
}
