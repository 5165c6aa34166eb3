using System.Runtime.InteropServices;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Vhost.Virtqueue;

/// <summary>The driver's side of a split virtqueue (VIRTIO 1.2 §2.7): gives requests to a device and takes them back. For programs that
/// use a back-end without a guest, and for tests. Accept <see cref="SupportedFeatures"/> and no other feature of rings. Not thread-safe, but
/// another thread may dispose of it: that ends a <see cref="Wait"/>.</summary>
/// <remarks>The device is not trusted: a request that it gives back though it does not have it breaks the ring, and every later call throws
/// the same <see cref="VirtqueueException"/>.</remarks>
public sealed class SplitVirtqueueDriver : IDisposable
{
    /// <summary>The features of rings (VIRTIO 1.2 §6) that this driver works with: VIRTIO_F_VERSION_1 and VIRTIO_F_EVENT_IDX. A program accepts
    /// those of them that the back-end offers, and those of the device's type that the program itself knows. With another feature of rings, such as
    /// VIRTIO_F_RING_PACKED or VIRTIO_F_IN_ORDER, the queue does not work.</summary>
    public const ulong SupportedFeatures = VirtioFeatures.Version1 | VirtioFeatures.EventIndex;

    private const int DescriptorSize = 16;
    private const int UsedElementSize = 8;
    private const int IndexOffset = 2;
    private const int RingOffset = 4;
    private const ushort FlagNext = 1;
    private const ushort FlagWrite = 2;

    private readonly GuestMemory _memory;
    private readonly VringConfig _config;   // with the base of a new ring
    private readonly EventFd _kick;
    private readonly EventFd _call;
    private readonly EventFd _error;
    private readonly ushort[] _next;      // descriptors of a chain, and those that are free, one after the other
    private readonly ushort[] _counts;    // descriptors of the chains that the device has, by their heads; 0 for all others
    private string? _broken;
    private ushort _free;
    private ushort _available;
    private ushort _used;
    private ushort _given;                // requests that the device has
    private bool _isDisposed;

    /// <summary>Lays out a queue in memory and makes its eventfds.</summary>
    /// <param name="memory">The memory; to be disposed of after the queue.</param>
    /// <param name="start">Where the queue is; a multiple of 16. <see cref="BytesFor"/> says how much it takes.</param>
    /// <param name="size">Descriptors: a power of two, 1 to 32768.</param>
    /// <param name="index">The ring's number in its device, 0 to 255.</param>
    /// <exception cref="ArgumentException">One of the values is not what is said here.</exception>
    /// <exception cref="GuestMemoryException">It is not in memory.</exception>
    /// <exception cref="ErrnoException">There are no eventfds to be had.</exception>
    public SplitVirtqueueDriver(GuestMemory memory, GuestAddress start, int size, int index = 0)
    {
        ArgumentNullException.ThrowIfNull(memory);
        CheckSize(size);
        if (start.Value % DescriptorSize != 0)
            throw new ArgumentOutOfRangeException(nameof(start), start, $"start must be a multiple of {DescriptorSize}");
        if (index is < 0 or > 255)
            throw new ArgumentOutOfRangeException(nameof(index), index, "index must be 0 to 255");
        memory.Slice(start, BytesFor(size)).Clear();
        _memory = memory;
        _next = new ushort[size];
        _counts = new ushort[size];
        for (int i = 0; i < size; i++)
            _next[i] = (ushort)(i + 1);
        FreeDescriptors = size;
        ulong available = (ulong)(DescriptorSize * size);
        try
        {
            _kick = new EventFd();
            _call = new EventFd();
            _error = new EventFd();
        }
        catch
        {
            _kick?.Dispose();
            _call?.Dispose();
            throw;
        }
        _config = new VringConfig
        {
            Index = index,
            Size = size,
            DescriptorArea = start,
            DriverArea = start + available,
            DeviceArea = start + available + AvailableSize(size),
            Kick = _kick,
            Call = _call,
            Error = _error,
        };
    }

    /// <summary>What a back-end is told of the queue when it starts it, also when it starts it again: <see cref="VringConfig.Base"/> is
    /// <see cref="UsedIndex"/>. Read it after the ring was stopped.</summary>
    /// <exception cref="ObjectDisposedException">The memory is disposed.</exception>
    public VringConfig Config => _config with { Base = UsedIndex };

    /// <summary>How many descriptors are in no request.</summary>
    public int FreeDescriptors { get; private set; }

    /// <summary>How many requests the device says that it has given back since the beginning, modulo 65536.</summary>
    /// <exception cref="ObjectDisposedException">The memory is disposed.</exception>
    public ushort UsedIndex => Volatile.Read(ref Short(_config.DeviceArea, IndexOffset));

    /// <summary>How many bytes a queue takes.</summary>
    /// <param name="size">Descriptors: a power of two, 1 to 32768.</param>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="size"/> is not.</exception>
    public static int BytesFor(int size)
    {
        CheckSize(size);
        return DescriptorSize * size + (int)AvailableSize(size) + RingOffset + UsedElementSize * size + 2;
    }

    /// <summary>Gives a request to the device; <see cref="Kick"/> tells it so.</summary>
    /// <param name="readable">What the device reads.</param>
    /// <param name="writable">What it writes, after all of that.</param>
    /// <returns>The number by which the request comes back.</returns>
    /// <exception cref="ArgumentException">There is no buffer, one is empty, or there are more than the queue has descriptors.</exception>
    /// <exception cref="GuestMemoryException">A buffer does not lie in one region of the memory.</exception>
    /// <exception cref="InvalidOperationException">There are not so many free descriptors now.</exception>
    /// <exception cref="VirtqueueException">The ring is broken.</exception>
    public ushort Add(ReadOnlySpan<(GuestAddress Address, uint Length)> readable, ReadOnlySpan<(GuestAddress Address, uint Length)> writable)
    {
        CheckUsable();
        int count = readable.Length + writable.Length;
        if (count < 1 || count > _config.Size)
            throw new ArgumentException($"a request of queue {_config.Index} has 1 to {_config.Size} buffers, not {count}", nameof(readable));
        CheckBuffers(readable, nameof(readable));
        CheckBuffers(writable, nameof(writable));
        if (count > FreeDescriptors)
            throw new InvalidOperationException($"the queue has {FreeDescriptors} free descriptors, and the request needs {count}");
        ushort head = _free;
        ushort descriptor = head;
        for (int i = 0; i < count; i++)
        {
            bool isWritable = i >= readable.Length;
            (GuestAddress address, uint length) = isWritable ? writable[i - readable.Length] : readable[i];
            bool isLast = i == count - 1;
            Span<byte> entry = _memory.Slice(_config.DescriptorArea + (ulong)(DescriptorSize * descriptor), DescriptorSize);
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
        _counts[head] = (ushort)count;
        _given++;
        Short(_config.DriverArea, RingOffset + 2 * (_available % _config.Size)) = head;
        Volatile.Write(ref Short(_config.DriverArea, IndexOffset), ++_available);
        return head;
    }

    /// <summary>Tells the device that there is something in the queue.</summary>
    /// <exception cref="ObjectDisposedException">The queue is disposed.</exception>
    public void Kick() => _kick.SignalPeer();

    /// <summary>Takes back a request that the device is done with. If there is none, the device signals <see cref="VringConfig.Call"/> of
    /// <see cref="Config"/> for the next one.</summary>
    /// <param name="head">Which.</param>
    /// <param name="written">Bytes that the device says it wrote.</param>
    /// <returns>False if there is none.</returns>
    /// <exception cref="VirtqueueException">The device gave back what it does not have: the ring is broken.</exception>
    public bool TryTake(out ushort head, out uint written)
    {
        head = 0;
        written = 0;
        CheckUsable();
        ushort waiting = (ushort)(UsedIndex - _used);
        if (waiting == 0 && AskForCall())
            waiting = (ushort)(UsedIndex - _used);
        if (waiting == 0)
            return false;
        if (waiting > _given)
            throw Break($"the device gives back {waiting} requests, and has {_given}");
        ReadOnlySpan<byte> entry = _memory.Slice(
            _config.DeviceArea + (ulong)(RingOffset + UsedElementSize * (_used % _config.Size)), UsedElementSize);
        uint id = MemoryMarshal.Read<uint>(entry);
        uint length = MemoryMarshal.Read<uint>(entry[4..]);
        if (id >= (uint)_config.Size || _counts[id] == 0)
            throw Break($"the device gives back request {id}, which it does not have");
        written = length;
        head = (ushort)id;
        ushort last = head;
        for (int i = 1; i < _counts[head]; i++)
            last = _next[last];
        _next[last] = _free;
        _free = head;
        FreeDescriptors += _counts[head];
        _counts[head] = 0;
        _given--;
        _used++;
        return true;
    }

    /// <summary>Waits until the device gives something back that was not taken yet.</summary>
    /// <param name="timeout">How long; <see cref="Timeout.InfiniteTimeSpan"/> for as long as it takes.</param>
    /// <returns>False if <paramref name="timeout"/> passed.</returns>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="timeout"/> is negative, and not infinite.</exception>
    /// <exception cref="VirtqueueException">The device cannot go on with the ring, or is gone for good: <see cref="VringConfig.Error"/> of
    /// <see cref="Config"/> was signalled. Or the ring is broken.</exception>
    /// <exception cref="ObjectDisposedException">The queue is disposed, or was meanwhile by another thread.</exception>
    public bool Wait(TimeSpan timeout)
    {
        bool isForEver = timeout == Timeout.InfiniteTimeSpan;
        if (!isForEver)
            ArgumentOutOfRangeException.ThrowIfLessThan(timeout, TimeSpan.Zero);
        Span<PollEntry> entries = [new PollEntry(_call, PollEvents.Readable), new PollEntry(_error, PollEvents.Readable)];
        long start = System.Diagnostics.Stopwatch.GetTimestamp();
        while (true)
        {
            CheckUsable();
            if (UsedIndex != _used || AskForCall())
                return true;
            TimeSpan left = isForEver ? timeout : timeout - System.Diagnostics.Stopwatch.GetElapsedTime(start);
            if (!isForEver && left <= TimeSpan.Zero)
                return false;
            Poll.Wait(entries, isForEver ? -1 : (int)Math.Min(Math.Ceiling(left.TotalMilliseconds), int.MaxValue));
            CheckUsable();
            if (entries[1].Happened != PollEvents.None && UsedIndex == _used)
                throw Break("the device cannot go on with it, or is gone");
            _call.DrainPeer();
        }
    }

    /// <summary>Closes the eventfds; after the ring was stopped. A <see cref="Wait"/> of another thread ends.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _isDisposed, true))
            return;
        _call.SignalPeer();
        _kick.Dispose();
        _call.Dispose();
        _error.Dispose();
    }

    private static void CheckSize(int size)
    {
        if (!int.IsPow2(size) || size > RingLayout.MaxSize)
            throw new ArgumentOutOfRangeException(nameof(size), size, $"size must be a power of two, 1 to {RingLayout.MaxSize}");
    }

    private static ulong AvailableSize(int size) => (ulong)Align.Up(RingOffset + 2 * size + 2, 4);

    // With an event index the device calls for one used buffer alone, that with the index used_event (VIRTIO 1.2 §2.7.7.1): here the next one. The field
    // is there in any case, and without that feature nobody reads it. Returns whether something was given back meanwhile, for which the device
    // may not call: each side publishes first, and then looks at what the other has published.
    private bool AskForCall()
    {
        Volatile.Write(ref Short(_config.DriverArea, RingOffset + 2 * _config.Size), _used);
        Interlocked.MemoryBarrier();
        return UsedIndex != _used;
    }

    private void CheckUsable()
    {
        ObjectDisposedException.ThrowIf(Volatile.Read(ref _isDisposed), this);
        if (_broken is not null)
            throw new VirtqueueException(_broken);
    }

    private VirtqueueException Break(string what) => new(_broken = $"queue {_config.Index}: {what}");

    private void CheckBuffers(ReadOnlySpan<(GuestAddress Address, uint Length)> buffers, string name)
    {
        foreach ((GuestAddress address, uint length) in buffers)
        {
            if (length == 0)
                throw new ArgumentException($"the buffer at {address} is empty", name);
            if (!_memory.TrySlice(address, length, out _))
                throw GuestAddressSpace.OutOfRange(address, length);
        }
    }

    private ref ushort Short(GuestAddress area, int offset) =>
        ref MemoryMarshal.AsRef<ushort>(_memory.Slice(area + (ulong)offset, sizeof(ushort)));
}
