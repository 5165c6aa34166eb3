using System.Runtime.InteropServices;
using Vmm.Vhost.Memory;

namespace Vmm.Vhost.Virtqueue;

/// <summary>The device's side of a packed virtqueue (VIRTIO 1.2 §2.8): one ring of descriptors, in which the device writes over what it
/// has used, and a wrap counter on each side that says which is which.</summary>
public sealed unsafe class PackedVirtqueue : VirtQueue
{
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
        _available = Position.From((ushort)ring.Base);
        _used = Position.From((ushort)(ring.Base >> 16));
        if (_available.Index >= ring.Size || _used.Index >= ring.Size)
            throw Broken($"its beginning 0x{ring.Base:x} is not in a ring of {ring.Size}");
        _eventFlags = ushort.MaxValue;
    }

    /// <inheritdoc/>
    public override uint Base => _available.Value | (uint)_used.Value << 16;

    /// <inheritdoc/>
    public override bool TryTake(out DescriptorChain chain)
    {
        if (!IsAvailable())
        {
            chain = default;
            return false;
        }
        BeginChain();
        Position next = _available;
        int count = 0;
        Descriptor descriptor;
        while (true)
        {
            if (_takenDescriptors + ++count > Size)
                throw Broken("more descriptors are available than the ring has");
            descriptor = _ring[next.Index];   // the one copy that is looked at
            next = next.Advance(1, Size);
            if ((descriptor.Flags & FlagIndirect) != 0)
                WalkTable(in descriptor);
            else
                AddBuffer(descriptor.Address, descriptor.Length, descriptor.Flags);
            if ((descriptor.Flags & FlagNext) == 0)
                break;
        }
        if (descriptor.Id >= Size)
            throw Broken($"buffer id {descriptor.Id} is not one of a ring of {Size}");
        NoteTaken(descriptor.Id);
        _counts[descriptor.Id] = (ushort)count;
        _takenDescriptors += count;
        _available = next;
        chain = EndChain(descriptor.Id);
        return true;
    }

    /// <inheritdoc/>
    public override void PutBack(ushort head)
    {
        NotePutBack(head);
        _takenDescriptors -= _counts[head];
        _available = _available.GoBack(_counts[head], Size);
    }

    /// <inheritdoc/>
    public override void Return(ushort head, uint written)
    {
        NoteReturned(head);
        int count = _counts[head];
        Descriptor* descriptor = _ring + _used.Index;
        descriptor->Id = head;
        descriptor->Length = written;
        ushort flags = _used.Wrap ? (ushort)(FlagAvailable | FlagUsed) : (ushort)0;
        if (written > 0)
            flags |= FlagWrite;
        Volatile.Write(ref descriptor->Flags, flags);
        _used = _used.Advance(count, Size);
        _takenDescriptors -= count;
        _uncalled += count;
    }

    /// <inheritdoc/>
    public override bool ShouldCall()
    {
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
        if (HasEventIndex)
        {
            Volatile.Write(ref *(ushort*)_deviceEvent, _available.Value);
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
    public override void SuppressKicks() => SetEventFlags(EventsDisabled);

    private void SetEventFlags(ushort flags)
    {
        if (_eventFlags == flags)
            return;
        Volatile.Write(ref *(ushort*)(_deviceEvent + EventFlagsOffset), flags);
        _eventFlags = flags;
    }

    private bool IsAvailable()
    {
        ushort flags = Volatile.Read(ref _ring[_available.Index].Flags);
        return (flags & FlagAvailable) != 0 == _available.Wrap && (flags & FlagUsed) != 0 != _available.Wrap;
    }

    // All of a table is the request; of the flags only WRITE means something (VIRTIO 1.2 §2.8.7).
    private void WalkTable(ref readonly Descriptor descriptor)
    {
        var table = (Descriptor*)LocateTable(descriptor.Address, descriptor.Length, descriptor.Flags);
        for (int i = 0; i < (int)descriptor.Length / DescriptorSize; i++)
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
