using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Tests.Memory;

public class GuestMemoryTests
{
    private const ulong MiB = 1 << 20;
    private const ulong GiB = 1 << 30;

    [Test]
    public void Create_TwoRegions_LayThemOneAfterAnotherInTheFile()
    {
        using GuestMemory memory = GuestMemory.Create([(new(0), 3 * GiB), (new(4 * GiB), 64 * MiB)]);

        Assert.That(memory.Regions.Length, Is.EqualTo(2));
        Assert.That(memory.Size, Is.EqualTo(3 * GiB + 64 * MiB));
        Assert.That(memory.Regions[1].FileOffset, Is.EqualTo(3 * GiB));
        Assert.That((ulong)(memory.Regions[1].HostAddress - memory.Regions[0].HostAddress), Is.EqualTo(3 * GiB));
    }

    [Test]
    public void Create_Memory_IsLeftOutOfCoreDumps()
    {
        using GuestMemory memory = GuestMemory.Create([(new(0), 64 * MiB)]);

        string start = $"{memory.Regions[0].HostAddress:x}-";
        string flags = File.ReadLines("/proc/self/smaps").SkipWhile(line => !line.StartsWith(start, StringComparison.Ordinal))
            .First(line => line.StartsWith("VmFlags:", StringComparison.Ordinal));
        Assert.That(flags.Split(' '), Does.Contain("dd"));
    }

    [Test]
    public void Create_MoreThanTheHostHas_IsBackedLazily()
    {
        using GuestMemory memory = GuestMemory.Create([(new(0), 3 * GiB), (new(4 * GiB), 1024 * GiB)]);

        memory.Write(new GuestAddress(1000 * GiB), 42UL);

        Assert.That(memory.Read<ulong>(new GuestAddress(1000 * GiB)), Is.EqualTo(42));
    }

    [TestCase(0UL, 8, true)]
    [TestCase(3 * GiB - 8, 8, true)]
    [TestCase(3 * GiB - 7, 8, false, Description = "ends in the hole")]
    [TestCase(3 * GiB, 1, false, Description = "in the hole")]
    [TestCase(4 * GiB - 1, 2, false, Description = "begins in the hole")]
    [TestCase(4 * GiB, 8, true)]
    [TestCase(4 * GiB + 64 * MiB - 8, 8, true)]
    [TestCase(4 * GiB + 64 * MiB - 7, 8, false, Description = "past the end")]
    [TestCase(ulong.MaxValue, 1, false)]
    [TestCase(ulong.MaxValue - 6, 8, false, Description = "wraps")]
    [TestCase(0UL, int.MaxValue, true)]
    public void TrySlice_AnyRange_OnlyInsideOneRegion(ulong address, int length, bool inside)
    {
        using GuestMemory memory = GuestMemory.Create([(new(0), 3 * GiB), (new(4 * GiB), 64 * MiB)]);

        Assert.That(memory.TrySlice(new GuestAddress(address), (ulong)length, out Span<byte> span), Is.EqualTo(inside));
        Assert.That(span.Length, Is.EqualTo(inside ? length : 0));
        if (!inside)
            Assert.Throws<GuestMemoryException>(() => memory.Slice(new GuestAddress(address), length));
    }

    [TestCase(ulong.MaxValue)]
    [TestCase((ulong)int.MaxValue + 1)]
    public void TrySlice_HugeLength_IsRefused(ulong length)
    {
        using GuestMemory memory = GuestMemory.Create([(new(0), 3 * GiB)]);

        Assert.That(memory.TrySlice(new GuestAddress(0), length, out _), Is.False);
    }

    [Test]
    public void File_Truncated_IsRefusedByItsSeals()
    {
        using GuestMemory memory = GuestMemory.Create([(new(0), MiB)]);

        string path = $"/proc/self/fd/{memory.File.Number}";
        Assert.Throws<UnauthorizedAccessException>(() => File.OpenWrite(path).SetLength(0));
        Assert.That(new FileInfo(path).LinkTarget, Does.Contain("guest-memory"));
    }

    [Test]
    public void Clear_WrittenMemory_ReadsAsZero()
    {
        using GuestMemory memory = GuestMemory.Create([(new(0), MiB)]);
        memory.Write(new GuestAddress(0x1234), 0x55);

        memory.Clear();

        Assert.That(memory.Read<int>(new GuestAddress(0x1234)), Is.Zero);
    }

    [Test]
    public void TryUseHugePages_WrittenMemory_KeepsItsContents()
    {
        using GuestMemory memory = GuestMemory.Create([(new(0), 8 * MiB + 4096)]);
        memory.Write(new GuestAddress(3 * MiB), 0x55);

        bool possible = memory.TryUseHugePages(new GuestAddress(MiB), 7 * MiB + 4096);

        Assert.That(memory.Read<int>(new GuestAddress(3 * MiB)), Is.EqualTo(0x55));
        Assert.That(memory.Read<int>(new GuestAddress(5 * MiB)), Is.Zero);
        if (!possible)
            Assert.Ignore("this host cannot gather pages into huge pages (MADV_COLLAPSE, Linux 6.1)");
        string map = File.ReadAllText("/proc/self/smaps");
        Assert.That(map[map.IndexOf("guest-memory", StringComparison.Ordinal)..], Does.Match(@"ShmemPmdMapped: +8192 kB"));
    }

    [Test]
    public void TryUseHugePages_OutsideOfRam_IsRefused()
    {
        using GuestMemory memory = GuestMemory.Create([(new(0), 4 * MiB)]);

        Assert.Throws<GuestMemoryException>(() => memory.TryUseHugePages(new GuestAddress(2 * MiB), 2 * MiB + 1));
        Assert.Throws<GuestMemoryException>(() => memory.TryUseHugePages(new GuestAddress(ulong.MaxValue), 1));
    }

    [Test]
    public void CreateOrClear_PrefaultedAndCancelled_DoesNotWait()
    {
        var options = new GuestMemoryOptions { Prefault = true };
        using var cancellation = new CancellationTokenSource();
        using GuestMemory memory = GuestMemory.Create([(new(0), 16 * MiB)], options, cancellation.Token);
        cancellation.Cancel();

        Assert.That(() => GuestMemory.Create([(new(0), 16 * MiB)], options, cancellation.Token), Throws.InstanceOf<OperationCanceledException>());
        Assert.That(() => memory.Clear(cancellation.Token), Throws.InstanceOf<OperationCanceledException>());
    }

    [Test]
    public void Create_Prefaulted_IsResidentAlsoWhenItWasCleared()
    {
        using GuestMemory memory = GuestMemory.Create([(new(0), 16 * MiB)], new GuestMemoryOptions { Prefault = true });
        Assert.That(ResidentKib(memory), Is.EqualTo(16 * 1024));
        memory.Write(new GuestAddress(MiB), 42);

        memory.Clear();

        Assert.That(memory.Read<int>(new GuestAddress(MiB)), Is.Zero);
        Assert.That(ResidentKib(memory), Is.EqualTo(16 * 1024));
        memory.Discard();
        Assert.That(ResidentKib(memory), Is.LessThan(1024));
    }

    private static long ResidentKib(GuestMemory memory)
    {
        string start = $"{memory.Regions[0].HostAddress:x}-";
        string line = File.ReadLines("/proc/self/smaps").SkipWhile(line => !line.StartsWith(start, StringComparison.Ordinal))
            .First(line => line.StartsWith("Rss:", StringComparison.Ordinal));
        return long.Parse(line["Rss:".Length..].Replace("kB", "", StringComparison.Ordinal), System.Globalization.CultureInfo.InvariantCulture);
    }

    [Test]
    public void Create_HugePagesThatTheHostLacks_SaysHowToReserveThem()
    {
        if (File.Exists("/proc/sys/vm/nr_hugepages") && File.ReadAllText("/proc/sys/vm/nr_hugepages").Trim() != "0")
            Assert.Ignore("this host has huge pages reserved");

        GuestMemoryException error = Assert.Throws<GuestMemoryException>(
            () => GuestMemory.Create([(new(0), 64 * MiB)], new GuestMemoryOptions { HugePageSize = 2 * MiB }))!;

        Assert.That(error.Message, Does.Contain("64 MiB").And.Contain("echo 32 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"));
        Assert.That(error.Message, Does.Contain("has not so many that are free").And.Not.Contain("max_map_count").And.Not.Contain("\n"));
        Assert.That(error.InnerException, Is.TypeOf<ErrnoException>());
    }

    // What a guest has not touched after a reboot must be there when it does: or it is ended by SIGBUS.
    [Test]
    public void Clear_HugePages_AreReservedAgain()
    {
        const string pages = "/sys/kernel/mm/hugepages/hugepages-2048kB/";
        if (!File.Exists(pages + "free_hugepages") || Count("free_hugepages") - Count("resv_hugepages") < 1)
            Assert.Ignore("this host has no free huge page of 2 MiB");
        using GuestMemory memory = GuestMemory.Create([(new(0), 2 * MiB)], new GuestMemoryOptions { HugePageSize = 2 * MiB });
        memory.Write(new GuestAddress(0x1234), 0x55);
        long reserved = Count("resv_hugepages");

        memory.Clear();

        Assert.That(Count("resv_hugepages"), Is.EqualTo(reserved + 1));
        Assert.That(memory.Read<int>(new GuestAddress(0x1234)), Is.Zero);

        static long Count(string what) => long.Parse(File.ReadAllText(pages + what), System.Globalization.CultureInfo.InvariantCulture);
    }

    [TestCase(0xFFFF_FFFF_FFFF_F000, 0x1000UL)]
    [TestCase(0xFFFF_FFFF_FFFF_F000, 0x2000UL)]
    [TestCase(0x1000UL, 0xFFFF_FFFF_FFFF_F000)]
    public void Create_RangeToTheEndOfAllAddresses_IsRefused(ulong start, ulong size) =>
        Assert.That(
            () => GuestMemory.Create([(new(0), 0x1000), (new(start), size)]),
            Throws.ArgumentException.With.Message.StartsWith($"bad range of guest memory 0x{start:x}+0x{size:x}"));

    [TestCase(0xFFFF_FFFF_FFFF_E000, 0x2000UL, 0xFFFF_FFFF_FFFF_F000, 0x1000UL)]
    [TestCase(0xFFFF_FFFF_FFFF_E000, 0x2000UL, 0xFFFF_FFFF_FFFF_F000, 0x10UL)]
    [TestCase(0xFFFF_FFFF_FFFF_E000, 0x2000UL, 0xFFFF_FFFF_FFFF_E000, 0x2000UL)]
    [TestCase(0x1000UL, 0x1000UL, 0x1FFFUL, 0x1000UL)]
    [TestCase(0UL, 1UL, 0UL, 1UL)]
    public void AddressSpace_RegionsOverlap_IsRefused(ulong start, ulong size, ulong other, ulong otherSize)
    {
        var region = new GuestRegion(new(start), size, 0, 0x1000);
        Assert.That(new GuestAddressSpace(region).Regions.Length, Is.EqualTo(1), "one may end where all addresses do");
        Assert.That(() => new GuestAddressSpace(region, new GuestRegion(new(other), otherSize, 0, 0x100000)),
            Throws.ArgumentException.With.Message.StartsWith($"region 0x{other:x}+0x{otherSize:x} is empty, wraps or overlaps another"));
    }

    [Test]
    public void Memory_Disposed_ThrowsEverywhere()
    {
        GuestMemory memory = GuestMemory.Create([(new(0), MiB)]);
        GuestAddressSpace space = memory.AddressSpace;
        var queue = new SplitVirtqueue(
            space, new RingLayout { Index = 0, Size = 4, DescriptorArea = new(0), DriverArea = new(0x100), DeviceArea = new(0x200) }, 0);
        memory.Dispose();
        using var others = new OtherFiles();
        memory.Dispose();
        Assert.Multiple(() =>
        {
            Assert.That(() => memory.Read<int>(new(0)), Throws.TypeOf<ObjectDisposedException>());
            Assert.That(() => memory.Write(new(0), 1), Throws.TypeOf<ObjectDisposedException>());
            Assert.That(() => memory.Slice(new(0), 1).Length, Throws.TypeOf<ObjectDisposedException>());
            Assert.That(() => memory.TrySlice(new(0), 1, out _), Throws.TypeOf<ObjectDisposedException>());
            Assert.That(() => memory.HostAddress(new(0), 1), Throws.TypeOf<ObjectDisposedException>());
            Assert.That(() => memory.Clear(), Throws.TypeOf<ObjectDisposedException>());
            Assert.That(() => memory.TryUseHugePages(new(0), 4096), Throws.TypeOf<ObjectDisposedException>());
            Assert.That(() => memory.File.Number, Throws.TypeOf<ObjectDisposedException>());
            Assert.That(() => space.Read<int>(new(0)), Throws.TypeOf<ObjectDisposedException>());
            Assert.That(() => queue.TryTake(out _), Throws.TypeOf<ObjectDisposedException>());
            Assert.That(() => queue.Return(0, 0), Throws.TypeOf<ObjectDisposedException>());
            Assert.That(() => queue.PutBack(0), Throws.TypeOf<ObjectDisposedException>());
            Assert.That(() => queue.ShouldCall(), Throws.TypeOf<ObjectDisposedException>());
            Assert.That(() => queue.EnableKicks(), Throws.TypeOf<ObjectDisposedException>());
            Assert.That(queue.SuppressKicks, Throws.TypeOf<ObjectDisposedException>());
            Assert.That(() => queue.Waiting, Throws.TypeOf<ObjectDisposedException>());
        });
        others.AssertUntouched();
    }

    [Test]
    public void Memory_DisposedWhileOthersUseIt_HarmsNobodyAndIsGivenBack()
    {
        for (int round = 0; round < 20; round++)
        {
            GuestMemory memory = GuestMemory.Create([(new(0), 4 * MiB)]);
            memory.Write(new(0), 0x55);
            Span<byte> span = memory.Slice(new(0), 4096);
            using var begun = new SemaphoreSlim(0);
            Task[] users = [.. Enumerable.Range(0, 2).Select(_ => Task.Factory.StartNew(
                () =>
                {
                    begun.Release();
                    for (ulong i = 0; ; i = (i + 4096) % (4 * MiB))
                        memory.Write(new(i), memory.Read<int>(new(i)) | 1);
                },
                TaskCreationOptions.LongRunning))];
            for (int i = 0; i < users.Length; i++)
                begun.Wait();
            memory.Dispose();
            foreach (Task user in users)
                Assert.That(user.Wait, Throws.InnerException.TypeOf<ObjectDisposedException>());
            Assert.That(span[0] & ~1, Is.Zero, "a span that somebody kept shows nothing of what was there");
            GC.KeepAlive(memory);
        }
    }

    [Test]
    public void Queue_MemoryIsForgotten_StaysMapped()
    {
        SplitVirtqueue queue = Make();
        for (int i = 0; i < 3; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
        Assert.That(queue.Waiting, Is.EqualTo(3));

        [System.Runtime.CompilerServices.MethodImpl(System.Runtime.CompilerServices.MethodImplOptions.NoInlining)]
        static SplitVirtqueue Make()
        {
            GuestMemory memory = GuestMemory.Create([(new(0), MiB)]);
            memory.Write(new(0x102), (ushort)3);
            return new SplitVirtqueue(memory.AddressSpace,
                new RingLayout { Index = 0, Size = 4, DescriptorArea = new(0), DriverArea = new(0x100), DeviceArea = new(0x200) }, 0);
        }
    }

    [TestCase(1UL)]
    [TestCase(2048UL)]
    [TestCase(3UL << 20)]
    public void Options_HugePageSizeIsNone_IsRefused(ulong size) =>
        Assert.That(() => new GuestMemoryOptions { HugePageSize = size },
            Throws.TypeOf<ArgumentOutOfRangeException>().With.Message.StartsWith("HugePageSize must be 0 or a power of two"));

    [Test]
    public void Create_BadRanges_AreTheCallersMistake()
    {
        Assert.Throws<ArgumentException>(() => GuestMemory.Create([]));
        Assert.Throws<ArgumentException>(() => GuestMemory.Create([(new(0), 0)]));
        Assert.Throws<ArgumentException>(() => GuestMemory.Create([(new(0), 4095)]));
        Assert.Throws<ArgumentException>(() => GuestMemory.Create([(new(1), 4096)]));
        Assert.Throws<ArgumentException>(() => GuestMemory.Create([(new(0), 8192), (new(4096), 4096)]));
        Assert.Throws<ArgumentException>(() => GuestMemory.Create(new (GuestAddress, ulong)[9]));
    }
}
