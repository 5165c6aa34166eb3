using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Tests.Fuzz;

/// <summary>Rings with any contents: good ones that were changed, or what memory happens to hold, and changed on while they are worked.</summary>
public sealed class RingFuzzTests
{
    private const ulong Start = 0x100000;
    private const int Size = 0x10000;
    private const int InflightSize = 0x2000;

    [Test]
    public void Queue_AnyContents_IsWorkedOrFoundBroken()
    {
        // Two regions with nothing between them: a buffer across both is in neither.
        using GuestMemory memory = GuestMemory.Create([(new(Start), Size), (new(Start + Size), Size)]);
        using FileDescriptor file = MemFd.Create("inflight", InflightSize);
        using MemoryMapping inflight = MemoryMapping.Map(file, InflightSize, MappingAccess.SharedReadWrite);
        int taken = 0;
        FuzzRun.All(20000, random => taken += RunOne(random, memory, inflight));
        Assert.That(taken, Is.GreaterThan(1), "some are good enough");
    }

    [Test]
    public void Queue_ChangedByAnotherThread_IsWorkedOrFoundBroken()
    {
        using GuestMemory memory = GuestMemory.Create([(new(Start), Size), (new(Start + Size), Size)]);
        using FileDescriptor file = MemFd.Create("inflight", InflightSize);
        using MemoryMapping inflight = MemoryMapping.Map(file, InflightSize, MappingAccess.SharedReadWrite);
        using var stop = new CancellationTokenSource();
        var hostile = new Thread(() =>
        {
            var random = new Random(1);
            while (!stop.IsCancellationRequested)
            {
                FuzzRings.Scribble(random, memory.Slice(new(Start), 0x4000), 10);
                FuzzRings.Scribble(random, Bytes(inflight), 1);
            }
        });
        hostile.Start();
        try
        {
            FuzzRun.All(5000, random => RunOne(random, memory, inflight));
        }
        finally
        {
            stop.Cancel();
            hostile.Join();
        }
    }

    private static unsafe Span<byte> Bytes(MemoryMapping mapping) => new(mapping.Pointer, (int)mapping.Length);

    private static unsafe int RunOne(Random random, GuestMemory memory, MemoryMapping inflight)
    {
        bool isPacked = random.Next(2) == 0;
        ulong features = VirtioFeatures.Version1 | (isPacked ? VirtioFeatures.RingPacked : 0)
            | (random.Next(2) == 0 ? VirtioFeatures.EventIndex : 0) | (random.Next(3) != 0 ? VirtioFeatures.IndirectDescriptors : 0);
        int size = isPacked ? random.Next(1, 33) : 1 << random.Next(6);
        RingLayout layout;
        if (random.Next(3) == 0)
        {
            FuzzRings.Fill(random, memory.Slice(new(Start), 0x4000), 2 * Size);
            layout = new RingLayout
            {
                Index = 1,
                Size = size,
                DescriptorArea = new(Start + (ulong)random.Next(0x400) * 16),
                DriverArea = new(Start + (ulong)random.Next(0x2000) * 2),
                DeviceArea = new(Start + (random.Next(16) == 0 ? 2 * Size - (ulong)random.Next(64) * 4 : (ulong)random.Next(0x1000) * 4)),
                Base = random.Next(2) == 0 ? (uint)random.Next(32) : (uint)random.NextInt64(),
            };
        }
        else
        {
            memory.Slice(new(Start), 0x4000).Clear();
            RingLayout good = FuzzRings.Good(
                random, memory.AddressSpace, Start, Start + 0x4000, Start + 0x8000, Start + Size, size, features);
            layout = good with { Base = isPacked ? PackedDriverQueue.Start : 0 };
            FuzzRings.Scribble(random, memory.Slice(layout.DescriptorArea, 16 * size), random.Next(4));
            FuzzRings.Scribble(random, memory.Slice(layout.DriverArea, 6 + 2 * size), random.Next(2));
        }
        try
        {
            VirtQueue queue = VirtQueue.Create(memory.AddressSpace, in layout, features);
            if (random.Next(2) == 0)
            {
                if (random.Next(2) == 0)
                    Bytes(inflight).Clear();
                else
                    FuzzRings.Scribble(random, Bytes(inflight), random.Next(20));
                queue.TrackInflight(inflight.Pointer, 33);
            }
            return Work(random, queue, memory, in layout);
        }
        catch (VirtqueueException)
        {
            return 0;
        }
    }

    private static int Work(Random random, VirtQueue queue, GuestMemory memory, in RingLayout layout)
    {
        var heads = new List<ushort>();
        int taken = 0;
        for (int step = 0; step < 64; step++)
        {
            switch (random.Next(8))
            {
                case 0 or 1 or 2:
                    if (!queue.TryTake(out DescriptorChain chain))
                        break;
                    taken++;
                    Assert.That(chain.Head, Is.LessThan(queue.Size));
                    Assert.That(chain.Readable.Length + chain.Writable.Length, Is.LessThanOrEqualTo(VirtQueue.MaxChainLength));
                    foreach (GuestBuffer buffer in chain.Writable)
                        buffer.Span.Fill((byte)step);
                    if (random.Next(8) == 0)
                        queue.PutBack(chain.Head);
                    else
                        heads.Add(chain.Head);
                    break;
                case 3 or 4 when heads.Count > 0:
                    int which = random.Next(heads.Count);
                    queue.Return(heads[which], (uint)random.Next());
                    heads.RemoveAt(which);
                    break;
                case 5:
                    queue.EnableKicks();
                    break;
                case 6:
                    queue.SuppressKicks();
                    queue.ShouldCall();
                    break;
                default:
                    FuzzRings.Scribble(random, memory.Slice(layout.DescriptorArea, Math.Min(16 * queue.Size, 0x100)), random.Next(2));
                    break;
            }
            Assert.That(heads, Has.Count.EqualTo(queue.Taken).And.Count.LessThanOrEqualTo(queue.Size));
        }
        return taken;
    }
}
