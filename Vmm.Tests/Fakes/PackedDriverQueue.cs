using Vmm.Vhost;
using Vmm.Vhost.Memory;

namespace Vmm.Tests.Fakes;

/// <summary>The driver's side of a packed virtqueue (VIRTIO 1.2 §2.8).</summary>
internal sealed class PackedDriverQueue : DriverQueue
{
    private const ushort FlagAvailable = 1 << 7;
    private const ushort FlagUsed = 1 << 15;
    private const ushort EventsEnable = 0;
    private const ushort EventsAtDescriptor = 2;
    private const ushort WrapBit = 1 << 15;

    private readonly GuestAddress _ring;
    private readonly GuestAddress _driverEvents;
    private readonly GuestAddress _deviceEvents;
    private readonly Stack<ushort> _free = new();
    private readonly int[] _lengths;
    private Position _next = new(0, true);
    private Position _told = new(0, true);
    private Position _taken = new(0, true);
    private int _room;

    public PackedDriverQueue(GuestHeap heap, int index, int size, ulong features, int region)
        : base(heap, index, size, features, region)
    {
        _ring = heap.Allocate(size * DescriptorSize, region);
        _driverEvents = heap.Allocate(4, region);
        _deviceEvents = heap.Allocate(4, region);
        _lengths = new int[size];
        _room = size;
        for (int i = size - 1; i >= 0; i--)
            _free.Push((ushort)i);
    }

    /// <summary>A position in the ring, and the driver's or the device's wrap counter there.</summary>
    private readonly record struct Position(int Index, bool Wrap)
    {
        public Position Advance(int count, int size) =>
            Index + count < size ? this with { Index = Index + count } : new Position(Index + count - size, !Wrap);
    }

    // Both indices at 0, both wrap counters at 1 (vhost-user.rst, "A vring state description").
    public override VringConfig Config => new()
    {
        Index = Index,
        Size = Size,
        DescriptorArea = _ring,
        DriverArea = _driverEvents,
        DeviceArea = _deviceEvents,
        Base = 0x8000_8000,
        Kick = Kick,
        Call = Call,
        Error = Error,
    };

    protected override int Add(ReadOnlySpan<DriverBuffer> buffers)
    {
        int length = IsIndirect ? 1 : buffers.Length;
        if (length > _room)
            throw new InvalidOperationException($"queue {Index} is full");
        ushort id = _free.Pop();
        DriverBuffer[] copy = buffers.ToArray();
        if (IsIndirect)
            copy = [FillTable(id, copy, (i, _) => (uint)(copy[i].IsWritable ? FlagWrite : 0) << 16)];
        // The first one's flags come last: they make the whole chain available.
        for (int i = length - 1; i >= 0; i--)
        {
            Position at = _next.Advance(i, Size);
            int flags = (at.Wrap ? FlagAvailable : FlagUsed) | (copy[i].IsWritable ? FlagWrite : 0)
                | (i < length - 1 ? FlagNext : 0) | (IsIndirect ? FlagIndirect : 0);
            GuestAddress descriptor = Descriptor(at);
            Memory.Write(descriptor, copy[i].Address.Value);
            Memory.Write(descriptor + 8, copy[i].Length);
            Memory.Write(descriptor + 12, id);
            Volatile.Write(ref Shared<ushort>(descriptor + 14), (ushort)flags);
        }
        _lengths[id] = length;
        _room -= length;
        _next = _next.Advance(length, Size);
        return id;
    }

    protected override bool WantsKick()
    {
        Interlocked.MemoryBarrier();
        Position before = _told;
        _told = _next;
        ushort flags = Volatile.Read(ref Shared<ushort>(_deviceEvents + 2));
        if ((flags & 3) != EventsAtDescriptor)
            return (flags & 3) == EventsEnable;
        // As if the ring went on without end: where the device waits, counted from where its wrap counter last changed.
        ushort wanted = Volatile.Read(ref Shared<ushort>(_deviceEvents));
        int descriptor = wanted & ~WrapBit;
        if ((wanted & WrapBit) != 0 != _next.Wrap)
            descriptor -= Size;
        int since = before.Wrap == _next.Wrap ? before.Index : before.Index - Size;
        return (ushort)(_next.Index - descriptor - 1) < (ushort)(_next.Index - since);
    }

    protected override bool TryRemove(out (int Id, int Written) result)
    {
        result = default;
        if (!IsUsed())
            return false;
        GuestAddress descriptor = Descriptor(_taken);
        result = (Memory.Read<ushort>(descriptor + 12), Memory.Read<int>(descriptor + 8));
        int length = _lengths[result.Id];
        if (length == 0)
            throw new InvalidOperationException($"queue {Index}: {result.Id} is not on its way");
        _lengths[result.Id] = 0;
        _room += length;
        _free.Push((ushort)result.Id);
        _taken = _taken.Advance(length, Size);
        return true;
    }

    protected override bool WantCall()
    {
        Memory.Write(_driverEvents, (ushort)(_taken.Index | (_taken.Wrap ? WrapBit : 0)));
        Volatile.Write(ref Shared<ushort>(_driverEvents + 2), HasEventIndex ? EventsAtDescriptor : EventsEnable);
        Interlocked.MemoryBarrier();
        return IsUsed();
    }

    private bool IsUsed()
    {
        int flags = Volatile.Read(ref Shared<ushort>(Descriptor(_taken) + 14));
        return (flags & FlagAvailable) != 0 == _taken.Wrap && (flags & FlagUsed) != 0 == _taken.Wrap;
    }

    private GuestAddress Descriptor(Position at) => _ring + (ulong)(at.Index * DescriptorSize);
}
