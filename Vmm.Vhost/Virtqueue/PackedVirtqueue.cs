using System.Runtime.InteropServices;
using Vmm.Vhost.Memory;

namespace Vmm.Vhost.Virtqueue;

/// <summary>The device's side of a packed virtqueue (VIRTIO 1.2 §2.8): one ring of descriptors, in which the device writes over what it
/// has used, and a wrap counter on each side that says which is which.</summary>
public sealed unsafe class PackedVirtqueue : VirtQueue
{
    /// <summary>The place where a driver begins: the first descriptor, with a wrap counter of 1 (VIRTIO 1.2 §2.8.1).</summary>
    internal const uint Beginning = WrapBit;

    private const ushort FlagAvailable = 1 << 7;
    private const ushort FlagUsed = 1 << 15;
    private const ushort WrapBit = 1 << 15;
    private const int IndexMask = WrapBit - 1;
    private const ushort EventsEnabled = 0;
    private const ushort EventsDisabled = 1;
    private const ushort EventsAtDescriptor = 2;
    private const int EventSize = 4;
    private const int EventFlagsOffset = 2;

    private readonly Descriptor* _ring;
    private readonly byte* _driverEvent;
    private readonly byte* _deviceEvent;
    private readonly ushort[] _counts;   // by buffer id: how many descriptors of the ring its request has
    private Position _available;
    private Position _used;
    private int _takenDescriptors;
    private int _uncalled;               // descriptors given back since a call was last thought of
    private ushort _eventFlags;          // as they were last written; others than any at first
    private PackedInflight? _inflight;
    private List<(ulong Counter, ushort Entry, ushort Count)> _left = [];   // by a predecessor, to be taken first
    private ulong? _logRing;             // the guest-physical addresses of what the device writes
    private readonly ulong _logEvent;
    private readonly ulong _ringAddress;

    /// <summary>Begins where <see cref="RingLayout.Base"/> of <paramref name="ring"/> says.</summary>
    /// <param name="memory">The guest's memory; it must outlive the queue.</param>
    /// <param name="ring">The ring.</param>
    /// <param name="features">What the driver accepted.</param>
    /// <exception cref="VirtqueueException">The ring is not in memory, or its beginning not in the ring.</exception>
    public PackedVirtqueue(GuestAddressSpace memory, in RingLayout ring, ulong features)
        : base(memory, in ring, features)
    {
        _ring = (Descriptor*)Locate(ring.DescriptorArea, DescriptorSize * ring.Size);
        _driverEvent = Locate(ring.DriverArea, EventSize);
        _deviceEvent = Locate(ring.DeviceArea, EventSize);
        _counts = new ushort[ring.Size];
        _logEvent = ring.DeviceArea.Value;
        _ringAddress = ring.DescriptorArea.Value;
        _available = Position.From((ushort)ring.Base);
        // Some front-ends (DPDK's) say only where the next request is: with nothing in flight, giving back begins there too.
        _used = ring.Base >> 16 == 0 ? _available : Position.From((ushort)(ring.Base >> 16));
        if (_available.Index >= ring.Size || _used.Index >= ring.Size)
            throw Broken($"its beginning 0x{ring.Base:x} is not in a ring of {ring.Size}");
        _eventFlags = ushort.MaxValue;
    }

    /// <inheritdoc/>
    public override uint Base => _available.Value | (uint)_used.Value << 16;

    /// <summary>Whether the device has been around a ring once: for a ring that is said to go on with the wrap counter 0. If it has, it has used at least one
    /// descriptor, which has the flag "used" set. If not, the ring is in its first round, in which the driver sets that flag nowhere.</summary>
    /// <param name="memory">The guest's memory.</param>
    /// <param name="ring">The ring.</param>
    /// <exception cref="VirtqueueException">It is not in memory.</exception>
    internal static bool HasBeenGoneAround(GuestAddressSpace memory, in RingLayout ring)
    {
        if (!memory.TrySlice(ring.DescriptorArea, (ulong)(DescriptorSize * ring.Size), out Span<byte> area))
            throw new VirtqueueException($"ring {ring.Index} of {ring.Size} descriptors at 0x{ring.DescriptorArea.Value:x} is not in memory");
        foreach (Descriptor descriptor in MemoryMarshal.Cast<byte, Descriptor>(area))
        {
            if ((descriptor.Flags & FlagUsed) != 0)
                return true;
        }
        return false;
    }

    /// <inheritdoc/>
    public override int Waiting
    {
        get
        {
            CheckMemory();
            return IsAvailable() ? 1 : 0;
        }
    }

    /// <inheritdoc/>
    public override bool TryTake(out DescriptorChain chain)
    {
        CheckMemory();
        if (Left > 0)
        {
            chain = TakeLeft();
            return true;
        }
        if (!IsAvailable())
        {
            chain = default;
            return false;
        }
        BeginChain();
        _inflight?.BeginRequest();
        Position next = _available;
        int count = 0;
        Descriptor descriptor;
        while (true)
        {
            if (_takenDescriptors + ++count > Size)
                throw Broken("more descriptors are available than the ring has");
            descriptor = _ring[next.Index];   // the one copy that is looked at
            next = next.Advance(1, Size);
            _inflight?.Keep(descriptor.Address, descriptor.Length, descriptor.Flags, descriptor.Id);
            if ((descriptor.Flags & FlagIndirect) != 0)
                WalkTable(descriptor.Address, descriptor.Length, descriptor.Flags);
            else
                AddBuffer(descriptor.Address, descriptor.Length, descriptor.Flags);
            if ((descriptor.Flags & FlagNext) == 0)
                break;
        }
        if (descriptor.Id >= Size)
            throw Broken($"buffer id {descriptor.Id} is not one of a ring of {Size}");
        NoteTaken(descriptor.Id);
        _inflight?.Taken(descriptor.Id, count);
        _counts[descriptor.Id] = (ushort)count;
        _takenDescriptors += count;
        _available = next;
        chain = EndChain(descriptor.Id);
        return true;
    }

    private protected override void Untake(ushort head)
    {
        _inflight?.PutBack(head);
        _takenDescriptors -= _counts[head];
        _available = _available.GoBack(_counts[head], Size);
    }

    /// <summary>The driver sees it at once: each descriptor says itself that it is used.</summary>
    internal override void Put(ushort head, uint written)
    {
        CheckMemory();
        NoteReturned(head);
        int count = _counts[head];
        Position next = _used.Advance(count, Size);
        _inflight?.Returning(head, next.Index, next.Wrap);
        Descriptor* descriptor = _ring + _used.Index;
        descriptor->Id = head;
        descriptor->Length = written;
        ushort flags = _used.Wrap ? (ushort)(FlagAvailable | FlagUsed) : (ushort)0;
        if (written > 0)
            flags |= FlagWrite;
        Volatile.Write(ref descriptor->Flags, flags);
        _inflight?.Returned(head);
        if (_logRing is ulong address)
            Log!.Mark(address + (ulong)(DescriptorSize * _used.Index), DescriptorSize);
        _used = next;
        _takenDescriptors -= count;
        _uncalled += count;
    }

    /// <inheritdoc/>
    public override bool ShouldCall()
    {
        CheckMemory();
        int added = _uncalled;
        _uncalled = 0;
        if (added == 0)
            return false;
        // What the driver says counts only after it could see what was used.
        Interlocked.MemoryBarrier();
        ushort flags = Volatile.Read(ref *(ushort*)(_driverEvent + EventFlagsOffset));
        if (!HasEventIndex || flags != EventsAtDescriptor)
            return flags != EventsDisabled;
        if (added >= Size)
            return true;
        var wanted = Position.From(Volatile.Read(ref *(ushort*)_driverEvent));
        int index = wanted.Wrap == _used.Wrap ? wanted.Index : wanted.Index - Size;
        return (ushort)(_used.Index - index - 1) < (ushort)added;   // VIRTIO 1.2 §2.8.21.3.1
    }

    /// <inheritdoc/>
    public override bool EnableKicks()
    {
        CheckMemory();
        if (HasEventIndex)
        {
            Volatile.Write(ref *(ushort*)_deviceEvent, _available.Value);
            if (_logRing is not null)
                Log!.Mark(_logEvent, EventSize);
            SetEventFlags(EventsAtDescriptor);
        }
        else
        {
            SetEventFlags(EventsEnabled);
        }
        // The driver looks after it has published: one of us must see the other's.
        Interlocked.MemoryBarrier();
        return IsAvailable();
    }

    /// <inheritdoc/>
    public override void SuppressKicks()
    {
        CheckMemory();
        SetEventFlags(EventsDisabled);
    }

    private void SetEventFlags(ushort flags)
    {
        if (_eventFlags == flags)
            return;
        Volatile.Write(ref *(ushort*)(_deviceEvent + EventFlagsOffset), flags);
        if (_logRing is not null)
            Log!.Mark(_logEvent, EventSize);
        _eventFlags = flags;
    }

    private bool IsAvailable() => Left > 0 || IsAvailable(_available.Index, _available.Wrap);

    private bool IsAvailable(int index, bool wrap)
    {
        ushort flags = Volatile.Read(ref _ring[index].Flags);
        return (flags & FlagAvailable) != 0 == wrap && (flags & FlagUsed) != 0 != wrap;
    }

    /// <inheritdoc/>
    internal override bool IsTracked => _inflight is not null;

    /// <inheritdoc/>
    internal override void TrackInflight(byte* area, int capacity)
    {
        var inflight = new PackedInflight(area, capacity);
        try
        {
            if (inflight.Open((_used.Index, _used.Wrap), IsAvailable, Size) is { } left)
            {
                NoteLeft(left.Count);
                _left = left;
                _takenDescriptors = left.Sum(request => request.Count);
                _used = new Position(inflight.Used.Index, inflight.Used.Wrap);
                _available = _used.Advance(_takenDescriptors, Size);
            }
        }
        catch (InvalidDataException e)
        {
            throw Broken(e.Message);
        }
        _inflight = inflight;
    }

    private protected override void LogRingAt(ulong? usedRing) => _logRing = usedRing is null ? null : _ringAddress;

    // The ring may have forgotten it; the log has not.
    private DescriptorChain TakeLeft()
    {
        (_, ushort entry, ushort count) = _left[NextLeft];
        BeginChain();
        ushort id = 0, last = entry, next = entry;
        for (int i = 0; i < count; i++)
        {
            last = next;
            (ulong address, uint length, ushort flags, id, next) = _inflight!.Read(last);
            if ((flags & FlagIndirect) != 0)
                WalkTable(address, length, flags);
            else
                AddBuffer(address, length, flags);
        }
        if (id >= Size)
            throw Broken($"buffer id {id} in its in-flight log is not one of a ring of {Size}");
        NoteTaken(id);
        _inflight!.Found(id, entry, last);
        _counts[id] = count;
        return EndChain(id);
    }

    // All of a table is the request; of the flags only WRITE means something (VIRTIO 1.2 §2.8.7).
    private void WalkTable(ulong address, uint length, ushort flags)
    {
        var table = (Descriptor*)LocateTable(address, length, flags);
        for (int i = 0; i < (int)length / DescriptorSize; i++)
        {
            Descriptor entry = table[i];   // the one copy that is looked at
            if ((entry.Flags & FlagIndirect) != 0)
                throw Broken("an indirect descriptor stands in an indirect table");
            AddBuffer(entry.Address, entry.Length, entry.Flags);
        }
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct Descriptor
    {
        public ulong Address;
        public uint Length;
        public ushort Id;
        public ushort Flags;
    }

    // A place in the ring and the wrap counter there.
    private readonly record struct Position(int Index, bool Wrap)
    {
        public ushort Value => (ushort)(Index | (Wrap ? WrapBit : 0));

        public static Position From(ushort value) => new(value & IndexMask, (value & WrapBit) != 0);

        public Position Advance(int count, int size) =>
            Index + count < size ? new(Index + count, Wrap) : new(Index + count - size, !Wrap);

        public Position GoBack(int count, int size) =>
            Index - count >= 0 ? new(Index - count, Wrap) : new(Index - count + size, !Wrap);
    }
}
