using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
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
        Assert.That(() => new SplitVirtqueueDriver(_memory, new(Start), size),
            Throws.TypeOf<ArgumentOutOfRangeException>().With.Message.StartsWith("size must be a power of two, 1 to 32768"));

    [TestCase(0)]
    [TestCase(-8)]
    [TestCase(12)]
    [TestCase(1 << 20)]
    public void BytesFor_SizeIsNoneOfARing_Throws(int size) =>
        Assert.That(() => SplitVirtqueueDriver.BytesFor(size), Throws.TypeOf<ArgumentOutOfRangeException>().With.Message.StartsWith("size must be"));

    [Test]
    public void New_CannotBeMade_LeavesNothingOpen()
    {
        int before = OpenDescriptors.Count;
        for (int i = 0; i < 20; i++)
        {
            Assert.That(() => new SplitVirtqueueDriver(_memory, new(Start), 3), Throws.InstanceOf<ArgumentException>());
            Assert.That(() => new SplitVirtqueueDriver(_memory, new(Start + 1), Size), Throws.InstanceOf<ArgumentException>());
            Assert.That(() => new SplitVirtqueueDriver(_memory, new(Start), Size, index: -1), Throws.InstanceOf<ArgumentException>());
            Assert.That(() => new SplitVirtqueueDriver(_memory, new(0xFFF0), Size), Throws.TypeOf<GuestMemoryException>());
            Assert.That(() => new SplitVirtqueueDriver(null!, new(Start), Size), Throws.ArgumentNullException);
        }
        Assert.That(OpenDescriptors.Count, Is.EqualTo(before));
    }

    // The third of its eventfds is one too many for the process.
    [Test]
    public void New_OutOfDescriptors_ClosesThoseThatItHas()
    {
        ulong before = ResourceLimit.OpenFiles.Current!.Value;
        ulong highest = Directory.GetFiles("/proc/self/fd").Max(path => ulong.Parse(Path.GetFileName(path), null));
        var others = new List<EventFd>();
        ResourceLimit.OpenFiles.TrySet(highest + 5);
        try
        {
            Assert.That(
                () =>
                {
                    while (true)
                        others.Add(new EventFd());
                },
                Throws.TypeOf<ErrnoException>());
            others[^1].Dispose();
            others[^2].Dispose();
            for (int i = 0; i < 3; i++)
                Assert.That(() => new SplitVirtqueueDriver(_memory, new(Start), Size).Dispose(), Throws.TypeOf<ErrnoException>());
            others.Add(new EventFd());
            others.Add(new EventFd());
        }
        finally
        {
            ResourceLimit.OpenFiles.TrySet(before);
            others.ForEach(other => other.Dispose());
        }
    }

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

    [TestCase(4U, TestName = "TryTake_NoDescriptor_BreaksTheRing")]
    [TestCase(1U, TestName = "TryTake_NotTheHeadOfARequest_BreaksTheRing")]
    [TestCase(3U, TestName = "TryTake_FreeDescriptor_BreaksTheRing")]
    public void TryTake_WhatWasNeverGiven_BreaksTheRing(uint id)
    {
        _queue.Add([(new(0x8000), 1), (new(0x8000), 1)], []);
        Use(0, id);
        for (int i = 0; i < 2; i++)
        {
            Assert.That(() => _queue.TryTake(out _, out _),
                Throws.TypeOf<VirtqueueException>().With.Message.EqualTo($"queue 3: the device gives back request {id}, which it does not have"));
        }
        Assert.That(() => _queue.Add([(new(0x8000), 1)], []), Throws.TypeOf<VirtqueueException>());
        Assert.That(() => _queue.Wait(Timeout.InfiniteTimeSpan), Throws.TypeOf<VirtqueueException>());
        Assert.That(_queue.FreeDescriptors, Is.EqualTo(2), "nothing became free");
    }

    [Test]
    public void TryTake_TheSameTwice_BreaksTheRing()
    {
        _queue.Add([(new(0x8000), 1), (new(0x8000), 1)], []);
        _queue.Add([(new(0x8000), 1)], []);
        Use(0, 0);
        Use(1, 0);
        Assert.That(_queue.TryTake(out _, out _));
        Assert.That(() => _queue.TryTake(out _, out _), Throws.TypeOf<VirtqueueException>());
        Assert.That(_queue.FreeDescriptors, Is.EqualTo(3));
    }

    [Test]
    public void TryTake_MoreThanTheDeviceHas_BreaksTheRing()
    {
        _queue.Add([(new(0x8000), 1)], []);
        _memory.Write(_queue.Config.DeviceArea + 2, (ushort)2);
        Assert.That(() => _queue.TryTake(out _, out _),
            Throws.TypeOf<VirtqueueException>().With.Message.EqualTo("queue 3: the device gives back 2 requests, and has 1"));
    }

    [Test]
    public void Add_BuffersThatAreNone_AreRefusedAndLeaveTheQueueAsItWas()
    {
        Assert.That(() => _queue.Add([(new(0x8000), 0)], []), Throws.ArgumentException.With.Message.StartsWith("the buffer at 0x8000 is empty"));
        Assert.That(() => _queue.Add([(new(0x8000), 1)], [(new(0xFFFF), 2)]), Throws.TypeOf<GuestMemoryException>());
        Assert.That(() => _queue.Add([(new(ulong.MaxValue), 2)], []), Throws.TypeOf<GuestMemoryException>());
        Assert.That(() => _queue.Add([], [(new(0x8000), uint.MaxValue)]), Throws.TypeOf<GuestMemoryException>());
        Assert.That(() => _queue.Add([], []), Throws.ArgumentException);
        Assert.That(() => _queue.Add(new (GuestAddress, uint)[5], []), Throws.ArgumentException);
        Assert.That(_queue.FreeDescriptors, Is.EqualTo(Size));
        Assert.That(_memory.Read<ushort>(_queue.Config.DriverArea + 2), Is.Zero);
    }

    [Test]
    public void Add_AsManyBuffersAsTheQueueHas_AllBecomeFreeAgain()
    {
        using GuestMemory memory = GuestMemory.Create([(new(0), 1 << 20)]);
        using var queue = new SplitVirtqueueDriver(memory, new(0x1000), 1024);
        var buffers = new (GuestAddress, uint)[1024];
        Array.Fill(buffers, (new(0x8_0000), 16U));
        queue.Add(buffers, []);
        Assert.That(queue.FreeDescriptors, Is.Zero);
        memory.Write(queue.Config.DeviceArea + 4, 0U);
        memory.Write(queue.Config.DeviceArea + 2, (ushort)1);
        Assert.That(queue.TryTake(out _, out _));
        Assert.That(queue.FreeDescriptors, Is.EqualTo(1024));
    }

    [Test]
    public void Wait_InfiniteTime_WaitsUntilSomethingIsThere()
    {
        _queue.Add([(new(0x8000), 1)], []);
        var wait = Task.Run(() => _queue.Wait(Timeout.InfiniteTimeSpan));
        Assert.That(wait.Wait(30), Is.False, "nothing is there");
        Use(0, 0);
        _queue.Config.Call.Signal();
        Assert.That(wait.Wait(TimeSpan.FromSeconds(30)));
        Assert.That(wait.Result);
    }

    [Test]
    public void Wait_RingFails_Ends()
    {
        var wait = Task.Run(() => _queue.Wait(Timeout.InfiniteTimeSpan));
        _queue.Config.Error!.Signal();
        Assert.That(() => wait.Wait(TimeSpan.FromSeconds(30)), Throws.InnerException.TypeOf<VirtqueueException>());
    }

    [Test]
    public void Wait_DisposedMeanwhile_Ends()
    {
        var wait = Task.Run(() => _queue.Wait(Timeout.InfiniteTimeSpan));
        wait.Wait(20);
        _queue.Dispose();
        Assert.That(() => wait.Wait(TimeSpan.FromSeconds(30)), Throws.InnerException.TypeOf<ObjectDisposedException>());
    }

    [Test]
    public void Wait_NoTime_IsRefused() =>
        Assert.That(() => _queue.Wait(TimeSpan.FromSeconds(-2)), Throws.TypeOf<ArgumentOutOfRangeException>());

    [Test]
    public void Queue_Disposed_ThrowsAndTouchesNoOtherFile()
    {
        _queue.Dispose();
        using var others = new OtherFiles();
        Assert.That(_queue.Kick, Throws.TypeOf<ObjectDisposedException>());
        Assert.That(() => _queue.Add([(new(0x8000), 1)], []), Throws.TypeOf<ObjectDisposedException>());
        Assert.That(() => _queue.TryTake(out _, out _), Throws.TypeOf<ObjectDisposedException>());
        Assert.That(() => _queue.Wait(TimeSpan.Zero), Throws.TypeOf<ObjectDisposedException>());
        _queue.Dispose();
        others.AssertUntouched();
    }

    [Test]
    public void Memory_Disposed_Throws()
    {
        _memory.Dispose();
        Assert.That(() => _queue.Add([(new(0x8000), 1)], []), Throws.TypeOf<ObjectDisposedException>());
        Assert.That(() => _queue.TryTake(out _, out _), Throws.TypeOf<ObjectDisposedException>());
        Assert.That(() => _queue.Wait(TimeSpan.FromSeconds(1)), Throws.TypeOf<ObjectDisposedException>());
    }

    [Test]
    public void Wait_NothingOrSomething_SaysWhich()
    {
        _queue.Add([(new(0x8000), 1)], []);
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

    // The device calls for the buffer that used_event names, and for no other.
    [TestCase(true)]
    [TestCase(false)]
    public void EventIndex_DriverWaitsForEachRequest_IsCalledForEach(bool waits)
    {
        var device = new SplitVirtqueue(_memory.AddressSpace, _queue.Config, SplitVirtqueueDriver.SupportedFeatures);
        for (int i = 0; i < 3 * Size; i++)
        {
            _queue.Add([(new(0x8000), 1)], []);
            if (waits)
                Assert.That(_queue.Wait(TimeSpan.Zero), Is.False);
            else
                Assert.That(_queue.TryTake(out _, out _), Is.False);
            Assert.That(device.TryTake(out DescriptorChain chain));
            device.Return(chain.Head, 0);
            Assert.That(device.ShouldCall(), $"request {i}");
            Assert.That(_queue.TryTake(out _, out _));
        }
    }

    [Test]
    public void EventIndex_DriverHasNotTakenTheLastYet_IsNotCalled()
    {
        var device = new SplitVirtqueue(_memory.AddressSpace, _queue.Config, SplitVirtqueueDriver.SupportedFeatures);
        Assert.That(_queue.TryTake(out _, out _), Is.False);
        for (int i = 0; i < 2; i++)
        {
            _queue.Add([(new(0x8000), 1)], []);
            Assert.That(device.TryTake(out DescriptorChain chain));
            device.Return(chain.Head, 0);
            Assert.That(device.ShouldCall(), Is.EqualTo(i == 0), "the driver knows that there is something");
        }
    }

    [Test]
    public void Config_AfterRequests_BeginsBehindWhatIsDone()
    {
        Assert.That(_queue.Config.Base, Is.Zero);
        _queue.Add([(new(0x8000), 1)], []);
        _queue.Add([(new(0x8000), 1)], []);
        Use(0, 0);
        Assert.That(_queue.Config.Base, Is.EqualTo(1), "the second request is to be done still");
        var again = new SplitVirtqueue(_memory.AddressSpace, _queue.Config, 0);
        Assert.That(again.TryTake(out DescriptorChain chain));
        Assert.That(chain.Head, Is.EqualTo(1));
        Assert.That(again.TryTake(out _), Is.False, "the first request is done a second time");
    }

    private void Use(int slot, uint id)
    {
        _memory.Write(_queue.Config.DeviceArea + 4 + (8 * (ulong)slot), id);
        _memory.Write(_queue.Config.DeviceArea + 2, (ushort)(slot + 1));
    }

    private (ulong Address, uint Length, int Flags, int Next) Descriptor(int index)
    {
        GuestAddress at = _queue.Config.DescriptorArea + 16 * (ulong)index;
        return (_memory.Read<ulong>(at), _memory.Read<uint>(at + 8), _memory.Read<ushort>(at + 12), _memory.Read<ushort>(at + 14));
    }
}
