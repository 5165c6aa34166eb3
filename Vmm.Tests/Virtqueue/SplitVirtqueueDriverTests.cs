using NUnit.Framework;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Tests.Virtqueue;

public class SplitVirtqueueDriverTests
{
    private const ulong Start = 0x1000;
    private const int Size = 4;

    private GuestMemory _memory = null!;
    private SplitVirtqueueDriver _queue = null!;

    [SetUp]
    public void SetUp()
    {
        _memory = GuestMemory.Create([(new(0), 1 << 16)]);
        _queue = new SplitVirtqueueDriver(_memory, new(Start), Size, index: 3);
    }

    [TearDown]
    public void TearDown()
    {
        _queue.Dispose();
        _memory.Dispose();
    }

    [Test]
    public void Config_Areas_LieOneBehindTheOther()
    {
        Assert.That(_queue.Config.DescriptorArea, Is.EqualTo(new GuestAddress(Start)));
        Assert.That(_queue.Config.DriverArea, Is.EqualTo(new GuestAddress(Start + 64)));
        Assert.That(_queue.Config.DeviceArea, Is.EqualTo(new GuestAddress(Start + 64 + 16)), "aligned to 4");
        Assert.That(SplitVirtqueueDriver.BytesFor(Size), Is.EqualTo(64 + 16 + 38));
        Assert.That(_queue.Config.Index, Is.EqualTo(3));
    }

    [TestCase(0)]
    [TestCase(3)]
    [TestCase(65536)]
    public void New_SizeIsNoneOfARing_Throws(int size) =>
        Assert.That(() => new SplitVirtqueueDriver(_memory, new(Start), size), Throws.InstanceOf<ArgumentOutOfRangeException>());

    [Test]
    public void New_NotInMemory_Throws() =>
        Assert.That(() => new SplitVirtqueueDriver(_memory, new(0xFFF0), Size), Throws.TypeOf<GuestMemoryException>());

    [Test]
    public void Add_ReadableAndWritable_IsAChain()
    {
        ushort head = _queue.Add([(new(0x8000), 16)], [(new(0x9000), 512), (new(0x8010), 1)]);
        Assert.That(head, Is.Zero);
        Assert.That(Descriptor(0), Is.EqualTo((0x8000UL, 16U, 1, 1)));
        Assert.That(Descriptor(1), Is.EqualTo((0x9000UL, 512U, 3, 2)));
        Assert.That(Descriptor(2), Is.EqualTo((0x8010UL, 1U, 2, 0)));
        Assert.That(_memory.Read<ushort>(_queue.Config.DriverArea + 2), Is.EqualTo(1));
        Assert.That(_memory.Read<ushort>(_queue.Config.DriverArea + 4), Is.EqualTo(head));
        Assert.That(_queue.FreeDescriptors, Is.EqualTo(1));
        Assert.That(() => _queue.Add([(new(0), 1), (new(0), 1)], []), Throws.InvalidOperationException);
    }

    [Test]
    public void TryTake_OutOfOrderAndOverTheIndexsEnd_GivesEachBackOnce()
    {
        ushort used = 0;
        for (int round = 0; round < 40_000; round++)
        {
            ushort first = _queue.Add([(new(0x8000), 1)], []);
            ushort second = _queue.Add([(new(0x8000), 1)], [(new(0x9000), 1)]);
            Use(second, 7);
            Use(first, 0);
            Assert.That(_queue.TryTake(out ushort head, out uint written));
            Assert.That((head, written), Is.EqualTo((second, 7U)));
            Assert.That(_queue.TryTake(out head, out written));
            Assert.That((head, written), Is.EqualTo((first, 0U)));
            Assert.That(_queue.TryTake(out _, out _), Is.False);
            Assert.That(_queue.FreeDescriptors, Is.EqualTo(Size));
        }

        void Use(ushort head, uint written)
        {
            _memory.Write(_queue.Config.DeviceArea + 4 + (8 * (ulong)(used % Size)), (uint)head);
            _memory.Write(_queue.Config.DeviceArea + 8 + (8 * (ulong)(used % Size)), written);
            _memory.Write(_queue.Config.DeviceArea + 2, ++used);
        }
    }

    [Test]
    public void TryTake_WhatWasNeverGiven_Throws()
    {
        _memory.Write(_queue.Config.DeviceArea + 4, 4U);
        _memory.Write(_queue.Config.DeviceArea + 2, (ushort)1);
        Assert.That(() => _queue.TryTake(out _, out _), Throws.TypeOf<VirtqueueException>());
    }

    [Test]
    public void Wait_NothingOrSomething_SaysWhich()
    {
        _queue.Config.Call.Signal();
        Assert.That(_queue.Wait(TimeSpan.FromMilliseconds(5)), Is.False, "a call alone is nothing");
        var device = new Thread(() =>
        {
            _memory.Write(_queue.Config.DeviceArea + 2, (ushort)1);
            _queue.Config.Call.Signal();
        });
        device.Start();
        Assert.That(_queue.Wait(TimeSpan.FromSeconds(30)));
        device.Join();
    }

    private (ulong Address, uint Length, int Flags, int Next) Descriptor(int index)
    {
        GuestAddress at = _queue.Config.DescriptorArea + 16 * (ulong)index;
        return (_memory.Read<ulong>(at), _memory.Read<uint>(at + 8), _memory.Read<ushort>(at + 12), _memory.Read<ushort>(at + 14));
    }
}
