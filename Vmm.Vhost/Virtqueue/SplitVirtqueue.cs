using System.Runtime.InteropServices;
using Vmm.Vhost.Memory;

namespace Vmm.Vhost.Virtqueue;

/// <summary>The device's side of a split virtqueue (VIRTIO 1.2 §2.7).</summary>
public sealed unsafe class SplitVirtqueue : VirtQueue
{
    private const ushort AvailNoInterrupt = 1;
    private const ushort UsedNoNotify = 1;
    private const int IndexOffset = 2;
    private const int RingOffset = 4;

    private readonly int _mask;
    private readonly Descriptor* _descriptors;
    private readonly byte* _available;
    private readonly byte* _used;
    private ushort _nextAvailable;
    private ushort _seenAvailable;   // as far as requests are known to be there
    private ushort _nextUsed;
    private ushort _publishedUsed;   // as far as the driver can see
    private ushort _calledUsed;
    private bool? _isSuppressed;     // not known at first: a predecessor may have left it either way
    private SplitInflight? _inflight;
    private ushort[] _left = [];     // by a predecessor, to be taken first
    private ulong? _logAddress;      // of the used ring

    /// <summary>Begins at <see cref="RingLayout.Base"/> of <paramref name="ring"/>, and gives back behind what the used ring says was given
    /// back.</summary>
    /// <param name="memory">The guest's memory; it must outlive the queue.</param>
    /// <param name="ring">The ring.</param>
    /// <param name="features">What the driver accepted.</param>
    /// <exception cref="VirtqueueException">The ring is not in memory, or its size is no power of two.</exception>
    public SplitVirtqueue(GuestAddressSpace memory, in RingLayout ring, ulong features)
        : base(memory, in ring, features)
    {
        if ((ring.Size & (ring.Size - 1)) != 0)
            throw Broken($"{ring.Size} is no power of two");
        _mask = ring.Size - 1;
        _descriptors = (Descriptor*)Locate(ring.DescriptorArea, sizeof(Descriptor) * ring.Size);
        _available = Locate(ring.DriverArea, RingOffset + 2 * ring.Size + 2);
        _used = Locate(ring.DeviceArea, RingOffset + sizeof(UsedElement) * ring.Size + 2);
        _nextAvailable = _seenAvailable = (ushort)ring.Base;
        _nextUsed = _publishedUsed = _calledUsed = Volatile.Read(ref *(ushort*)(_used + IndexOffset));
    }

    /// <summary>The same for a ring of a front-end's.</summary>
    /// <exception cref="VirtqueueException">The ring is not in memory.</exception>
    public SplitVirtqueue(GuestAddressSpace memory, in VringConfig ring, ulong features)
        : this(memory, RingLayout.Of(in ring), features)
    {
    }

    /// <inheritdoc/>
    public override uint Base => _nextAvailable;

    /// <inheritdoc/>
    public override int Waiting
    {
        get
        {
            CheckMemory();
            return (ushort)(Volatile.Read(ref *(ushort*)(_available + IndexOffset)) - _nextAvailable);
        }
    }

    private byte* AvailableEvent => _used + RingOffset + sizeof(UsedElement) * Size;

    private byte* UsedEvent => _available + RingOffset + 2 * Size;

    /// <inheritdoc/>
    public override bool TryTake(out DescriptorChain chain)
    {
        CheckMemory();
        if (Left > 0)
        {
            chain = TakeLeft();
            return true;
        }
        if (_nextAvailable == _seenAvailable && IsEmpty())
        {
            chain = default;
            return false;
        }
        ushort head = *(ushort*)(_available + RingOffset + 2 * (_nextAvailable & _mask));
        chain = Walk(head);
        NoteTaken(head);
        _inflight?.Taken(head);
        _nextAvailable++;
        return true;
    }

    private protected override void Untake(ushort head)
    {
        _inflight?.PutBack(head);
        _nextAvailable--;
    }

    /// <inheritdoc/>
    internal override void Put(ushort head, uint written)
    {
        CheckMemory();
        NoteReturned(head);
        _inflight?.Returning(head);
        int slot = _nextUsed & _mask;
        ((UsedElement*)(_used + RingOffset))[slot] = new UsedElement { Id = head, Length = written };
        LogRing(RingOffset + sizeof(UsedElement) * slot, sizeof(UsedElement));
        _nextUsed++;
    }

    /// <inheritdoc/>
    internal override void Publish()
    {
        if (_publishedUsed == _nextUsed)
            return;
        _publishedUsed = _nextUsed;
        Volatile.Write(ref *(ushort*)(_used + IndexOffset), _nextUsed);
        _inflight?.Returned(_nextUsed);
        LogRing(IndexOffset, sizeof(ushort));
    }

    /// <inheritdoc/>
    public override bool ShouldCall()
    {
        CheckMemory();
        Publish();
        ushort before = _calledUsed;
        _calledUsed = _nextUsed;
        if (before == _nextUsed)
            return false;
        // What the driver says counts only after it could see what was used.
        Interlocked.MemoryBarrier();
        if (!HasEventIndex)
            return (Volatile.Read(ref *(ushort*)_available) & AvailNoInterrupt) == 0;
        ushort wanted = Volatile.Read(ref *(ushort*)UsedEvent);
        return (ushort)(_nextUsed - wanted - 1) < (ushort)(_nextUsed - before);   // VIRTIO 1.2 §2.7.7.2
    }

    /// <inheritdoc/>
    public override bool EnableKicks()
    {
        CheckMemory();
        if (HasEventIndex)
        {
            Volatile.Write(ref *(ushort*)AvailableEvent, _nextAvailable);
            LogRing(RingOffset + sizeof(UsedElement) * Size, sizeof(ushort));
        }
        else if (_isSuppressed != false)
        {
            Volatile.Write(ref *(ushort*)_used, 0);
            LogRing(0, sizeof(ushort));
            _isSuppressed = false;
        }
        // The driver looks after it has published: one of us must see the other's.
        Interlocked.MemoryBarrier();
        return !IsEmpty();
    }

    /// <inheritdoc/>
    public override void SuppressKicks()
    {
        CheckMemory();
        // With an event index, one that is left where it was says the same.
        if (HasEventIndex || _isSuppressed == true)
            return;
        Volatile.Write(ref *(ushort*)_used, UsedNoNotify);
        LogRing(0, sizeof(ushort));
        _isSuppressed = true;
    }

    /// <inheritdoc/>
    internal override bool IsTracked => _inflight is not null;

    /// <inheritdoc/>
    internal override void TrackInflight(byte* area, int capacity)
    {
        var inflight = new SplitInflight(area, capacity);
        try
        {
            if (inflight.Open(_nextUsed, Size) is ushort[] left)
            {
                NoteLeft(left.Length);
                _left = left;
                _nextAvailable = _seenAvailable = (ushort)(_nextUsed + left.Length);
            }
        }
        catch (InvalidDataException e)
        {
            throw Broken(e.Message);
        }
        _inflight = inflight;
    }

    private protected override void LogRingAt(ulong? usedRing) => _logAddress = usedRing;

    private void LogRing(int offset, int length)
    {
        if (_logAddress is ulong address)
            Log!.Mark(unchecked(address + (ulong)offset), (ulong)length);
    }

    private DescriptorChain TakeLeft()
    {
        ushort head = _left[NextLeft];
        DescriptorChain chain = Walk(head);
        NoteTaken(head);
        return chain;
    }

    private bool IsEmpty()
    {
        if (Left > 0)
            return false;
        _seenAvailable = Volatile.Read(ref *(ushort*)(_available + IndexOffset));
        ushort available = (ushort)(_seenAvailable - _nextAvailable);
        return available <= Size
            ? available == 0
            : throw Broken($"{available} requests are available in a ring of {Size}");
    }

    private DescriptorChain Walk(ushort head)
    {
        BeginChain();
        Descriptor* table = _descriptors;
        int tableSize = Size;
        bool isIndirect = false;
        int index = head;
        while (true)
        {
            if (index >= tableSize)
                throw Broken($"descriptor {index} is not in a table of {tableSize}");
            Descriptor descriptor = table[index];   // the one copy that is looked at
            if ((descriptor.Flags & FlagIndirect) != 0)
            {
                // A table takes the place of the chain.
                if (isIndirect)
                    throw Broken("an indirect descriptor stands in an indirect table");
                table = (Descriptor*)LocateTable(descriptor.Address, descriptor.Length, descriptor.Flags);
                tableSize = (int)descriptor.Length / DescriptorSize;
                isIndirect = true;
                index = 0;
                continue;
            }
            AddBuffer(descriptor.Address, descriptor.Length, descriptor.Flags);
            if ((descriptor.Flags & FlagNext) == 0)
                return EndChain(head);
            index = descriptor.Next;
        }
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct Descriptor
    {
        public ulong Address;
        public uint Length;
        public ushort Flags;
        public ushort Next;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct UsedElement
    {
        public uint Id;
        public uint Length;
    }
}
