using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Bench;

/// <summary>The driver's side of a block device's queue, which keeps so many requests under way: each in an indirect table, as Linux does it,
/// notifications by event index. Where a guest would have halted it sleeps in poll(2), or it looks at the ring all the time, as a guest does
/// with idle=poll.</summary>
internal sealed unsafe class BenchQueue : IDisposable
{
    /// <summary>Guest memory for each queue, in bytes.</summary>
    public const ulong Room = 4 << 20;

    public const int Size = 256;
    public const int BlockSize = 4096;

    private const int SectorSize = 512;
    private const ulong Available = 0x2000;
    private const ulong Used = 0x3000;
    private const ulong Slots = 0x10000;        // of 256 bytes each: a table of three, a header, a status
    private const ulong Data = 0x100000;
    private const int SlotSize = 256;

    private readonly EventFd _kick = new();
    private readonly EventFd _call = new();
    private readonly byte* _memory;
    private readonly ulong _base;
    private readonly ulong _blocks;
    private readonly int _depth;
    private readonly bool _spins;
    private ulong _random;
    private ushort _available;
    private ushort _used;
    private long _completed;
    private long _sleeps;
    private long _kicks;

    /// <summary>A queue in the <paramref name="index"/>th part of <paramref name="memory"/>.</summary>
    public BenchQueue(GuestMemory memory, int index, int depth, bool isWrite, ulong diskSize, bool spins = false)
    {
        _spins = spins;
        _base = (ulong)index * Room;
        _blocks = diskSize / BlockSize;
        _depth = depth;
        _random = 88172645463325252 + (ulong)index;
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
        for (int i = 0; i < depth; i++)
        {
            ulong slot = Slots + (ulong)(i * SlotSize);
            Describe(0, i, slot, 48, 4, 0);
            Describe(slot, 0, slot + 64, 16, 1, 1);
            Describe(slot, 1, Data + (ulong)(i * BlockSize), BlockSize, isWrite ? (ushort)1 : (ushort)3, 2);
            Describe(slot, 2, slot + 128, 1, 2, 0);
            *(uint*)(_memory + slot + 64) = isWrite ? 1u : 0u;
        }
    }

    public VringConfig Config { get; }

    /// <summary>Requests completed so far.</summary>
    public long Completed => Volatile.Read(ref _completed);

    public long Sleeps => Volatile.Read(ref _sleeps);

    public long Kicks => Volatile.Read(ref _kicks);

    /// <summary>Works until <paramref name="stop"/> says so, and then until all is done.</summary>
    public void Run(Func<bool> stop)
    {
        for (int i = 0; i < _depth; i++)
            Submit(i);
        Publish(0);
        int under = _depth;
        while (under > 0)
        {
            bool isLast = stop();
            ushort before = _available;
            int done = 0;
            while (_used != Volatile.Read(ref *(ushort*)(_memory + Used + 2)))
            {
                int slot = *(int*)(_memory + Used + 4 + 8 * (uint)(_used++ % Size));
                if (_memory[Slots + (ulong)(slot * SlotSize) + 128] != 0)
                    throw new InvalidOperationException($"request {slot} failed: {_memory[Slots + (ulong)(slot * SlotSize) + 128]}");
                done++;
                if (isLast)
                    under--;
                else
                    Submit(slot);
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

    private void Submit(int slot)
    {
        _random ^= _random << 13;
        _random ^= _random >> 7;
        _random ^= _random << 17;
        byte* start = _memory + Slots + slot * SlotSize;
        *(ulong*)(start + 72) = _random % _blocks * (BlockSize / SectorSize);
        start[128] = 0xFF;
        *(ushort*)(_memory + Available + 4 + 2 * (uint)(_available++ % Size)) = (ushort)slot;
    }

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

    private void Describe(ulong table, int index, ulong offset, uint length, ushort flags, ushort next)
    {
        // SAFETY: the tables lie in this queue's part of memory.
        byte* descriptor = _memory + table + 16 * index;
        *(ulong*)descriptor = _base + offset;
        *(uint*)(descriptor + 8) = length;
        *(ushort*)(descriptor + 12) = flags;
        *(ushort*)(descriptor + 14) = next;
    }
}
