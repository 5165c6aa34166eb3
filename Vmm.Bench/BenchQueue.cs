using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Bench;

/// <summary>The driver's side of a device's queue, which keeps so many requests under way: each in an indirect table, as Linux does it,
/// notifications by event index. Where a guest would have halted it sleeps in poll(2), or it looks at the ring all the time, as a guest does
/// with idle=poll.</summary>
internal sealed unsafe class BenchQueue : IDisposable
{
    /// <summary>Guest memory for each queue, in bytes.</summary>
    public const ulong Room = 8 << 20;

    public const int Size = 256;

    private const ulong Available = 0x2000;
    private const ulong Used = 0x3000;
    private const ulong Slots = 0x10000;
    private const ulong Data = 0x100000;

    private readonly EventFd _kick = new();
    private readonly EventFd _call = new();
    private readonly byte* _memory;
    private readonly ulong _base;
    private readonly bool _spins;
    private ulong _random;
    private ushort _available;
    private ushort _used;
    private long _completed;
    private long _sleeps;
    private long _kicks;

    /// <summary>A queue in the <paramref name="part"/>th part of <paramref name="memory"/>, the device's <paramref name="index"/>th.</summary>
    public BenchQueue(GuestMemory memory, int part, int index, bool spins = false)
    {
        _spins = spins;
        _base = (ulong)part * Room;
        _random = 88172645463325252 + (ulong)part;
        // SAFETY: the part that is this queue's, checked to be there; guest memory does not move and outlives the queue.
        _memory = (byte*)Unsafe.AsPointer(ref MemoryMarshal.GetReference(memory.Slice(new(_base), (int)Room)));
        Config = new VringConfig
        {
            Index = index,
            Size = Size,
            DescriptorArea = new(_base),
            DriverArea = new(_base + Available),
            DeviceArea = new(_base + Used),
            Kick = _kick,
            Call = _call,
        };
    }

    public VringConfig Config { get; }

    /// <summary>Requests completed so far.</summary>
    public long Completed => Volatile.Read(ref _completed);

    public long Sleeps => Volatile.Read(ref _sleeps);

    public long Kicks => Volatile.Read(ref _kicks);

    /// <summary>Keeps <paramref name="depth"/> requests under way until <paramref name="stop"/> says so, and then until all are done.</summary>
    public void Run(IBenchRequests requests, int depth, Func<bool> stop)
    {
        if (depth is < 1 or > Size || (ulong)(depth * requests.DataSize) > Room - Data)
            throw new ArgumentOutOfRangeException(nameof(depth), depth, "more than there is memory for");
        ushort before = _available;
        for (int i = 0; i < depth; i++)
            Submit(requests, i);
        Publish(before);
        int under = depth;
        while (under > 0)
        {
            bool isLast = stop();
            before = _available;
            int done = 0;
            while (_used != Volatile.Read(ref *(ushort*)(_memory + Used + 2)))
            {
                int slot = *(int*)(_memory + Used + 4 + 8 * (uint)(_used++ % Size));
                requests.Check(Slot(requests, slot));
                done++;
                if (isLast)
                    under--;
                else
                    Submit(requests, slot);
            }
            if (done == 0)
            {
                Sleep();
                continue;
            }
            Volatile.Write(ref _completed, _completed + done);
            if (before != _available)
                Publish(before);
        }
    }

    public void Dispose()
    {
        _kick.Dispose();
        _call.Dispose();
    }

    private void Submit(IBenchRequests requests, int index)
    {
        _random ^= _random << 13;
        _random ^= _random >> 7;
        _random ^= _random << 17;
        int descriptors = requests.Fill(Slot(requests, index), _random);
        // SAFETY: the table lies in this queue's part of memory.
        byte* descriptor = _memory + 16 * index;
        *(ulong*)descriptor = SlotAddress(index);
        *(int*)(descriptor + 8) = 16 * descriptors;
        *(uint*)(descriptor + 12) = 4; // VIRTQ_DESC_F_INDIRECT
        *(ushort*)(_memory + Available + 4 + 2 * (uint)(_available++ % Size)) = (ushort)index;
    }

    private BenchSlot Slot(IBenchRequests requests, int index) =>
        new(index, _memory + (SlotAddress(index) - _base), SlotAddress(index), _base + Data + (ulong)(index * requests.DataSize));

    private ulong SlotAddress(int index) => _base + Slots + (ulong)(index * BenchSlot.Size);

    private void Publish(ushort before)
    {
        Volatile.Write(ref *(ushort*)(_memory + Available + 2), _available);
        Interlocked.MemoryBarrier();
        ushort wanted = Volatile.Read(ref *(ushort*)(_memory + Used + 4 + 8 * Size));
        if ((ushort)(_available - wanted - 1) < (ushort)(_available - before))
        {
            _kicks++;
            _kick.Signal();
        }
    }

    private void Sleep()
    {
        Volatile.Write(ref *(ushort*)(_memory + Available + 4 + 2 * Size), _used);
        Interlocked.MemoryBarrier();
        if (_used != Volatile.Read(ref *(ushort*)(_memory + Used + 2)))
            return;
        if (_spins)
        {
            while (_used == Volatile.Read(ref *(ushort*)(_memory + Used + 2)))
                Thread.SpinWait(1);
            return;
        }
        _sleeps++;
        Poll.Wait([new PollEntry(_call, PollEvents.Readable)], 1000);
        _call.Drain();
    }
}
