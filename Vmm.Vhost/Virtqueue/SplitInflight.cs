using System.Runtime.InteropServices;

namespace Vmm.Vhost.Virtqueue;

/// <summary>What of a split ring is in flight, in memory that outlives the back-end (vhost-user.rst, "Inflight I/O tracking"). The front-end
/// could write there too: what is read back is checked.</summary>
internal sealed unsafe class SplitInflight(byte* area, int capacity)
{
    private const ushort CurrentVersion = 1;

    private readonly ushort[] _batch = new ushort[capacity];   // given back, and not seen by the driver yet
    private int _batchCount;
    private ulong _counter;

    /// <summary>Bytes for a ring of <paramref name="capacity"/> descriptors, in whole cache lines.</summary>
    public static ulong SizeOf(int capacity) => Align.Up((ulong)(sizeof(Header) + capacity * sizeof(Entry)), 64UL);

    private Header* TheHeader => (Header*)area;

    private Entry* Entries => (Entry*)(area + sizeof(Header));

    /// <summary>Begins, or goes on where a predecessor ended.</summary>
    /// <param name="used">The used ring's index.</param>
    /// <param name="size">Descriptors in the ring.</param>
    /// <returns>What is in flight, oldest first; null if this is new.</returns>
    /// <exception cref="InvalidDataException">It is no such log, or of another ring.</exception>
    public ushort[]? Open(ushort used, int size)
    {
        if (TheHeader->Version == 0)
        {
            new Span<Entry>(Entries, capacity).Clear();
            TheHeader->Features = 0;    // "Now it's initialized to 0" (vhost-user.rst, "Inflight I/O tracking")
            TheHeader->DescriptorCount = (ushort)capacity;
            TheHeader->LastBatchHead = 0;
            TheHeader->UsedIndex = used;
            Volatile.Write(ref TheHeader->Version, CurrentVersion);
            return null;
        }
        // The front-end may change it meanwhile: each value is read once, and checked where it is followed.
        (ushort version, ushort count) = (TheHeader->Version, TheHeader->DescriptorCount);
        if (version != CurrentVersion || count != capacity)
            throw new InvalidDataException($"its in-flight log has version {version} and {count} descriptors");
        FinishLastBatch(used);
        var found = new List<(ulong Counter, ushort Head)>();
        for (int i = 0; i < size; i++)
        {
            if (Entries[i].Inflight != 0)
                found.Add((Entries[i].Counter, (ushort)i));
        }
        found.Sort();
        _counter = found.Count > 0 ? found[^1].Counter + 1 : 0;
        return [.. found.Select(one => one.Head)];
    }

    public void Taken(ushort head)
    {
        Entries[head].Counter = _counter++;
        Volatile.Write(ref Entries[head].Inflight, 1);
    }

    public void PutBack(ushort head) => Volatile.Write(ref Entries[head].Inflight, 0);

    /// <summary>Before the used ring says that <paramref name="head"/> is used.</summary>
    public void Returning(ushort head)
    {
        Entries[head].Next = TheHeader->LastBatchHead;
        Volatile.Write(ref TheHeader->LastBatchHead, head);
        _batch[_batchCount++] = head;
    }

    /// <summary>After it has said so of all of them.</summary>
    public void Returned(ushort used)
    {
        while (_batchCount > 0)
            Volatile.Write(ref Entries[_batch[--_batchCount]].Inflight, 0);
        Volatile.Write(ref TheHeader->UsedIndex, used);
    }

    // The predecessor has ended between telling the driver and writing it down.
    private void FinishLastBatch(ushort used)
    {
        int batch = Math.Min((ushort)(used - TheHeader->UsedIndex), capacity);
        ushort head = TheHeader->LastBatchHead;
        for (int i = 0; i < batch && head < capacity; i++)
        {
            Entries[head].Inflight = 0;
            head = Entries[head].Next;
        }
        TheHeader->UsedIndex = used;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct Header
    {
        public ulong Features;
        public ushort Version;
        public ushort DescriptorCount;
        public ushort LastBatchHead;
        public ushort UsedIndex;
    }

    [StructLayout(LayoutKind.Explicit, Size = 16)]
    private struct Entry
    {
        [FieldOffset(0)]
        public byte Inflight;
        [FieldOffset(6)]
        public ushort Next;
        [FieldOffset(8)]
        public ulong Counter;
    }
}
