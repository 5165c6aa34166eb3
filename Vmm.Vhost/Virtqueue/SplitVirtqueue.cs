using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Vhost.Memory;

namespace Vmm.Vhost.Virtqueue;

/// <summary>The device's side of a split virtqueue (VIRTIO 1.2 §2.7): takes requests from a ring and gives them back. The ring's contents
/// are the guest's: each descriptor is copied once, and the copy is checked. Not thread-safe.</summary>
public sealed unsafe class SplitVirtqueue
{
    private const ushort FlagNext = 1;
    private const ushort FlagWrite = 2;
    private const ushort FlagIndirect = 4;
    private const ushort AvailNoInterrupt = 1;
    private const int IndexOffset = 2;
    private const int RingOffset = 4;

    private readonly GuestAddressSpace _memory;
    private readonly int _index;
    private readonly int _size;
    private readonly bool _hasEventIndex;
    private readonly bool _hasIndirect;
    private readonly Descriptor* _descriptors;
    private readonly byte* _available;
    private readonly byte* _used;
    private readonly GuestBuffer[] _buffers;
    private ushort _nextAvailable;
    private ushort _nextUsed;
    private ushort _calledUsed;

    /// <summary>Begins at <see cref="VringConfig.Base"/> of <paramref name="ring"/>, with all that was taken before given back.</summary>
    /// <param name="memory">The guest's memory; it must outlive the queue.</param>
    /// <param name="ring">The ring.</param>
    /// <param name="features">What the driver accepted.</param>
    /// <exception cref="VirtqueueException">The ring is not in memory.</exception>
    public SplitVirtqueue(GuestAddressSpace memory, in VringConfig ring, ulong features)
    {
        _memory = memory;
        _index = ring.Index;
        _size = ring.Size;
        _hasEventIndex = (features & VirtioFeatures.EventIndex) != 0;
        _hasIndirect = (features & VirtioFeatures.IndirectDescriptors) != 0;
        _descriptors = (Descriptor*)Locate(ring.DescriptorArea, sizeof(Descriptor) * _size);
        _available = Locate(ring.DriverArea, RingOffset + 2 * _size + 2);
        _used = Locate(ring.DeviceArea, RingOffset + sizeof(UsedElement) * _size + 2);
        _buffers = new GuestBuffer[_size];
        _nextAvailable = _nextUsed = _calledUsed = (ushort)ring.Base;
    }

    private byte* AvailableEvent => _used + RingOffset + sizeof(UsedElement) * _size;

    private byte* UsedEvent => _available + RingOffset + 2 * _size;

    /// <summary>Where the next request will be taken from: <see cref="VringConfig.Base"/> of a later start.</summary>
    public ushort Base => _nextAvailable;

    /// <summary>Takes the next request.</summary>
    /// <returns>False if there is none; the driver will kick for the next.</returns>
    /// <exception cref="VirtqueueException">The ring is broken.</exception>
    public bool TryTake(out DescriptorChain chain)
    {
        if (IsEmpty())
        {
            if (!_hasEventIndex)
            {
                chain = default;
                return false;
            }
            // The driver looks at the event index after it has published: one of us must see the other's.
            Volatile.Write(ref *(ushort*)AvailableEvent, _nextAvailable);
            Interlocked.MemoryBarrier();
            if (IsEmpty())
            {
                chain = default;
                return false;
            }
        }
        ushort head = *(ushort*)(_available + RingOffset + 2 * (_nextAvailable % _size));
        chain = Walk(head);
        _nextAvailable++;
        return true;
    }

    /// <summary>Gives a request back.</summary>
    /// <param name="head"><see cref="DescriptorChain.Head"/>.</param>
    /// <param name="written">Bytes written to it.</param>
    public void Return(ushort head, uint written)
    {
        ((UsedElement*)(_used + RingOffset))[_nextUsed % _size] = new UsedElement { Id = head, Length = written };
        Volatile.Write(ref *(ushort*)(_used + IndexOffset), ++_nextUsed);
    }

    /// <summary>Whether the driver wants a call for what was given back since this was last asked.</summary>
    public bool ShouldCall()
    {
        // What the driver says counts only after it could see what was used.
        Interlocked.MemoryBarrier();
        ushort before = _calledUsed;
        _calledUsed = _nextUsed;
        if (before == _nextUsed)
            return false;
        if (!_hasEventIndex)
            return (Volatile.Read(ref *(ushort*)_available) & AvailNoInterrupt) == 0;
        ushort wanted = Volatile.Read(ref *(ushort*)UsedEvent);
        return (ushort)(_nextUsed - wanted - 1) < (ushort)(_nextUsed - before);   // VIRTIO 1.2 §2.7.7.2
    }

    private bool IsEmpty()
    {
        ushort available = (ushort)(Volatile.Read(ref *(ushort*)(_available + IndexOffset)) - _nextAvailable);
        return available <= _size
            ? available == 0
            : throw Broken($"{available} requests are available in a ring of {_size}");
    }

    private DescriptorChain Walk(ushort head)
    {
        int readable = 0, writable = 0;
        Descriptor* table = _descriptors;
        int tableSize = _size;
        bool isIndirect = false;
        int index = head;
        while (true)
        {
            if (index >= tableSize)
                throw Broken($"descriptor {index} is not in a table of {tableSize}");
            Descriptor descriptor = table[index];   // the one copy that is looked at
            if ((descriptor.Flags & FlagIndirect) != 0)
            {
                // A table takes the place of the rest of the chain (VIRTIO 1.2 §2.7.5.3).
                if (!_hasIndirect || isIndirect || (descriptor.Flags & (FlagNext | FlagWrite)) != 0 || readable + writable > 0)
                    throw Broken("an indirect descriptor stands where none may");
                if (descriptor.Length == 0 || descriptor.Length % sizeof(Descriptor) != 0
                    || descriptor.Length / sizeof(Descriptor) > _size)
                {
                    throw Broken($"an indirect table has {descriptor.Length} bytes");
                }
                table = (Descriptor*)Locate(new GuestAddress(descriptor.Address), (int)descriptor.Length);
                tableSize = (int)descriptor.Length / sizeof(Descriptor);
                isIndirect = true;
                index = 0;
                continue;
            }
            if (readable + writable == _size)
                throw Broken("a chain has more descriptors than the ring, or loops");
            bool isWritable = (descriptor.Flags & FlagWrite) != 0;
            if (!isWritable && writable > 0)
                throw Broken("a readable descriptor follows a writable one");
            _buffers[readable + writable] = new GuestBuffer((nint)Locate(new GuestAddress(descriptor.Address), descriptor.Length), descriptor.Length);
            if (isWritable)
                writable++;
            else
                readable++;
            if ((descriptor.Flags & FlagNext) == 0)
                return new DescriptorChain(head, _buffers.AsSpan(0, readable), _buffers.AsSpan(readable, writable));
            index = descriptor.Next;
        }
    }

    private byte* Locate(GuestAddress address, long length) =>
        _memory.TrySlice(address, (ulong)length, out Span<byte> span)
            // SAFETY: guest memory is mapped, not on the heap: it does not move, and it outlives the queue.
            ? (byte*)Unsafe.AsPointer(ref MemoryMarshal.GetReference(span))
            : throw Broken($"{address}+0x{length:x} is not in memory");

    private VirtqueueException Broken(string what) => new($"queue {_index}: {what}");

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
