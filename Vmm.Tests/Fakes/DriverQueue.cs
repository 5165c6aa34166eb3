using System.Runtime.InteropServices;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Tests.Fakes;

/// <summary>Plays a driver's side of a virtqueue as VIRTIO 1.2 describes it for drivers, split or packed: has its own idea of what is free,
/// what is in the ring and what came back.</summary>
internal abstract class DriverQueue
{
    /// <summary>More than the areas of any ring of up to 256 descriptors take.</summary>
    public const ulong AreaSize = 0x4000;

    protected DriverQueue(GuestAddressSpace memory, ulong area, int size, ulong features)
    {
        Memory = memory;
        Size = size;
        HasEventIndex = (features & VirtioFeatures.EventIndex) != 0;
        Layout = new RingLayout
        {
            Index = 0,
            Size = size,
            DescriptorArea = new(area),
            DriverArea = new(area + 0x2000),
            DeviceArea = new(area + 0x3000),
        };
    }

    public int Size { get; }

    public RingLayout Layout { get; }

    /// <summary>Descriptors that are free.</summary>
    public int Free { get; protected set; }

    protected GuestAddressSpace Memory { get; }

    protected bool HasEventIndex { get; }

    public static DriverQueue Create(GuestAddressSpace memory, ulong area, int size, ulong features) =>
        (features & VirtioFeatures.RingPacked) != 0
            ? new PackedDriverQueue(memory, area, size, features)
            : new SplitDriverQueue(memory, area, size, features);

    /// <summary>Makes a request available: readable buffers first.</summary>
    /// <param name="buffers">Address, length, and whether the device writes it.</param>
    /// <param name="table">Where an indirect table may be put; 0 for none.</param>
    /// <returns>The id by which it comes back.</returns>
    public abstract ushort Add(ReadOnlySpan<(ulong Address, uint Length, bool Write)> buffers, ulong table = 0);

    /// <summary>Whether the device wants a kick for what was added since this was last asked.</summary>
    public abstract bool NeedsKick();

    /// <summary>What the device has used next.</summary>
    public abstract bool TryGetUsed(out ushort id, out uint written);

    /// <summary>Asks for a call at the next one that is used (with an event index), or at any.</summary>
    public abstract void EnableCalls();

    public abstract void DisableCalls();

    protected void WriteTable(ulong table, ReadOnlySpan<(ulong Address, uint Length, bool Write)> buffers, bool packed)
    {
        for (int i = 0; i < buffers.Length; i++)
        {
            bool last = i == buffers.Length - 1;
            ushort flags = (ushort)((buffers[i].Write ? RingDriver.Write : 0) | (last || packed ? 0 : RingDriver.Next));
            WriteDescriptor(table + 16 * (ulong)i, buffers[i].Address, buffers[i].Length, packed ? (ushort)0 : flags, packed ? flags : (ushort)(i + 1));
        }
    }

    // In a split ring flags come before next, in a packed one the id before flags.
    protected void WriteDescriptor(ulong at, ulong address, uint length, ushort third, ushort fourth) =>
        Memory.Write(new(at), new Descriptor { Address = address, Length = length, Third = third, Fourth = fourth });

    [StructLayout(LayoutKind.Sequential)]
    private struct Descriptor
    {
        public ulong Address;
        public uint Length;
        public ushort Third;
        public ushort Fourth;
    }
}

internal sealed class SplitDriverQueue : DriverQueue
{
    private readonly ushort[] _next;
    private readonly ushort[] _count;
    private ushort _free;
    private ushort _published;
    private ushort _kicked;
    private ushort _seen;

    public SplitDriverQueue(GuestAddressSpace memory, ulong area, int size, ulong features, ushort start = 0)
        : base(memory, area, size, features)
    {
        _next = new ushort[size];
        _count = new ushort[size];
        for (int i = 0; i < size; i++)
            _next[i] = (ushort)(i + 1);
        Free = size;
        _published = _kicked = _seen = start;
        memory.Write(Layout.DriverArea + 2, start);
        memory.Write(Layout.DeviceArea + 2, start);
    }

    public ushort UsedIndex => Memory.Read<ushort>(Layout.DeviceArea + 2);

    public override ushort Add(ReadOnlySpan<(ulong Address, uint Length, bool Write)> buffers, ulong table = 0)
    {
        ushort head = _free;
        if (table != 0)
        {
            WriteTable(table, buffers, packed: false);
            WriteDescriptor(Layout.DescriptorArea.Value + 16UL * head, table, 16 * (uint)buffers.Length, RingDriver.Indirect, 0);
            _free = _next[head];
            _count[head] = 1;
        }
        else
        {
            for (int i = 0; i < buffers.Length; i++)
            {
                ushort flags = (ushort)((buffers[i].Write ? RingDriver.Write : 0) | (i == buffers.Length - 1 ? 0 : RingDriver.Next));
                WriteDescriptor(Layout.DescriptorArea.Value + 16UL * _free, buffers[i].Address, buffers[i].Length, flags, _next[_free]);
                _free = _next[_free];
            }
            _count[head] = (ushort)buffers.Length;
        }
        Free -= _count[head];
        Memory.Write(Layout.DriverArea + 4 + 2 * (ulong)(_published % Size), head);
        Volatile.Write(ref At<ushort>(Layout.DriverArea + 2), ++_published);
        return head;
    }

    public override bool NeedsKick()
    {
        Interlocked.MemoryBarrier();
        ushort old = _kicked;
        _kicked = _published;
        if (!HasEventIndex)
            return (Memory.Read<ushort>(Layout.DeviceArea) & 1) == 0;
        ushort wanted = Memory.Read<ushort>(Layout.DeviceArea + 4 + 8 * (ulong)Size);
        return (ushort)(_published - wanted - 1) < (ushort)(_published - old);
    }

    public override bool TryGetUsed(out ushort id, out uint written)
    {
        id = 0;
        written = 0;
        if (Volatile.Read(ref At<ushort>(Layout.DeviceArea + 2)) == _seen)
            return false;
        GuestAddress element = Layout.DeviceArea + 4 + 8 * (ulong)(_seen++ % Size);
        id = (ushort)Memory.Read<uint>(element);
        written = Memory.Read<uint>(element + 4);
        // The chain goes back to the free ones.
        ushort last = id;
        for (int i = 1; i < _count[id]; i++)
            last = _next[last];
        _next[last] = _free;
        _free = id;
        Free += _count[id];
        return true;
    }

    public override void EnableCalls()
    {
        Memory.Write(Layout.DriverArea, (ushort)0);
        Memory.Write(Layout.DriverArea + 4 + 2 * (ulong)Size, _seen);
        Interlocked.MemoryBarrier();
    }

    public override void DisableCalls()
    {
        Memory.Write(Layout.DriverArea, (ushort)1);
        Memory.Write(Layout.DriverArea + 4 + 2 * (ulong)Size, (ushort)(_seen - 1));
    }

    private ref T At<T>(GuestAddress address)
        where T : unmanaged => ref MemoryMarshal.AsRef<T>(Memory.Slice(address, Marshal.SizeOf<T>()));
}

internal sealed class PackedDriverQueue : DriverQueue
{
    private const ushort Available = 1 << 7;
    private const ushort Used = 1 << 15;

    private readonly Stack<ushort> _ids = [];
    private readonly ushort[] _count;
    private int _next;
    private bool _wrap = true;
    private int _seen;
    private bool _seenWrap = true;
    private int _added;

    public PackedDriverQueue(GuestAddressSpace memory, ulong area, int size, ulong features)
        : base(memory, area, size, features)
    {
        _count = new ushort[size];
        for (int i = size - 1; i >= 0; i--)
            _ids.Push((ushort)i);
        Free = size;
    }

    /// <summary>Where a device begins in a new ring: both wrap counters are 1.</summary>
    public const uint Start = 1 << 15 | 1U << 31;

    public override ushort Add(ReadOnlySpan<(ulong Address, uint Length, bool Write)> buffers, ulong table = 0)
    {
        ushort id = _ids.Pop();
        int count = table != 0 ? 1 : buffers.Length;
        _count[id] = (ushort)count;
        Free -= count;
        _added += count;
        int head = _next;
        ushort headFlags = 0;
        if (table != 0)
            WriteTable(table, buffers, packed: true);
        for (int i = 0; i < count; i++)
        {
            ushort kind = table != 0
                ? RingDriver.Indirect
                : (ushort)((buffers[i].Write ? RingDriver.Write : 0) | (i == count - 1 ? 0 : RingDriver.Next));
            ushort flags = (ushort)(kind | (_wrap ? Available : Used));
            (ulong address, uint length) = table != 0 ? (table, 16 * (uint)buffers.Length) : (buffers[i].Address, buffers[i].Length);
            GuestAddress at = Layout.DescriptorArea + 16 * (ulong)_next;
            // The head becomes available last, and all the chain with it.
            ushort old = Memory.Read<ushort>(at + 14);
            WriteDescriptor(at.Value, address, length, id, i == 0 ? old : flags);
            if (i == 0)
                headFlags = flags;
            if (++_next == Size)
            {
                _next = 0;
                _wrap = !_wrap;
            }
        }
        Volatile.Write(ref MemoryMarshal.AsRef<ushort>(Memory.Slice(Layout.DescriptorArea + 16 * (ulong)head + 14, 2)), headFlags);
        return id;
    }

    public override bool NeedsKick()
    {
        Interlocked.MemoryBarrier();
        int added = _added;
        _added = 0;
        ushort flags = Memory.Read<ushort>(Layout.DeviceArea + 2);
        if (!HasEventIndex || flags != 2)
            return flags != 1;
        ushort value = Memory.Read<ushort>(Layout.DeviceArea);
        int wanted = (value & 0x7FFF) - ((value >> 15 != 0) == _wrap ? 0 : Size);
        return (ushort)(_next - wanted - 1) < (ushort)added;
    }

    public override bool TryGetUsed(out ushort id, out uint written)
    {
        GuestAddress at = Layout.DescriptorArea + 16 * (ulong)_seen;
        ushort flags = Volatile.Read(ref MemoryMarshal.AsRef<ushort>(Memory.Slice(at + 14, 2)));
        id = 0;
        written = 0;
        if ((flags & Available) != 0 != _seenWrap || (flags & Used) != 0 != _seenWrap)
            return false;
        id = Memory.Read<ushort>(at + 12);
        written = Memory.Read<uint>(at + 8);
        _ids.Push(id);
        Free += _count[id];
        _seen += _count[id];
        if (_seen >= Size)
        {
            _seen -= Size;
            _seenWrap = !_seenWrap;
        }
        return true;
    }

    public override void EnableCalls()
    {
        Memory.Write(Layout.DriverArea, (ushort)(_seen | (_seenWrap ? 1 << 15 : 0)));
        Memory.Write(Layout.DriverArea + 2, (ushort)(HasEventIndex ? 2 : 0));
        Interlocked.MemoryBarrier();
    }

    public override void DisableCalls() => Memory.Write(Layout.DriverArea + 2, (ushort)1);
}
