using Vmm.Vhost.Native;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Devices.Backends.Block;

/// <summary>The operation on the image that an engine does for a request, or for a piece of it.</summary>
internal enum BlockOperation
{
    Read,
    Write,
    Sync,
    PunchHole,
    ZeroRange,
    Discard,
}

/// <summary>A part of the disk to be given back or zeroed, in bytes.</summary>
internal readonly record struct BlockRange(ulong Offset, ulong Length, bool MayUnmap);

/// <summary>A request that was taken from a ring and is under way. There are as many as the ring has descriptors, made when it starts and
/// used again and again; where its data is lies outside the heap, for the kernel to find while nobody waits.</summary>
internal sealed class BlockRequest
{
    /// <summary>Buffers of data: what the device says it takes, and two.</summary>
    public const int MaxVectors = BlockConfigSpace.MaxSegments + 2;

    /// <summary>Bytes that are read or written by one operation at most. A larger request takes several, one after another, so that a ring can be
    /// stopped between two. Linux sends at most 1280 KiB as it is by default.</summary>
    public const int MaxPiece = 4 << 20;

    /// <summary>Bytes that are given back or zeroed by one operation at most.</summary>
    public const int MaxRangePiece = 256 << 20;

    /// <summary>Vectors for each request in the ring's memory: one more, for the bounce buffer, or a piece of a large buffer.</summary>
    public const int VectorRoom = MaxVectors + 1;

    private readonly NativeBuffer _vectors;
    private readonly int _room;
    private BlockRange[]? _ranges;
    private int _first;
    private int _count;
    private bool _isUnaligned;

    /// <summary>Makes request <paramref name="index"/> of a ring, whose vectors have their place in <paramref name="vectors"/>.</summary>
    public BlockRequest(int index, NativeBuffer vectors)
    {
        Index = index;
        _vectors = vectors;
        _room = index * VectorRoom;
    }

    public int Index { get; }

    /// <summary>Its number among all that were taken from its ring and not put back.</summary>
    public long Sequence { get; set; }

    /// <summary>The chain to give back.</summary>
    public ushort Head { get; set; }

    /// <summary>The byte for the status.</summary>
    public GuestBuffer Status { get; set; }

    public BlockRequestType Type { get; set; }

    /// <summary>The operation on the image that comes next.</summary>
    public BlockOperation Operation { get; set; }

    /// <summary>Where, in bytes.</summary>
    public ulong Offset { get; set; }

    /// <summary>How much is left to be done, in bytes.</summary>
    public ulong Remaining { get; set; }

    /// <summary>How many bytes of a range the operation to do next is for.</summary>
    public ulong RangePiece => Math.Min(Remaining, MaxRangePiece);

    /// <summary>What it counts for among the bytes that are under way in its ring; 0 as long as no engine has had it.</summary>
    public ulong Weight { get; set; }

    /// <summary>How much the guest's buffers were filled, in bytes, without the status.</summary>
    public uint Filled { get; set; }

    /// <summary>What the operation returned; less than 0: the negated error number.</summary>
    public long Result { get; set; }

    /// <summary>How often an operation was interrupted.</summary>
    public int Interruptions { get; set; }

    /// <summary>The buffer of our own through which the data goes; null if the guest's can be used.</summary>
    public NativeBuffer? Bounce { get; private set; }

    /// <summary>Whether the operation is a read or write that is no whole blocks of the file: it goes by <see cref="UnalignedIo"/>.</summary>
    public bool IsUnaligned
    {
        get => _isUnaligned && Operation is (BlockOperation.Read or BlockOperation.Write);
        set => _isUnaligned = value;
    }

    /// <summary>Whether the operation changes the disk.</summary>
    public bool Changes => Operation is not (BlockOperation.Read or BlockOperation.Sync);

    /// <summary>Whether it has its blocks of the image's <see cref="RangeLock"/>.</summary>
    public bool HoldsRange { get; set; }

    /// <summary>Whether it writes zeros that are not the guest's.</summary>
    public bool WritesZeros { get; private set; }

    /// <summary>Ranges that are left, the one in work first.</summary>
    public Span<BlockRange> Ranges => _ranges.AsSpan(RangeIndex, RangeCount - RangeIndex);

    /// <summary>How much is left to be done, in bytes, with the ranges behind the one in work.</summary>
    public ulong Left
    {
        get
        {
            ulong left = Remaining;
            for (int i = RangeIndex + 1; i < RangeCount; i++)
                left += _ranges![i].Length;
            return left;
        }
    }

    private int RangeIndex { get; set; }

    private int RangeCount { get; set; }

    /// <summary>Where the data is, for the operation to do next.</summary>
    public Span<IoVector> Vectors => Bounce is not null ? All.Slice(MaxVectors, 1) : Remaining <= MaxPiece ? All.Slice(_first, _count) : GetPiece();

    private Span<IoVector> All => _vectors.AsSpan<IoVector>().Slice(_room, VectorRoom);

    /// <summary>Begins anew.</summary>
    public void Reset()
    {
        Remaining = 0;
        Filled = 0;
        Interruptions = 0;
        Bounce = null;
        Weight = 0;
        WritesZeros = false;
        IsUnaligned = false;
        RangeIndex = RangeCount = 0;
    }

    /// <summary>Notes where the data is: <paramref name="length"/> bytes of <paramref name="buffers"/> behind the first <paramref name="skip"/>.</summary>
    /// <returns>False if there are too many buffers.</returns>
    public bool TryGather(ReadOnlySpan<GuestBuffer> buffers, ulong skip, ulong length)
    {
        Span<IoVector> vectors = All;
        _first = _count = 0;
        Remaining = length;
        foreach (GuestBuffer piece in new GuestBufferRange(buffers, skip, length))
        {
            if (_count == MaxVectors)
                return false;
            vectors[_count++] = new IoVector(piece.Address, piece.Length);
        }
        return true;
    }

    /// <summary>Whether all of the guest's buffers are aligned as they must be past the page cache.</summary>
    public bool IsAligned(int memory, int block)
    {
        foreach (IoVector vector in All.Slice(_first, _count))
        {
            if (vector.Address % memory != 0 || vector.Length % (nuint)block != 0)
                return false;
        }
        return true;
    }

    /// <summary>Has the data go through <paramref name="buffer"/>, until it is reset.</summary>
    public void BounceBy(NativeBuffer buffer)
    {
        Bounce = buffer;
        FillBounce();
    }

    /// <summary>Notes that <paramref name="count"/> bytes were transferred.</summary>
    public void Advance(ulong count)
    {
        if (Bounce is not null)
        {
            if (Operation == BlockOperation.Read)
                Copy(Bounce.AsSpan<byte>()[..(int)count], toGuest: true);
            Skip(count);
            if (count < Remaining)
            {
                Remaining -= count;
                FillBounce();
                Remaining += count;
            }
        }
        else if (!WritesZeros)
        {
            Skip(count);
        }
        Offset += count;
        Remaining -= count;
    }

    /// <summary>Has it write zeros, again and again the same, in the place of what it was to do.</summary>
    public void PrepareZeros(NativeBuffer zeros)
    {
        Operation = BlockOperation.Write;
        WritesZeros = true;
        LimitZeros(zeros);
    }

    /// <summary>Has it write as many zeros as are left, or as go at a time.</summary>
    public void LimitZeros(NativeBuffer zeros)
    {
        Span<IoVector> vectors = All;
        _first = _count = 0;
        for (ulong left = Remaining; left > 0 && _count < MaxVectors;)
        {
            ulong part = Math.Min(left, (ulong)zeros.Size);
            vectors[_count++] = new IoVector(zeros.Address, (nuint)part);
            left -= part;
        }
    }

    /// <summary>Notes a range; there may be <see cref="BlockConfigSpace.MaxRanges"/>.</summary>
    public void AddRange(BlockRange range)
    {
        _ranges ??= new BlockRange[BlockConfigSpace.MaxRanges];
        _ranges[RangeCount++] = range;
    }

    /// <summary>Goes on to the next range.</summary>
    public void EndRange()
    {
        RangeIndex++;
        WritesZeros = false;
        IsUnaligned = false;
    }

    /// <summary>Notes that the operation on a part of the range is done.</summary>
    public void AdvanceRange()
    {
        ulong piece = RangePiece;
        Offset += piece;
        Remaining -= piece;
    }

    private void FillBounce()
    {
        int length = (int)Math.Min(Remaining, BounceBuffers.Size);
        Span<byte> bounce = Bounce!.AsSpan<byte>()[..length];
        if (Operation == BlockOperation.Write)
            Copy(bounce, toGuest: false);
        All[MaxVectors] = new IoVector(Bounce.Address, (nuint)length);
    }

    // As many whole buffers as there may be, or a part of the first. Where buffers must be aligned each of them ends at a block.
    private Span<IoVector> GetPiece()
    {
        Span<IoVector> all = All.Slice(_first, _count);
        nuint length = 0;
        int count = 0;
        while (count < all.Length && length + all[count].Length <= MaxPiece)
            length += all[count++].Length;
        if (count > 0)
            return all[..count];
        All[MaxVectors] = new IoVector(all[0].Address, MaxPiece);
        return All.Slice(MaxVectors, 1);
    }

    private void Copy(Span<byte> ours, bool toGuest)
    {
        foreach (IoVector vector in All.Slice(_first, _count))
        {
            int part = (int)Math.Min((ulong)vector.Length, (ulong)ours.Length);
            Span<byte> theirs = new GuestBuffer(vector.Address, (uint)part).Span;
            if (toGuest)
                ours[..part].CopyTo(theirs);
            else
                theirs.CopyTo(ours);
            ours = ours[part..];
            if (ours.IsEmpty)
                return;
        }
    }

    private void Skip(ulong count)
    {
        Span<IoVector> vectors = All;
        while (count > 0)
        {
            IoVector vector = vectors[_first];
            if (count < vector.Length)
            {
                vectors[_first] = new IoVector(vector.Address + (nint)count, vector.Length - (nuint)count);
                return;
            }
            count -= vector.Length;
            _first++;
            _count--;
        }
    }
}
