using FsCheck;
using FsCheck.Fluent;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Tests.Virtqueue;

/// <summary>Both sides of a queue against each other, one step at a time in any order: what the driver adds comes out at the device as it was,
/// once; what the device returns comes back; nobody waits for a notification that does not come.</summary>
public sealed class VirtQueuePropertyTests
{
    private const ulong Split = 0;
    private const ulong Packed = VirtioFeatures.RingPacked;
    private const ulong EventIndex = VirtioFeatures.EventIndex;
    private const ulong Indirect = VirtioFeatures.IndirectDescriptors;

    [TestCase(Split, 8)]
    [TestCase(Split | EventIndex | Indirect, 16)]
    [TestCase(Split | EventIndex | VirtioFeatures.InOrder, 1)]
    [TestCase(Packed, 8)]
    [TestCase(Packed | EventIndex | Indirect, 7)]
    [TestCase(Packed | EventIndex, 5)]
    [TestCase(Packed | Indirect | VirtioFeatures.InOrder, 1)]
    public void Queue_AnySteps_LoseAndDoubleNothing(ulong features, int size) => Check(features, size, tracksInflight: false);

    [TestCase(Split | EventIndex, 8)]
    [TestCase(Split | Indirect, 16)]
    [TestCase(Packed | EventIndex, 8)]
    [TestCase(Packed | EventIndex | Indirect, 7)]
    [TestCase(Packed, 5)]
    public void Queue_AnyStepsAndKilledDevices_LoseAndDoubleNothing(ulong features, int size) => Check(features, size, tracksInflight: true);

    // Linux makes tables as large as the device's limit of segments says, also where the ring is smaller (QEMU's queue-size=64).
    [TestCase(Split | Indirect, 8, 130)]
    [TestCase(Split | Indirect | EventIndex, 64, VirtQueue.MaxChainLength)]
    [TestCase(Packed | Indirect, 7, 130)]
    [TestCase(Packed | Indirect | EventIndex, 1, VirtQueue.MaxChainLength)]
    public void TryTake_TableLargerThanTheRing_IsARequest(ulong features, int size, int length)
    {
        using GuestMemory memory = GuestMemory.Create([(new(0), 1 << 20)]);
        DriverQueue driver = DriverQueue.Create(memory.AddressSpace, 0x1000, size, features);
        uint start = (features & Packed) != 0 ? PackedDriverQueue.Start : 0;
        VirtQueue queue = VirtQueue.Create(memory.AddressSpace, driver.Layout with { Base = start }, features | VirtioFeatures.Version1);
        var buffers = new (ulong, uint, bool)[length];
        for (int i = 0; i < length; i++)
            buffers[i] = (0x80000 + (ulong)i * 64, 16, i >= length / 2);
        for (int round = 0; round < 3; round++)
        {
            ushort id = driver.Add(buffers, table: 0x40000);
            Assert.That(queue.TryTake(out DescriptorChain chain));
            Assert.That((chain.Head, chain.Readable.Length, chain.Writable.Length), Is.EqualTo((id, length / 2, length - length / 2)));
            queue.Return(chain.Head, 5);
            Assert.That(driver.TryGetUsed(out ushort used, out _) && used == id);
        }
        driver.Add([.. buffers, .. new (ulong, uint, bool)[VirtQueue.MaxChainLength + 1 - length].Select(_ => (0x80000UL, 16U, true))], table: 0x40000);
        Assert.Throws<VirtqueueException>(() => queue.TryTake(out _));
    }

    // Regions may border on each other, as those of a guest's NUMA nodes do, and a driver does not know where.
    [TestCase(Split | Indirect, 32UL)]
    [TestCase(Split | Indirect, 24UL, Description = "in the middle of a descriptor")]
    [TestCase(Packed | Indirect, 32UL)]
    [TestCase(Packed | Indirect, 24UL, Description = "in the middle of a descriptor")]
    public void TryTake_TableAcrossRegions_IsARequest(ulong features, ulong front)
    {
        const ulong table = 0x40000, elsewhere = 0x90000, buffers = 0x80000;
        const int length = 6, size = length * 16;
        using GuestMemory memory = GuestMemory.Create([(new(0), 1 << 20)]);
        GuestRegion all = memory.Regions[0];
        // What follows the front of the table in the guest is elsewhere here.
        var apart = new GuestAddressSpace(
            all with { Size = table + front },
            all with { Start = new(table + front), Size = 0x1000, HostAddress = all.HostAddress + (nint)elsewhere },
            all with { Start = new(buffers), Size = 0x1000, HostAddress = all.HostAddress + (nint)buffers });
        DriverQueue driver = DriverQueue.Create(memory.AddressSpace, 0x1000, 8, features);
        uint start = (features & Packed) != 0 ? PackedDriverQueue.Start : 0;
        VirtQueue queue = VirtQueue.Create(apart, driver.Layout with { Base = start }, features | VirtioFeatures.Version1);
        for (int round = 0; round < 3; round++)
        {
            ushort id = driver.Add([.. Enumerable.Range(0, length).Select(i => (buffers + (ulong)i * 64, 16U, i >= 2))], table);
            Span<byte> behind = memory.Slice(new(table + front), size - (int)front);
            behind.CopyTo(memory.Slice(new(elsewhere), behind.Length));
            behind.Fill(0xFF);
            memory.Write(new(buffers + 64), (byte)round);

            Assert.That(queue.TryTake(out DescriptorChain chain));
            Assert.That((chain.Head, chain.Readable.Length, chain.Writable.Length), Is.EqualTo((id, 2, length - 2)));
            Assert.That(chain.Readable[1].Span[0], Is.EqualTo(round));
            queue.Return(chain.Head, 5);
            Assert.That(driver.TryGetUsed(out ushort used, out _) && used == id);
        }
        // One that goes on where no memory is.
        var cut = new GuestAddressSpace(all with { Size = table + front });
        driver.Add([(buffers, 16U, false), (buffers, 16U, false), (buffers, 16U, true)], table);
        queue = VirtQueue.Create(cut, driver.Layout with { Base = queue.Base }, features | VirtioFeatures.Version1);
        Assert.Throws<VirtqueueException>(() => queue.TryTake(out _));
    }

    private static void Check(ulong features, int size, bool tracksInflight)
    {
        int used = 0, restarts = 0;
        Gen<int[]> steps = Gen.Choose(0, 9999).ArrayOf(400);
        Prop.ForAll(steps.ToArbitrary(), values =>
        {
            using var model = new Model(features, size, tracksInflight);
            foreach (int value in values)
                model.Step(value % 10, value / 10);
            model.Finish();
            used += model.Used;
            restarts += model.Restarts;
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(60));
        Assert.That(used, Is.GreaterThan(300), "much has happened");
        Assert.That(restarts, Is.GreaterThan(100));
    }

    private sealed unsafe class Model : IDisposable
    {
        private const ulong Buffers = 0x40000;

        private readonly ulong _features;
        private readonly bool _isInOrder;
        private readonly GuestMemory _memory = GuestMemory.Create([(new(0), 1 << 20)]);
        private readonly DriverQueue _driver;
        private readonly MemoryMapping? _inflight;
        private readonly FileDescriptor? _inflightFile;
        private readonly Dictionary<ushort, (uint Token, int Readable, int Writable)> _added = [];   // by id, in the ring or at the device
        private readonly List<(ushort Id, uint Token)> _taken = [];
        private readonly Queue<uint> _order = [];
        private VirtQueue _queue;
        private uint _tokens;
        private bool _kickExpected;
        private bool _callExpected;

        public Model(ulong features, int size, bool tracksInflight)
        {
            _features = features | VirtioFeatures.Version1;
            _isInOrder = (features & VirtioFeatures.InOrder) != 0;
            // A split ring whose indices wrap soon.
            _driver = (features & Packed) != 0
                ? new PackedDriverQueue(_memory.AddressSpace, 0x1000, size, features)
                : new SplitDriverQueue(_memory.AddressSpace, 0x1000, size, features, start: 0xFFE0);
            if (tracksInflight)
            {
                _inflightFile = MemFd.Create("inflight", 4096);
                _inflight = MemoryMapping.Map(_inflightFile, 4096, MappingAccess.SharedReadWrite);
            }
            _queue = Open((features & Packed) != 0 ? PackedDriverQueue.Start : 0xFFE0);
        }

        public int Used { get; private set; }

        public int Restarts { get; private set; }

        public void Step(int what, int value)
        {
            switch (what)
            {
                case 0 or 1 or 2:
                    Add(value);
                    break;
                case 3 or 4:
                    Take(value);
                    break;
                case 5 or 6:
                    Return(value);
                    break;
                case 7:
                    Collect();
                    break;
                case 8:
                    Wait(value);
                    break;
                default:
                    Restart(value);
                    break;
            }
        }

        public void Finish()
        {
            while (_queue.TryTake(out DescriptorChain chain))
                Took(in chain);
            while (_taken.Count > 0)
                Return(0);
            Collect();
            Assert.That(_added, Is.Empty, "requests are lost");
            Assert.That(_driver.Free, Is.EqualTo(_driver.Size));
        }

        public void Dispose()
        {
            _inflight?.Dispose();
            _inflightFile?.Dispose();
            _memory.Dispose();
        }

        private VirtQueue Open(uint start)
        {
            VirtQueue queue = VirtQueue.Create(_memory.AddressSpace, _driver.Layout with { Base = start }, _features);
            if (_inflight is not null)
                queue.TrackInflight(_inflight.Pointer, _driver.Size);
            return queue;
        }

        private void Add(int value)
        {
            int readable = 1 + value % 3, writable = value / 3 % 3;
            bool isIndirect = (_features & Indirect) != 0 && value % 2 == 0;
            if (readable + writable > _driver.Size || (isIndirect ? 1 : readable + writable) > _driver.Free)
                return;
            uint token = _tokens++;
            // Each request has its own page: as many are there as ids.
            ulong page = Buffers + token % 64 * 0x1000;
            var buffers = new (ulong, uint, bool)[readable + writable];
            for (int i = 0; i < buffers.Length; i++)
                buffers[i] = (page + (ulong)i * 16, 4, i >= readable);
            _memory.Write(new(page), token);
            ushort id = _driver.Add(buffers, isIndirect ? page + 0x800 : 0);
            Assert.That(_added.TryAdd(id, (token, readable, writable)));
            _order.Enqueue(token);
            if (_kickExpected)
                Assert.That(_driver.NeedsKick(), "the device sleeps and is not woken");
            _kickExpected = false;
        }

        private void Take(int value)
        {
            if (!_queue.TryTake(out DescriptorChain chain))
            {
                Collect();
                Assert.That(_taken, Has.Count.EqualTo(_added.Count), "there is a request that is not seen");
                return;
            }
            if (value % 4 == 0)
            {
                _queue.PutBack(chain.Head);
                Assert.That(_queue.TryTake(out DescriptorChain again));
                Assert.That(again.Head, Is.EqualTo(chain.Head));
                chain = again;
            }
            Took(in chain);
        }

        private void Took(ref readonly DescriptorChain chain)
        {
            Assert.That(_added.TryGetValue(chain.Head, out (uint Token, int Readable, int Writable) request), $"{chain.Head} was not added");
            Assert.That(chain.Readable.Length, Is.EqualTo(request.Readable));
            Assert.That(chain.Writable.Length, Is.EqualTo(request.Writable));
            byte[] token = new byte[4];
            Assert.That(chain.Read(0, token), Is.EqualTo(4));
            Assert.That(BitConverter.ToUInt32(token), Is.EqualTo(request.Token));
            if (_inflight is null)
                Assert.That(_order.Dequeue(), Is.EqualTo(request.Token), "requests are taken in order");
            ushort head = chain.Head;
            Assert.That(_taken.Exists(taken => taken.Id == head), Is.False, "a request is taken twice");
            _taken.Add((head, request.Token));
        }

        private void Return(int value)
        {
            if (_taken.Count == 0)
                return;
            int which = _isInOrder ? 0 : value % _taken.Count;
            (ushort id, uint token) = _taken[which];
            _taken.RemoveAt(which);
            if (value % 3 == 0)
                _queue.Return(id, token);
            else
                _queue.Put(id, token);  // a process that is killed before it publishes has not given it back
            if (value % 2 == 0 || _callExpected)
            {
                bool calls = _queue.ShouldCall();
                if (_callExpected)
                    Assert.That(calls, "the driver sleeps and is not woken");
                _callExpected = false;
            }
            _kickExpected = false;
        }

        private void Collect()
        {
            _queue.Publish();
            while (_driver.TryGetUsed(out ushort id, out uint written))
            {
                Assert.That(_added.Remove(id, out (uint Token, int, int) request), $"{id} is used twice");
                Assert.That(written, Is.EqualTo(request.Token));
                Used++;
            }
        }

        // One side has nothing to do, and sleeps until the other has.
        private void Wait(int value)
        {
            if (value % 3 == 0)
            {
                _queue.SuppressKicks();
                _kickExpected = false;
            }
            else if (value % 3 == 1)
            {
                _driver.NeedsKick();
                bool isThere = _queue.EnableKicks();
                Collect();
                Assert.That(isThere, Is.EqualTo(_taken.Count != _added.Count));
                _kickExpected = !isThere;
            }
            else
            {
                Collect();
                _queue.ShouldCall();
                _driver.EnableCalls();
                _callExpected = true;
            }
        }

        private void Restart(int value)
        {
            if (_inflight is null)
            {
                // Stopped in good order: everything is given back first.
                while (_taken.Count > 0)
                    Return(value);
                _queue.Publish();
                _queue = Open(_queue.Base);
            }
            else
            {
                // Killed: what the front-end says the base is, is old.
                _taken.Clear();
                _queue = Open((_features & Packed) != 0 ? PackedDriverQueue.Start : 0);
            }
            _kickExpected = _callExpected = false;
            Restarts++;
        }
    }
}
