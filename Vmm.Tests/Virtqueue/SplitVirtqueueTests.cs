using System.Diagnostics;
using FsCheck;
using FsCheck.Fluent;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Tests.Virtqueue;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class SplitVirtqueueTests : IDisposable
{
    private const ulong AllFeatures = VirtioFeatures.Version1 | VirtioFeatures.IndirectDescriptors;
    private const ulong Table = 0x10000;

    private readonly RingDriver _driver = new();

    public void Dispose() => _driver.Dispose();

    private SplitVirtqueue Queue(ulong features = AllFeatures) => new(_driver.Memory.AddressSpace, _driver.Config, features);

    [Test]
    public void TryTake_NothingAvailable_IsFalse() => Assert.That(Queue().TryTake(out _), Is.False);

    [Test]
    public void TryTake_CutUpRequest_ReadsAndWritesItAsOne()
    {
        _driver.Memory.Write(new(0x8000), 0x0807060504030201UL);
        _driver.SetDescriptor(3, 0x8000, 3, RingDriver.Next, 1);
        _driver.SetDescriptor(1, 0x8003, 5, RingDriver.Next, 6);
        _driver.SetDescriptor(6, 0x9000, 2, RingDriver.Next | RingDriver.Write, 7);
        _driver.SetDescriptor(7, 0x9002, 4, RingDriver.Write);
        _driver.Publish(3);
        SplitVirtqueue queue = Queue();

        Assert.That(queue.TryTake(out DescriptorChain chain));
        byte[] read = new byte[6];
        Assert.That(chain.ReadableLength, Is.EqualTo(8));
        Assert.That(chain.Read(1, read), Is.EqualTo(6));
        Assert.That(read, Is.EqualTo(new byte[] { 2, 3, 4, 5, 6, 7 }));
        Assert.That(chain.Read(6, read), Is.EqualTo(2), "at the end");
        Assert.That(chain.WritableLength, Is.EqualTo(6));
        Assert.That(chain.Write(1, [9, 8, 7]), Is.EqualTo(3));
        Assert.That(_driver.Memory.Read<uint>(new(0x9000)), Is.EqualTo(0x07080900));
        Assert.That(chain.Write(5, [1, 2]), Is.EqualTo(1), "no more room");

        queue.Return(chain.Head, 4);
        Assert.That(_driver.UsedIndex, Is.EqualTo(1));
        Assert.That(_driver.UsedEntry(0), Is.EqualTo((3U, 4U)));
        Assert.That(queue.Base, Is.EqualTo(1));
    }

    [Test]
    public void TryTake_IndirectTable_IsFollowed()
    {
        _driver.SetDescriptor(0, 0x8000, 4, RingDriver.Next, 1, Table);
        _driver.SetDescriptor(1, 0x9000, 8, RingDriver.Write, 0, Table);
        _driver.SetDescriptor(5, Table, 32, RingDriver.Indirect);
        _driver.Publish(5);

        Assert.That(Queue().TryTake(out DescriptorChain chain));
        Assert.That(chain.Head, Is.EqualTo(5));
        Assert.That(chain.ReadableLength, Is.EqualTo(4));
        Assert.That(chain.WritableLength, Is.EqualTo(8));
    }

    // A hostile driver's requests while the guest is migrated: each of their descriptors names all of memory.
    [Test]
    public void Return_EachDescriptorIsAllOfMemory_LooksAtEachPageOnce()
    {
        const int size = 512 << 20;
        const int logSize = size / 4096 / 8;
        const int requests = 40;
        using GuestMemory memory = GuestMemory.Create([(new(0), size)]);
        DriverQueue driver = DriverQueue.Create(memory.AddressSpace, 0x1000, 16, AllFeatures);
        using FileDescriptor file = MemFd.Create("log", logSize);
        using var log = new DirtyLog(MemoryMapping.Map(file, logSize, MappingAccess.SharedReadWrite), 0, logSize);
        using MemoryMapping view = MemoryMapping.Map(file, logSize, MappingAccess.SharedReadWrite);
        VirtQueue queue = VirtQueue.Create(memory.AddressSpace, driver.Layout, AllFeatures);
        queue.LogTo(log, null);
        var buffers = new (ulong, uint, bool)[VirtQueue.MaxChainLength];
        for (int i = 0; i < buffers.Length; i++)
            buffers[i] = ((ulong)(buffers.Length - i), size - VirtQueue.MaxChainLength, true);
        var watch = new Stopwatch();
        for (int i = 0; i < requests; i++)
        {
            ushort head = driver.Add(buffers, 0x100000);
            Assert.That(queue.TryTake(out _));
            watch.Start();
            queue.Return(head, 0);
            watch.Stop();
            Assert.That(driver.TryGetUsed(out _, out _));
        }
        Assert.That(watch.Elapsed, Is.LessThan(TimeSpan.FromSeconds(2)), "some milliseconds; page by page it would be 5,000,000,000 steps");
        Assert.That(IndexOfClean(view, logSize), Is.EqualTo(-1));

        static unsafe int IndexOfClean(MemoryMapping log, int size) => new ReadOnlySpan<byte>(log.Pointer, size).IndexOfAnyExcept((byte)0xFF);
    }

    [Test]
    public void TryTake_BufferAcrossNeighbouringRegions_IsInBoth()
    {
        // What follows the first region in the guest is elsewhere here.
        GuestRegion first = _driver.Memory.Regions[0];
        var memory = new GuestAddressSpace(first, first with { Start = first.End, Size = 0x1000, HostAddress = first.HostAddress + 0x50000 });
        _driver.SetDescriptor(0, RingDriver.MemorySize - 3, 8, RingDriver.Write);
        _driver.Publish(0);
        var queue = new SplitVirtqueue(memory, _driver.Config, AllFeatures);

        Assert.That(queue.TryTake(out DescriptorChain chain));
        Assert.That(chain.WritableLength, Is.EqualTo(8));
        Assert.That(chain.Write(0, [1, 2, 3, 4, 5, 6, 7, 8]), Is.EqualTo(8));
        Assert.That(_driver.Memory.Read<uint>(new(RingDriver.MemorySize - 4)), Is.EqualTo(0x03020100));
        Assert.That(_driver.Memory.Read<ulong>(new(0x50000)), Is.EqualTo(0x0807060504));
    }

    [Test]
    public void TryTake_BuffersAcrossTooManyRegions_IsBroken()
    {
        GuestRegion first = _driver.Memory.Regions[0];
        GuestRegion[] pages = [.. Enumerable.Range(0, 32).Select(i => first with { Start = first.Start + (ulong)i * 0x8000, Size = 0x8000, HostAddress = first.HostAddress + i * 0x8000 })];
        // 64 buffers of 16 pieces each are as many pieces as there may be.
        _driver.SetDescriptor(0, Table + 16, 64 * 16, RingDriver.Indirect);
        _driver.SetDescriptor(1, Table, 65 * 16, RingDriver.Indirect);
        for (int i = 1; i < 65; i++)
            _driver.SetDescriptor(i, 0x8000, 16 * 0x8000, i == 64 ? RingDriver.Write : (ushort)(RingDriver.Write | RingDriver.Next), (ushort)i, Table);
        _driver.Publish(0);
        var queue = new SplitVirtqueue(new GuestAddressSpace(pages), _driver.Config, AllFeatures);

        Assert.That(queue.TryTake(out DescriptorChain chain));
        Assert.That(chain.Writable.Length, Is.EqualTo(VirtQueue.MaxChainLength));
        _driver.SetDescriptor(0, 0x8000, 0x8000, RingDriver.Write | RingDriver.Next, 1, Table);
        for (int i = 1; i < 65; i++)
            _driver.SetDescriptor(i, 0x8000, 16 * 0x8000, i == 64 ? RingDriver.Write : (ushort)(RingDriver.Write | RingDriver.Next), (ushort)(i + 1), Table);
        _driver.Publish(1);
        Assert.Throws<VirtqueueException>(() => queue.TryTake(out _));
    }

    [TestCase(0x8000UL, 8U, RingDriver.Next, (ushort)0, Description = "a loop")]
    [TestCase(0x8000UL, 8U, RingDriver.Next, (ushort)8, Description = "a descriptor outside the ring")]
    [TestCase(RingDriver.MemorySize, 8U, (ushort)0, (ushort)0, Description = "an address outside memory")]
    [TestCase(RingDriver.MemorySize - 4, 8U, (ushort)0, (ushort)0, Description = "across the end of memory")]
    [TestCase(ulong.MaxValue - 3, 8U, (ushort)0, (ushort)0, Description = "wraps")]
    [TestCase(0x8000UL, uint.MaxValue, (ushort)0, (ushort)0, Description = "a huge length")]
    [TestCase(Table, 16U, RingDriver.Indirect | RingDriver.Next, (ushort)1, Description = "an indirect table in the middle")]
    [TestCase(Table, 0U, RingDriver.Indirect, (ushort)0, Description = "an empty indirect table")]
    [TestCase(Table, 24U, RingDriver.Indirect, (ushort)0, Description = "half a descriptor")]
    [TestCase(Table, 16U * 1025, RingDriver.Indirect, (ushort)0, Description = "an indirect table longer than the longest chain")]
    [TestCase(Table, 0xFFFF_FFF0, RingDriver.Indirect, (ushort)0, Description = "a huge indirect table")]
    [TestCase(RingDriver.MemorySize - 16, 32U, RingDriver.Indirect, (ushort)0, Description = "an indirect table across the end")]
    public void TryTake_BadDescriptor_IsBroken(ulong address, uint length, int flags, ushort next)
    {
        _driver.SetDescriptor(0, address, length, (ushort)flags, next);
        _driver.Publish(0);
        Assert.That(() => Queue().TryTake(out _), Throws.TypeOf<VirtqueueException>());
    }

    // A device that completes requests later would use the first one's memory for both.
    [Test]
    public void TryTake_RequestThatIsTakenAgainBeforeItsReturn_IsBroken()
    {
        _driver.SetDescriptor(2, 0x8000, 8, RingDriver.Write);
        _driver.Publish(2);
        _driver.Publish(2);
        SplitVirtqueue queue = Queue();

        Assert.That(queue.TryTake(out DescriptorChain chain));
        ushort head = chain.Head;
        Assert.That(() => queue.TryTake(out _), Throws.TypeOf<VirtqueueException>());
        queue.Return(head, 8);
        Assert.That(queue.TryTake(out _), "once it is back it may be made available again");
    }

    // VIRTIO 1.2 §2.7.5.3.2: the device handles normal descriptors before the indirect one, and ignores that one's WRITE flag.
    [Test]
    public void TryTake_TableBehindNormalDescriptors_IsFollowed()
    {
        _driver.SetDescriptor(0, 0x8000, 4, RingDriver.Next, 1);
        _driver.SetDescriptor(1, Table, 32, RingDriver.Indirect | RingDriver.Write);
        _driver.SetDescriptor(0, 0x8100, 8, RingDriver.Next, 1, Table);
        _driver.SetDescriptor(1, 0x9000, 16, RingDriver.Write, 0, Table);
        _driver.Publish(0);

        Assert.That(Queue().TryTake(out DescriptorChain chain));
        Assert.That((chain.ReadableLength, chain.WritableLength), Is.EqualTo((12UL, 16UL)));
    }

    [Test]
    public void TryTake_TableInATable_IsBroken()
    {
        _driver.SetDescriptor(0, Table, 16, RingDriver.Indirect, 0, Table);
        _driver.SetDescriptor(0, Table, 16, RingDriver.Indirect);
        _driver.Publish(0);
        Assert.That(() => Queue().TryTake(out _), Throws.TypeOf<VirtqueueException>());
    }

    [Test]
    public void TryTake_IndirectNotNegotiated_IsBroken()
    {
        _driver.SetDescriptor(0, 0x8000, 4, 0, 0, Table);
        _driver.SetDescriptor(0, Table, 16, RingDriver.Indirect);
        _driver.Publish(0);
        Assert.That(() => Queue(VirtioFeatures.Version1).TryTake(out _), Throws.TypeOf<VirtqueueException>());
    }

    [Test]
    public void TryTake_ReadableAfterWritable_IsBroken()
    {
        _driver.SetDescriptor(0, 0x8000, 4, RingDriver.Next | RingDriver.Write, 1);
        _driver.SetDescriptor(1, 0x8000, 4, 0);
        _driver.Publish(0);
        Assert.That(() => Queue().TryTake(out _), Throws.TypeOf<VirtqueueException>());
    }

    [TestCase((ushort)8, true)]
    [TestCase((ushort)9, false)]
    [TestCase((ushort)0xFFFF, false)]
    public void TryTake_AvailableIndexJumps_IsBrokenBeyondTheRing(ushort index, bool isGood)
    {
        for (int i = 0; i < 8; i++)
            _driver.SetDescriptor(i, 0x8000, 4, 0);
        _driver.SetAvailableIndex(index);
        if (isGood)
            Assert.That(Queue().TryTake(out _));
        else
            Assert.That(() => Queue().TryTake(out _), Throws.TypeOf<VirtqueueException>());
    }

    [Test]
    public void Queue_IndicesWrap_GoesOn()
    {
        SplitVirtqueue queue = Queue();
        for (int i = 0; i < 0x10010; i++)
        {
            _driver.PublishRequest([1], 1);
            Assert.That(queue.TryTake(out DescriptorChain chain), $"request {i}");
            queue.Return(chain.Head, 1);
        }
        Assert.That(_driver.UsedIndex, Is.EqualTo(0x10));
    }

    [Test]
    public void Put_SeveralRequests_AreSeenTogether()
    {
        SplitVirtqueue queue = Queue();
        for (int i = 0; i < 3; i++)
        {
            _driver.SetDescriptor(i, 0x8000, 4, 0);
            _driver.Publish((ushort)i);
            Assert.That(queue.TryTake(out DescriptorChain chain));
            queue.Put(chain.Head, (uint)i);
        }
        Assert.That(_driver.UsedIndex, Is.Zero);
        Assert.That(queue.ShouldCall(), Is.True);
        Assert.That(_driver.UsedIndex, Is.EqualTo(3));
        Assert.That(_driver.UsedEntry(2), Is.EqualTo((2U, 2U)));
    }

    [Test]
    public void ShouldCall_NoInterruptFlag_IsFalse()
    {
        SplitVirtqueue queue = Queue();
        Assert.That(TakeOne(queue), Is.True);
        _driver.SetFlags(1);
        Assert.That(TakeOne(queue), Is.False);
    }

    [Test]
    public void ShouldCall_NothingReturned_IsFalse() => Assert.That(Queue().ShouldCall(), Is.False);

    [TestCase((ushort)0, true)]
    [TestCase((ushort)1, false)]
    [TestCase((ushort)0xFFFF, false)]
    public void ShouldCall_EventIndex_IsTrueOnceThatIsUsed(ushort wanted, bool expected)
    {
        _driver.SetUsedEvent(wanted);
        Assert.That(TakeOne(Queue(AllFeatures | VirtioFeatures.EventIndex)), Is.EqualTo(expected));
    }

    [Test]
    public void EnableKicks_EventIndex_AsksForAKickAtTheNext()
    {
        SplitVirtqueue queue = Queue(AllFeatures | VirtioFeatures.EventIndex);
        TakeOne(queue);
        Assert.That(queue.TryTake(out _), Is.False);
        Assert.That(queue.EnableKicks(), Is.False);
        Assert.That(_driver.AvailableEvent, Is.EqualTo(1));
    }

    [Test]
    public void TryTake_AnyRing_GivesBuffersInMemoryOrIsBroken()
    {
        int good = 0, broken = 0;
        // Mostly plausible values, so that many chains get far.
        Gen<int[]> ring = Gen.OneOf(Gen.Choose(0, 9), Gen.Elements(0, 1, 2, 16, 32, 0x8000, 0x10000, 0xFFFF0, -1), Gen.Choose(int.MinValue, int.MaxValue))
            .ArrayOf(8 * 4 + 1);
        Prop.ForAll(ring.ToArbitrary(), values =>
        {
            using var driver = new RingDriver();
            for (int i = 0; i < 8; i++)
                driver.SetDescriptor(i, (ulong)(uint)values[4 * i], (uint)values[4 * i + 1], (ushort)values[4 * i + 2], (ushort)values[4 * i + 3]);
            driver.SetAvailableIndex((ushort)(values[^1] & 15));
            var queue = new SplitVirtqueue(driver.Memory.AddressSpace, driver.Config, AllFeatures);
            try
            {
                for (int i = 0; i < 16 && queue.TryTake(out DescriptorChain chain); i++)
                {
                    good++;
                    foreach (GuestBuffer buffer in chain.Writable)
                        buffer.Span.Fill(0xAA);
                    Assert.That(chain.Readable.Length + chain.Writable.Length, Is.InRange(1, 8));
                    queue.Return(chain.Head, 0);
                }
            }
            catch (VirtqueueException)
            {
                broken++;
            }
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(500));
        Assert.That(good, Is.GreaterThan(10));
        Assert.That(broken, Is.GreaterThan(10));
    }

    private bool TakeOne(SplitVirtqueue queue)
    {
        _driver.PublishRequest([1], 1);
        Assert.That(queue.TryTake(out DescriptorChain chain));
        queue.Return(chain.Head, 1);
        return queue.ShouldCall();
    }
}
