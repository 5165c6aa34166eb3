using Vmm.Vhost;
using Vmm.Vhost.Memory;

namespace Vmm.Tests.Fakes;

/// <summary>The driver's side of a split virtqueue (VIRTIO 1.2 §2.7).</summary>
internal sealed class SplitDriverQueue : DriverQueue
{
    private const ushort UsedNoNotify = 1;

    private readonly GuestAddress _descriptors;
    private readonly GuestAddress _available;
    private readonly GuestAddress _used;
    private readonly Stack<ushort> _free = new();
    private readonly List<ushort>[] _chains;
    private ushort _published;
    private ushort _told;
    private ushort _taken;

    public SplitDriverQueue(GuestHeap heap, int index, int size, ulong features, int region)
        : base(heap, index, size, features, region)
    {
        _descriptors = heap.Allocate(size * DescriptorSize, region);
        _available = heap.Allocate(6 + 2 * size, region);
        _used = heap.Allocate(6 + 8 * size, region);
        _chains = new List<ushort>[size];
        for (int i = size - 1; i >= 0; i--)
            _free.Push((ushort)i);
    }

    public override VringConfig Config => new()
    {
        Index = Index,
        Size = Size,
        DescriptorArea = _descriptors,
        DriverArea = _available,
        DeviceArea = _used,
        Kick = Kick,
        Call = Call,
        Error = Error,
    };

    private ref ushort UsedEvent => ref Shared<ushort>(_available + 4 + 2 * (ulong)Size);

    private ref ushort AvailableEvent => ref Shared<ushort>(_used + 4 + 8 * (ulong)Size);

    protected override int Add(ReadOnlySpan<DriverBuffer> buffers)
    {
        var chain = new List<ushort>();
        for (int i = IsIndirect ? buffers.Length - 1 : 0; i < buffers.Length; i++)
            chain.Add(_free.Pop());
        ushort head = chain[0];
        if (IsIndirect)
        {
            DriverBuffer[] copy = buffers.ToArray();
            Write(head, FillTable(head, copy, (i, isLast) => Link(copy[i], isLast ? 0 : FlagNext, i + 1)), FlagIndirect, 0);
        }
        else
        {
            for (int i = 0; i < buffers.Length; i++)
            {
                bool isLast = i == buffers.Length - 1;
                Write(chain[i], buffers[i], isLast ? 0 : FlagNext, isLast ? 0 : chain[i + 1]);
            }
        }
        _chains[head] = chain;
        Memory.Write(_available + 4 + 2 * (ulong)(_published % Size), head);
        Volatile.Write(ref Shared<ushort>(_available + 2), ++_published);
        return head;
    }

    protected override bool WantsKick()
    {
        Interlocked.MemoryBarrier();
        ushort before = _told;
        _told = _published;
        if (!HasEventIndex)
            return (Volatile.Read(ref Shared<ushort>(_used)) & UsedNoNotify) == 0;
        return (ushort)(_published - Volatile.Read(ref AvailableEvent) - 1) < (ushort)(_published - before);   // §2.7.10
    }

    protected override bool TryRemove(out (int Id, int Written) result)
    {
        result = default;
        if (Volatile.Read(ref Shared<ushort>(_used + 2)) == _taken)
            return false;
        GuestAddress entry = _used + 4 + 8 * (ulong)(_taken % Size);
        result = (Memory.Read<int>(entry), Memory.Read<int>(entry + 4));
        List<ushort> chain = _chains[result.Id] ?? throw new InvalidOperationException($"queue {Index}: {result.Id} is not on its way");
        _chains[result.Id] = null!;
        foreach (ushort descriptor in chain)
            _free.Push(descriptor);
        _taken++;
        return true;
    }

    protected override bool WantCall()
    {
        if (HasEventIndex)
            Volatile.Write(ref UsedEvent, _taken);
        Interlocked.MemoryBarrier();
        return Volatile.Read(ref Shared<ushort>(_used + 2)) != _taken;
    }

    private void Write(int index, in DriverBuffer buffer, int flags, int next) =>
        WriteDescriptor(_descriptors + (ulong)(index * DescriptorSize), buffer, Link(buffer, flags, next));

    private static uint Link(in DriverBuffer buffer, int flags, int next) =>
        (uint)(flags | (buffer.IsWritable ? FlagWrite : 0) | next << 16);
}
