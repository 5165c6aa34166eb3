using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Vhost.Memory;

namespace Vmm.Vhost.Virtqueue;

/// <summary>The device's side of a virtqueue: takes requests from a ring and gives them back. The ring's contents are the guest's: each
/// descriptor is copied once, and the copy is checked. Not thread-safe.</summary>
public abstract unsafe class VirtQueue
{
    /// <summary>The most descriptors of a request, and the most pieces of memory that its buffers lie in: 1024, whatever the ring's size is. Drivers
    /// (Linux, for example) do not keep to the ring's size in indirect tables, and QEMU has this limit. readv(2) takes as many pieces.</summary>
    public const int MaxChainLength = 1024;

    /// <summary>VIRTQ_DESC_F_NEXT: the chain goes on.</summary>
    private protected const ushort FlagNext = 1;

    /// <summary>VIRTQ_DESC_F_WRITE: the device writes the buffer.</summary>
    private protected const ushort FlagWrite = 2;

    /// <summary>VIRTQ_DESC_F_INDIRECT: the buffer is a table of descriptors.</summary>
    private protected const ushort FlagIndirect = 4;

    /// <summary>Bytes of a descriptor, in a split ring, in a packed one and in an indirect table.</summary>
    private protected const int DescriptorSize = 16;

    private const int InflightVersionOffset = 8;

    private readonly GuestAddressSpace _memory;
    private readonly GuestBuffer[] _buffers = new GuestBuffer[MaxChainLength];
    private readonly bool[] _isTaken;
    private readonly ushort[]? _order;   // with IN_ORDER the heads that are taken, a ring
    private int _oldest;
    private int _left;                  // requests of a predecessor's, to be taken first
    private long _takenBehindLeft;      // that were taken after them, and not put back
    private int _descriptors;           // of the chain that is being put together
    private int _readable;
    private int _writable;
    private DirtyLog? _log;
    private DirtyRanges? _dirty;        // of the request that is given back
    private byte[]? _table;             // a copy of an indirect table that does not lie in one region of memory; made for the first
    private GuestBuffer[][]? _logged;   // with a dirty log, by head: what the device may write

    private protected VirtQueue(GuestAddressSpace memory, in RingLayout ring, ulong features)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(ring.Size, 1, nameof(ring));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(ring.Size, RingLayout.MaxSize, nameof(ring));
        _memory = memory;
        Index = ring.Index;
        Size = ring.Size;
        HasEventIndex = (features & VirtioFeatures.EventIndex) != 0;
        HasIndirect = (features & VirtioFeatures.IndirectDescriptors) != 0;
        _isTaken = new bool[ring.Size];
        _order = (features & VirtioFeatures.InOrder) != 0 ? new ushort[ring.Size] : null;
    }

    /// <summary>The ring's number, for messages.</summary>
    public int Index { get; }

    /// <summary>Descriptors in the ring.</summary>
    public int Size { get; }

    /// <summary>Requests that were taken and not given back.</summary>
    public int Taken { get; private set; }

    /// <summary>Where the next request will be taken from: <see cref="RingLayout.Base"/> of a later start.</summary>
    public abstract uint Base { get; }

    /// <summary>Requests that wait in the ring, as far as it says how many: of a packed ring only whether there is one.</summary>
    public abstract int Waiting { get; }

    /// <summary>Requests that a predecessor had in flight, and that are still to be taken again: they are behind <see cref="Base"/>, and only the
    /// in-flight log has them.</summary>
    internal int Left => _left - NextLeft;

    /// <summary>Whether it goes on with an in-flight log that another queue began.</summary>
    internal bool HasPredecessor { get; private set; }

    /// <summary>The dirty log, if one is kept.</summary>
    internal DirtyLog? Log => _log;

    /// <summary>Which of the requests of a predecessor's is the next, from 0 on.</summary>
    private protected int NextLeft { get; private set; }

    private protected bool HasEventIndex { get; }

    private protected bool HasIndirect { get; }

    /// <summary>A queue of the kind that <paramref name="features"/> say.</summary>
    /// <param name="memory">The guest's memory; it must outlive the queue.</param>
    /// <param name="ring">The ring.</param>
    /// <param name="features">What the driver accepted.</param>
    /// <exception cref="VirtqueueException">The ring is not in memory, or its beginning not in the ring.</exception>
    public static VirtQueue Create(GuestAddressSpace memory, in RingLayout ring, ulong features) =>
        (features & VirtioFeatures.RingPacked) != 0
            ? new PackedVirtqueue(memory, in ring, features)
            : new SplitVirtqueue(memory, in ring, features);

    /// <summary>Takes the next request. Its buffers stay where they are until it is given back; the chain itself is valid until the next
    /// is taken.</summary>
    /// <returns>False if there is none. The driver kicks for the next if <see cref="EnableKicks"/> asks it to.</returns>
    /// <exception cref="VirtqueueException">The ring is broken.</exception>
    public abstract bool TryTake(out DescriptorChain chain);

    /// <summary>Whether what was taken last, and not put back, is what a predecessor left: put back, it is in the in-flight log alone.</summary>
    internal bool IsLatestLeft => _takenBehindLeft == 0;

    /// <summary>Undoes the latest <see cref="TryTake"/>: the request is the next again. Then the one before it may be put back, and so on.</summary>
    /// <param name="head">What was taken last of all that were not put back, and not given back since.</param>
    public void PutBack(ushort head)
    {
        CheckMemory();
        if (head >= Size || !_isTaken[head])
            throw new InvalidOperationException($"queue {Index}: request {head} is put back, which was not taken");
        _isTaken[head] = false;
        Taken--;
        if (IsLatestLeft)
        {
            NextLeft--;
            return;
        }
        _takenBehindLeft--;
        Untake(head);
    }

    /// <summary>Gives a request back.</summary>
    /// <param name="head"><see cref="DescriptorChain.Head"/>; with IN_ORDER of the one taken first.</param>
    /// <param name="written">Bytes written to it.</param>
    /// <exception cref="InvalidOperationException">The caller does not have that request, or another one's turn has come.</exception>
    public void Return(ushort head, uint written)
    {
        Put(head, written);
        Publish();
    }

    /// <summary>Whether the driver wants a call for what was given back since this was last asked.</summary>
    public abstract bool ShouldCall();

    /// <summary>Asks the driver to kick for the next request.</summary>
    /// <returns>Whether one is there already, for which no kick may come.</returns>
    /// <exception cref="VirtqueueException">The ring is broken.</exception>
    public abstract bool EnableKicks();

    /// <summary>Tells the driver that kicks are of no use now. It may kick all the same.</summary>
    public abstract void SuppressKicks();

    /// <summary>Gives a request back as <see cref="Return"/> does, but the driver need not see it before <see cref="Publish"/> or
    /// <see cref="ShouldCall"/>: where it looks at the ring all the time, each index that is written is fetched from this processor.</summary>
    internal abstract void Put(ushort head, uint written);

    /// <summary>Has the driver see what was put back.</summary>
    internal virtual void Publish()
    {
    }

    /// <summary>Logs every page that the device writes from now on. Nothing is taken.</summary>
    /// <param name="log">Where.</param>
    /// <param name="usedRing">The guest-physical address by which writes to the used ring are logged; null if they are not.</param>
    internal void LogTo(DirtyLog log, ulong? usedRing)
    {
        _log = log;
        _dirty = new DirtyRanges(log, MaxChainLength);
        _logged = new GuestBuffer[Size][];
        Array.Fill(_logged, []);
        LogRingAt(usedRing);
    }

    /// <summary>Whether there is an in-flight log.</summary>
    internal abstract bool IsTracked { get; }

    /// <summary>Keeps track of what is in flight, and goes on with what a predecessor has left. Nothing is taken.</summary>
    /// <param name="area">The memory of <see cref="InflightSizeOf"/> bytes; it must outlive the queue.</param>
    /// <param name="capacity">Descriptors that it is for, at least those of the ring.</param>
    /// <exception cref="VirtqueueException">It is no such log.</exception>
    internal abstract void TrackInflight(byte* area, int capacity);

    /// <summary>Has a log begin anew: nothing of its ring is in flight, and the next start is where it is told to.</summary>
    /// <param name="area">The memory of the log, of either kind of ring.</param>
    internal static void ForgetInflight(byte* area) => Volatile.Write(ref *(ushort*)(area + InflightVersionOffset), 0);

    /// <summary>Bytes that <see cref="TrackInflight"/> needs.</summary>
    internal static ulong InflightSizeOf(bool isPacked, int capacity) =>
        isPacked ? PackedInflight.SizeOf(capacity) : SplitInflight.SizeOf(capacity);

    private protected abstract void LogRingAt(ulong? usedRing);

    /// <summary>Makes a request that was taken from the ring, the latest, the next again.</summary>
    private protected abstract void Untake(ushort head);

    /// <summary>Notes that a predecessor has left <paramref name="count"/> requests, which are taken first.</summary>
    private protected void NoteLeft(int count)
    {
        // What the front-end says counts only for a ring without a past: a predecessor that was killed told it nothing.
        HasPredecessor = true;
        _left = count;
    }

    /// <summary>Notes that <paramref name="head"/> was taken: the next that a predecessor has left, or where there is none the ring's next.</summary>
    private protected void NoteTaken(ushort head)
    {
        if (_isTaken[head])
            throw Broken($"request {head} is made available again before it was used");
        _isTaken[head] = true;
        if (_order is not null)
            _order[(_oldest + Taken) % Size] = head;
        Taken++;
        if (Left > 0)
            NextLeft++;
        else
            _takenBehindLeft++;
        if (_logged is not null)
            _logged[head] = _buffers.AsSpan(_readable, _writable).ToArray();
    }

    /// <summary>Notes that <paramref name="head"/> is given back.</summary>
    private protected void NoteReturned(ushort head)
    {
        if (head >= Size || !_isTaken[head])
            throw new InvalidOperationException($"queue {Index}: request {head} is given back, which was not taken");
        if (_order is not null)
        {
            if (_order[_oldest] != head)
                throw new InvalidOperationException($"queue {Index}: request {head} is given back before {_order[_oldest]}, against IN_ORDER");
            _oldest = (_oldest + 1) % Size;
        }
        if (_log is not null)
            LogBuffers(_logged![head]);
        _isTaken[head] = false;
        Taken--;
    }

    // All of them, whatever the device says it has written: that much it may have touched.
    private void LogBuffers(ReadOnlySpan<GuestBuffer> buffers)
    {
        foreach (GuestBuffer buffer in buffers)
        {
            if (_memory.TryGetAddress(buffer.Address, out GuestAddress address))
                _dirty!.Add(address.Value, buffer.Length);
        }
        _dirty!.Mark();
    }

    /// <summary>Makes sure that the memory is still there.</summary>
    /// <exception cref="ObjectDisposedException">It is disposed.</exception>
    private protected void CheckMemory() => _memory.ThrowIfGone();

    /// <summary>Begins a chain.</summary>
    private protected void BeginChain() => _descriptors = _readable = _writable = 0;

    /// <summary>Adds a descriptor's buffer to the chain, a piece for each region of memory that it lies in.</summary>
    /// <exception cref="VirtqueueException">It is not in memory, stands where it may not, or there are more than <see cref="MaxChainLength"/>.</exception>
    private protected void AddBuffer(ulong address, uint length, ushort flags)
    {
        if (_descriptors++ == MaxChainLength)
            throw Broken($"a chain has more than {MaxChainLength} descriptors, or loops");
        bool isWritable = (flags & FlagWrite) != 0;
        if (!isWritable && _writable > 0)
            throw Broken("a readable descriptor follows a writable one");
        ulong next = address;
        uint left = length;
        do
        {
            if (_readable + _writable == _buffers.Length)
                throw Broken($"the buffers of a chain lie in more than {MaxChainLength} pieces of memory");
            if (next < address || !_memory.TrySliceFront(new GuestAddress(next), left, out Span<byte> piece))
                throw NotInMemory(new GuestAddress(address), length);
            _buffers[_readable + _writable] = new GuestBuffer((nint)AddressOf(piece), (uint)piece.Length);
            if (isWritable)
                _writable++;
            else
                _readable++;
            next = unchecked(next + (uint)piece.Length);
            left -= (uint)piece.Length;
        }
        while (left > 0);
    }

    /// <summary>The table that an indirect descriptor names (VIRTIO 1.2 §2.7.5.3, §2.8.7). It is the last of its chain, and others may stand before
    /// it (§2.7.5.3.2). The device ignores its WRITE flag (§2.7.5.3.2). One that lies across regions of memory is copied together; it stays until the
    /// next is located.</summary>
    /// <exception cref="VirtqueueException">None may stand here, it is not in memory, or has more than <see cref="MaxChainLength"/> entries.</exception>
    private protected byte* LocateTable(ulong address, uint length, ushort flags)
    {
        if (!HasIndirect || (flags & FlagNext) != 0)
            throw Broken("an indirect descriptor stands where none may");
        if (length == 0 || length % DescriptorSize != 0 || length / DescriptorSize > MaxChainLength)
            throw Broken($"an indirect table has {length} bytes, and is to have a multiple of {DescriptorSize}, at most {MaxChainLength * DescriptorSize}");
        return _memory.TrySlice(new GuestAddress(address), length, out Span<byte> table) ? AddressOf(table) : CopyTable(address, length);
    }

    private byte* CopyTable(ulong address, uint length)
    {
        _table ??= GC.AllocateUninitializedArray<byte>(MaxChainLength * DescriptorSize, pinned: true);
        Span<byte> left = _table.AsSpan(0, (int)length);
        for (ulong next = address; left.Length > 0;)
        {
            if (next < address || !_memory.TrySliceFront(new GuestAddress(next), (ulong)left.Length, out Span<byte> piece))
                throw NotInMemory(new GuestAddress(address), length);
            piece.CopyTo(left);
            left = left[piece.Length..];
            next = unchecked(next + (ulong)piece.Length);
        }
        // SAFETY: the array is pinned, and the queue's.
        return AddressOf(_table);
    }

    /// <summary>The chain as it was put together.</summary>
    private protected DescriptorChain EndChain(ushort head) =>
        new(head, _buffers.AsSpan(0, _readable), _buffers.AsSpan(_readable, _writable));

    /// <summary>Where a range is in this process.</summary>
    /// <exception cref="VirtqueueException">It is not in one region of memory.</exception>
    private protected byte* Locate(GuestAddress address, long length) =>
        _memory.TrySlice(address, (ulong)length, out Span<byte> span)
            ? AddressOf(span)
            : throw NotInMemory(address, length);

    // SAFETY: guest memory is mapped, not on the heap: it does not move, and it outlives the queue.
    private static byte* AddressOf(Span<byte> memory) => (byte*)Unsafe.AsPointer(ref MemoryMarshal.GetReference(memory));

    private VirtqueueException NotInMemory(GuestAddress address, long length) => Broken($"{address}+0x{length:x} is not in memory");

    /// <summary>The exception that says that the driver has broken the ring.</summary>
    private protected VirtqueueException Broken(string what) => new($"queue {Index}: {what}");
}
