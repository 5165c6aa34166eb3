using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Tests.Virtqueue;

/// <summary>In-flight logs as a back-end leaves them that is killed between two of its steps; the layout is that of vhost-user.rst,
/// "Inflight I/O tracking".</summary>
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed unsafe class InflightTests : IDisposable
{
    private const int Size = 4;
    private const int SplitEntries = 16;
    private const int PackedEntries = 32;

    private readonly GuestMemory _memory = GuestMemory.Create([(new(0), 1 << 20)]);
    private readonly FileDescriptor _file = MemFd.Create("inflight", 4096);
    private readonly MemoryMapping _log;

    public InflightTests() => _log = MemoryMapping.Map(_file, 4096, MappingAccess.SharedReadWrite);

    public void Dispose()
    {
        _log.Dispose();
        _file.Dispose();
        _memory.Dispose();
    }

    [Test]
    public void Split_Layout_IsTheSpecifications()
    {
        (VirtQueue queue, DriverQueue driver) = Begin(0);
        ushort first = driver.Add([(0x8000, 4, false)]), second = driver.Add([(0x9000, 4, false)]);
        queue.TryTake(out _);
        queue.TryTake(out _);
        Assert.That(Short(8), Is.EqualTo(1), "the version");
        Assert.That(Short(10), Is.EqualTo(Size), "descriptors");
        Assert.That(_log.Pointer[SplitEntries + 16 * first], Is.EqualTo(1), "in flight");
        Assert.That(Long(SplitEntries + 16 * second + 8), Is.EqualTo(Long(SplitEntries + 16 * first + 8) + 1), "counted up");
        queue.Return(second, 0);
        Assert.That(_log.Pointer[SplitEntries + 16 * second], Is.Zero);
        Assert.That(Short(12), Is.EqualTo(second), "the head of the last batch");
        Assert.That(Short(14), Is.EqualTo(1), "the used index");
    }

    [Test]
    public void Split_KilledAfterTheUsedIndex_TakesNothingAgain()
    {
        (VirtQueue queue, DriverQueue driver) = Begin(0);
        ushort head = driver.Add([(0x8000, 4, false)]);
        queue.TryTake(out _);
        queue.Return(head, 0);
        // As it was before the last two steps.
        _log.Pointer[SplitEntries + 16 * head] = 1;
        Short(14) = 0;
        Assert.That(Again(driver, 0).TryTake(out _), Is.False);
        Assert.That(_log.Pointer[SplitEntries + 16 * head], Is.Zero);
    }

    [Test]
    public void Split_KilledBeforeTheUsedIndex_TakesItAgain()
    {
        (VirtQueue queue, DriverQueue driver) = Begin(0);
        ushort head = driver.Add([(0x8000, 4, false)]);
        queue.TryTake(out _);
        Short(12) = head;   // the batch was begun, and the driver told nothing
        VirtQueue next = Again(driver, 0);
        Assert.That(next.TryTake(out DescriptorChain chain));
        Assert.That(chain.Head, Is.EqualTo(head));
        Assert.That(next.TryTake(out _), Is.False);
    }

    [Test]
    public void Packed_Layout_IsTheSpecifications()
    {
        (VirtQueue queue, DriverQueue driver) = Begin(VirtioFeatures.RingPacked);
        ushort id = driver.Add([(0x8000, 4, false), (0x9000, 5, true)]);
        queue.TryTake(out _);
        Assert.That(Short(8), Is.EqualTo(1), "the version");
        Assert.That(Short(10), Is.EqualTo(Size), "descriptors");
        Assert.That(Short(12), Is.EqualTo(2), "the head of the free list");
        Assert.That(_log.Pointer[PackedEntries], Is.EqualTo(1), "in flight");
        Assert.That(Short(PackedEntries + 4), Is.EqualTo(1), "the last of the request");
        Assert.That(Short(PackedEntries + 6), Is.EqualTo(2), "its descriptors");
        Assert.That(Long(PackedEntries + 32 + 24), Is.EqualTo(0x9000), "the second one's address");
        Assert.That(Short(PackedEntries + 32 + 20), Is.EqualTo(5), "and length");
        Assert.That(_log.Pointer[20], Is.EqualTo(1), "the wrap counter");
        queue.Return(id, 0);
        Assert.That(_log.Pointer[PackedEntries], Is.Zero);
        Assert.That(Short(12), Is.Zero, "free again");
        Assert.That(Short(16), Is.EqualTo(2), "the used index");
        Assert.That(Short(18), Is.EqualTo(2), "and the old one");
    }

    [TestCase(2, Description = "part of the ring")]
    [TestCase(4, Description = "the whole ring: the index is where it was")]
    public void Packed_KilledAfterTheDescriptor_TakesNothingAgain(int count)
    {
        (VirtQueue queue, DriverQueue driver) = Begin(VirtioFeatures.RingPacked);
        var buffers = new (ulong, uint, bool)[count];
        Array.Fill(buffers, (0x8000UL, 4U, false));
        ushort id = driver.Add(buffers);
        queue.TryTake(out _);
        queue.Return(id, 0);
        // As it was before the last steps: the old place, and still in flight.
        _log.Pointer[PackedEntries] = 1;
        Short(14) = (ushort)count;
        Short(18) = 0;
        _log.Pointer[21] = 1;
        VirtQueue next = Again(driver, VirtioFeatures.RingPacked);
        Assert.That(next.TryTake(out _), Is.False);
        Assert.That(driver.TryGetUsed(out _, out _));
        ushort other = driver.Add([(0x9000, 4, false)]);
        Assert.That(next.TryTake(out DescriptorChain chain));
        Assert.That(chain.Head, Is.EqualTo(other));
        next.Return(other, 7);
        Assert.That(driver.TryGetUsed(out ushort used, out uint written) && used == other && written == 7);
    }

    // The place is written down by one store. Earlier versions had two, and one that was stopped between them saw the driver go around the ring.
    [Test]
    public void Packed_KilledBetweenTheWrapCounterAndTheIndex_GoesOnBehindTheLast()
    {
        (VirtQueue queue, DriverQueue driver) = Begin(VirtioFeatures.RingPacked);
        for (int i = 0; i < Size; i++)
        {
            ushort id = driver.Add([(0x8000, 4, false)]);
            queue.TryTake(out _);
            queue.Return(id, 0);
            Assert.That(driver.TryGetUsed(out _, out _));
        }
        Assert.That((Short(16), Short(18), _log.Pointer[20], _log.Pointer[21]), Is.EqualTo(((ushort)0, (ushort)0, (byte)0, (byte)0)));
        Short(18) = Size - 1;
        ushort[] added = [.. Enumerable.Range(0, Size).Select(_ => driver.Add([(0x9000, 4, false)]))];
        VirtQueue next = Again(driver, VirtioFeatures.RingPacked);
        foreach (ushort id in added)
        {
            Assert.That(next.TryTake(out DescriptorChain chain));
            Assert.That(chain.Head, Is.EqualTo(id));
            next.Return(id, 0);
            Assert.That(driver.TryGetUsed(out ushort used, out _) && used == id);
        }
    }

    [Test]
    public void Packed_KilledBeforeTheDescriptor_TakesItAgain()
    {
        (VirtQueue queue, DriverQueue driver) = Begin(VirtioFeatures.RingPacked);
        ushort id = driver.Add([(0x8000, 4, false), (0x9000, 4, true)]);
        queue.TryTake(out _);
        // The log is ahead, the ring is not.
        Short(PackedEntries + 32 + 2) = 2;
        Short(12) = 0;
        Short(16) = 2;
        VirtQueue next = Again(driver, VirtioFeatures.RingPacked);
        Assert.That(next.TryTake(out DescriptorChain chain));
        Assert.That(chain.Head, Is.EqualTo(id));
        Assert.That(chain.Writable.Length, Is.EqualTo(1));
        next.Return(id, 1);
        Assert.That(driver.TryGetUsed(out ushort used, out _) && used == id);
    }

    [TestCase(12, (ushort)1, Description = "a free list that is too short")]
    [TestCase(14, (ushort)9, Description = "one that begins nowhere")]
    [TestCase(PackedEntries + 6, (ushort)0, Description = "a request of nothing")]
    [TestCase(PackedEntries + 6, (ushort)5, Description = "one longer than the ring")]
    [TestCase(PackedEntries + 2, (ushort)0, Description = "one that loops")]
    [TestCase(18, (ushort)4, Description = "a used index outside the ring")]
    [TestCase(10, (ushort)3, Description = "another ring's size")]
    [TestCase(8, (ushort)2, Description = "another version")]
    public void Packed_Nonsense_IsBroken(int offset, ushort value)
    {
        (VirtQueue queue, DriverQueue driver) = Begin(VirtioFeatures.RingPacked);
        driver.Add([(0x8000, 4, false), (0x9000, 4, true)]);
        queue.TryTake(out _);
        Short(offset) = value;
        if (offset == 12)
            Short(14) = value;
        Assert.That(() => Again(driver, VirtioFeatures.RingPacked), Throws.TypeOf<VirtqueueException>());
    }

    [Test]
    public void Packed_ChangedWhileItIsRead_IsWhatWasChecked()
    {
        new PackedInflight(_log.Pointer, Size).Open((0, true), (_, _) => true, Size);
        Short(16) = 2;   // ahead of the old place, so that the ring is looked at
        var again = new PackedInflight(_log.Pointer, Size);
        again.Open((0, true), (_, _) =>
        {
            Short(12) = Short(14) = Short(16) = Short(18) = 0xFFFF;
            return false;
        }, Size);
        Assert.That(again.Used, Is.EqualTo((2, true)));
    }

    private ref ushort Short(int offset) => ref *(ushort*)(_log.Pointer + offset);

    private ulong Long(int offset) => *(ulong*)(_log.Pointer + offset);

    private (VirtQueue Queue, DriverQueue Driver) Begin(ulong features)
    {
        DriverQueue driver = DriverQueue.Create(_memory.AddressSpace, 0x1000, Size, features);
        return (Again(driver, features), driver);
    }

    private VirtQueue Again(DriverQueue driver, ulong features)
    {
        uint start = (features & VirtioFeatures.RingPacked) != 0 ? PackedDriverQueue.Start : 0;
        VirtQueue queue = VirtQueue.Create(_memory.AddressSpace, driver.Layout with { Base = start }, features);
        queue.TrackInflight(_log.Pointer, Size);
        return queue;
    }
}
