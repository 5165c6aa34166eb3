using System.Runtime.InteropServices;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Vhost.Virtqueue;

/// <summary>The driver's side of a split virtqueue (VIRTIO 1.2 §2.7): gives requests to a device and takes them back. For programs that
/// use a back-end without a guest, and for tests. Without VIRTIO_F_EVENT_IDX and indirect descriptors. Not thread-safe.</summary>
public sealed class SplitVirtqueueDriver : IDisposable
{
    private const int DescriptorSize = 16;
    private const int UsedElementSize = 8;
    private const int IndexOffset = 2;
    private const int RingOffset = 4;
    private const ushort FlagNext = 1;
    private const ushort FlagWrite = 2;

    private readonly GuestMemory _memory;
    private readonly EventFd _kick = new();
    private readonly EventFd _call = new();
    private readonly ushort[] _next;      // descriptors of a chain, and those that are free, one after the other
    private readonly byte[] _lengths;     // of chains in use, by their heads, less one
    private ushort _free;
    private ushort _available;
    private ushort _used;

    /// <summary>Lays out a queue in memory and makes its eventfds.</summary>
    /// <param name="memory">The memory; it must outlive the queue.</param>
    /// <param name="start">Where the queue is; a multiple of 16. <see cref="BytesFor"/> says how much it takes.</param>
    /// <param name="size">Descriptors: a power of two, 1 to 32768.</param>
    /// <param name="index">The ring's number in its device.</param>
    /// <exception cref="GuestMemoryException">It is not in memory.</exception>
    public SplitVirtqueueDriver(GuestMemory memory, GuestAddress start, int size, int index = 0)
    {
        ArgumentOutOfRangeException.ThrowIfNotEqual(int.IsPow2(size) && size <= 32768, true, nameof(size));
        ArgumentOutOfRangeException.ThrowIfNotEqual(start.Value % DescriptorSize, 0UL, nameof(start));
        memory.Slice(start, BytesFor(size)).Clear();
        _memory = memory;
        _next = new ushort[size];
        _lengths = new byte[size];
        for (int i = 0; i < size; i++)
            _next[i] = (ushort)(i + 1);
        FreeDescriptors = size;
        ulong available = (ulong)(DescriptorSize * size);
        Config = new VringConfig
        {
            Index = index,
            Size = size,
            DescriptorArea = start,
            DriverArea = start + available,
            DeviceArea = start + available + AvailableSize(size),
            Kick = _kick,
            Call = _call,
        };
    }

    /// <summary>What a back-end is told of the queue.</summary>
    public VringConfig Config { get; }

    /// <summary>How many descriptors are in no request.</summary>
    public int FreeDescriptors { get; private set; }

    /// <summary>How many requests the device has given back since the beginning, modulo 65536.</summary>
    public ushort UsedIndex => Volatile.Read(ref Short(Config.DeviceArea, IndexOffset));

    /// <summary>How many bytes a queue takes.</summary>
    public static int BytesFor(int size) => DescriptorSize * size + (int)AvailableSize(size) + RingOffset + UsedElementSize * size + 2;

    /// <summary>Gives a request to the device; <see cref="Kick"/> tells it so.</summary>
    /// <param name="readable">What the device reads.</param>
    /// <param name="writable">What it writes, after all of that.</param>
    /// <returns>The number by which the request comes back.</returns>
    /// <exception cref="InvalidOperationException">There are not so many free descriptors.</exception>
    public ushort Add(ReadOnlySpan<(GuestAddress Address, uint Length)> readable, ReadOnlySpan<(GuestAddress Address, uint Length)> writable)
    {
        int count = readable.Length + writable.Length;
        ArgumentOutOfRangeException.ThrowIfLessThan(count, 1, nameof(readable));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(count, byte.MaxValue + 1, nameof(readable));
        if (count > FreeDescriptors)
            throw new InvalidOperationException($"the queue has {FreeDescriptors} free descriptors, and the request needs {count}");
        ushort head = _free;
        ushort descriptor = head;
        for (int i = 0; i < count; i++)
        {
            bool isWritable = i >= readable.Length;
            (GuestAddress address, uint length) = isWritable ? writable[i - readable.Length] : readable[i];
            bool isLast = i == count - 1;
            Span<byte> entry = _memory.Slice(Config.DescriptorArea + (ulong)(DescriptorSize * descriptor), DescriptorSize);
            MemoryMarshal.Write(entry, address.Value);
            MemoryMarshal.Write(entry[8..], length);
            MemoryMarshal.Write(entry[12..], (ushort)((isWritable ? FlagWrite : 0) | (isLast ? 0 : FlagNext)));
            MemoryMarshal.Write(entry[14..], isLast ? (ushort)0 : _next[descriptor]);
            if (isLast)
                _free = _next[descriptor];
            else
                descriptor = _next[descriptor];
        }
        FreeDescriptors -= count;
        _lengths[head] = (byte)(count - 1);
        Short(Config.DriverArea, RingOffset + 2 * (_available % Config.Size)) = head;
        Volatile.Write(ref Short(Config.DriverArea, IndexOffset), ++_available);
        return head;
    }

    /// <summary>Tells the device that there is something in the queue.</summary>
    public void Kick() => _kick.Signal();

    /// <summary>Takes back a request that the device is done with.</summary>
    /// <param name="head">Which.</param>
    /// <param name="written">Bytes that the device wrote.</param>
    /// <returns>False if there is none.</returns>
    /// <exception cref="VirtqueueException">The device gave back what it was not given.</exception>
    public bool TryTake(out ushort head, out uint written)
    {
        head = 0;
        written = 0;
        if (UsedIndex == _used)
            return false;
        ReadOnlySpan<byte> entry = _memory.Slice(
            Config.DeviceArea + (ulong)(RingOffset + UsedElementSize * (_used % Config.Size)), UsedElementSize);
        uint id = MemoryMarshal.Read<uint>(entry);
        written = MemoryMarshal.Read<uint>(entry[4..]);
        if (id >= (uint)Config.Size)
            throw new VirtqueueException($"queue {Config.Index}: the device gives back request {id} of {Config.Size}");
        _used++;
        head = (ushort)id;
        ushort last = head;
        for (int i = 0; i < _lengths[head]; i++)
            last = _next[last];
        _next[last] = _free;
        _free = head;
        FreeDescriptors += _lengths[head] + 1;
        return true;
    }

    /// <summary>Waits until the device gives something back that was not taken yet.</summary>
    /// <returns>False if <paramref name="timeout"/> passed.</returns>
    public bool Wait(TimeSpan timeout)
    {
        Span<PollEntry> entries = [new PollEntry(_call, PollEvents.Readable)];
        long end = Environment.TickCount64 + (long)timeout.TotalMilliseconds;
        while (UsedIndex == _used)
        {
            long left = end - Environment.TickCount64;
            if (left <= 0)
                return false;
            Poll.Wait(entries, (int)left);
            _call.Drain();
        }
        return true;
    }

    /// <summary>Closes the eventfds; after the ring was stopped.</summary>
    public void Dispose()
    {
        _kick.Dispose();
        _call.Dispose();
    }

    private static ulong AvailableSize(int size) => (ulong)((RingOffset + 2 * size + 2 + 3) & ~3);

    private ref ushort Short(GuestAddress area, int offset) =>
        ref MemoryMarshal.AsRef<ushort>(_memory.Slice(area + (ulong)offset, sizeof(ushort)));
}
