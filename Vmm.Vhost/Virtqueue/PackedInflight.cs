using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Vhost.Native;

namespace Vmm.Vhost.Virtqueue;

/// <summary>What of a packed ring is in flight, in memory that outlives the back-end (vhost-user.rst, "Inflight I/O tracking"). The ring
/// forgets descriptors when others are used in their place, so that each is kept here, in a list by request. The front-end could write
/// there too: the lists are walked here by a copy, and what is read back is checked.</summary>
internal sealed unsafe class PackedInflight
{
    private const ushort CurrentVersion = 1;

    private readonly byte* _area;
    private readonly int _capacity;
    private readonly ushort[] _next;      // the lists
    private readonly ushort[] _entryOf;   // by buffer id: the first entry of its request
    private readonly ushort[] _lastOf;    // by buffer id: the last
    private ushort _free;
    private ushort _keeping;
    private ushort _kept;
    private ulong _counter;

    public PackedInflight(byte* area, int capacity)
    {
        _area = area;
        _capacity = capacity;
        _next = new ushort[capacity];
        _entryOf = new ushort[capacity];
        _lastOf = new ushort[capacity];
    }

    /// <summary>Bytes for a ring of <paramref name="capacity"/> descriptors, in whole cache lines.</summary>
    public static ulong SizeOf(int capacity) => Align.Up((ulong)(sizeof(Header) + capacity * sizeof(Entry)), 64UL);

    /// <summary>Whether nothing is in flight by a back-end's log, which that back-end may be writing to. The file is read and not mapped: a peer
    /// may make it shorter.</summary>
    /// <param name="file">The file of the logs.</param>
    /// <param name="offset">Where the log of the ring begins in it.</param>
    /// <param name="capacity">Descriptors that it has room for.</param>
    /// <returns>False also if it cannot be read.</returns>
    public static bool IsEmpty(FileDescriptor file, ulong offset, int capacity)
    {
        byte[] area = new byte[SizeOf(capacity)];
        fixed (byte* pointer = area)
        {
            // SAFETY: the array is pinned for the call and while it is looked at; SizeOf counts the header and all entries.
            if (offset > long.MaxValue || PositionedIo.Read(file, [new IoVector((nint)pointer, (nuint)area.Length)], (long)offset) != area.Length)
                return false;
            var entries = (Entry*)(pointer + sizeof(Header));
            for (int i = 0; i < capacity; i++)
            {
                if (entries[i].Inflight != 0)
                    return false;
            }
            return true;
        }
    }

    /// <summary>Where the ring gives back next, as a predecessor left it: its place and wrap counter.</summary>
    public (int Index, bool Wrap) Used { get; private set; }

    private Header* TheHeader => (Header*)_area;

    private Entry* Entries => (Entry*)(_area + sizeof(Header));

    /// <summary>Begins, or goes on where a predecessor ended.</summary>
    /// <param name="used">Where the ring gives back next, if this is new.</param>
    /// <param name="isWaiting">Whether the descriptor at a place of the ring is still as the driver made it available.</param>
    /// <param name="size">Descriptors in the ring.</param>
    /// <returns>What is in flight, oldest first, each with how many descriptors of the ring it has; null if this is new.</returns>
    /// <exception cref="InvalidDataException">It is no such log, or of another ring.</exception>
    public List<(ulong Counter, ushort Entry, ushort Count)>? Open((int Index, bool Wrap) used, Func<int, bool, bool> isWaiting, int size)
    {
        if (TheHeader->Version == 0)
        {
            Begin(used);
            return null;
        }
        // The front-end may change it meanwhile: this copy is checked, and counts.
        Header header = *TheHeader;
        if (header.Version != CurrentVersion || header.DescriptorCount != _capacity)
            throw new InvalidDataException($"its in-flight log has version {header.Version} and {header.DescriptorCount} descriptors");
        if (header.Places.OldIndex >= size || header.Places.Index >= size)
            throw new InvalidDataException($"its in-flight log is at {header.Places.Index} of {size}");
        // Ended between preparing a return and writing it down: it counts if the driver can see it, else it never was.
        UsedPlaces places = header.Places;
        if (places.IsAhead && (places.IsHalfWritten || !isWaiting(places.OldIndex, places.OldWrap != 0)))
        {
            header.OldFreeHead = header.FreeHead;
            places = places.WithOldAsNew();
        }
        header.FreeHead = header.OldFreeHead;
        header.Places = places.WithNewAsOld();
        *TheHeader = header;
        _free = header.FreeHead;
        Used = (header.Places.Index, header.Places.Wrap != 0);
        return Collect(size);
    }

    /// <summary>The descriptor that entry <paramref name="entry"/> keeps, and the next of its request.</summary>
    public (ulong Address, uint Length, ushort Flags, ushort Id, ushort Next) Read(ushort entry)
    {
        Entry copy = Entries[entry];
        return (copy.Address, copy.Length, copy.Flags, copy.Id, _next[entry]);
    }

    /// <summary>Says by which buffer id an entry that was found goes on.</summary>
    public void Found(ushort id, ushort entry, ushort last)
    {
        _entryOf[id] = entry;
        _lastOf[id] = last;
    }

    /// <summary>A request is being looked at.</summary>
    public void BeginRequest() => _keeping = _free;

    /// <summary>Keeps a descriptor of that request. There are as many entries as the ring has descriptors.</summary>
    public void Keep(ulong address, uint length, ushort flags, ushort id)
    {
        ref Entry entry = ref Entries[_keeping];
        entry.Address = address;
        entry.Length = length;
        entry.Flags = flags;
        entry.Id = id;
        _kept = _keeping;
        _keeping = _next[_keeping];
    }

    /// <summary>The request is taken, with <paramref name="count"/> descriptors that were kept.</summary>
    public void Taken(ushort id, int count)
    {
        ushort first = _free, last = _kept;
        _entryOf[id] = first;
        _lastOf[id] = last;
        Entries[first].Last = last;
        Entries[first].Num = (ushort)count;
        Entries[first].Counter = _counter++;
        Volatile.Write(ref Entries[first].Inflight, 1);
        _free = _next[last];
        TheHeader->FreeHead = _free;
        Volatile.Write(ref TheHeader->OldFreeHead, _free);
    }

    // The next process may find it at each of these steps: the request is in flight until its entries are in the free list, which counts by OldFreeHead.
    public void PutBack(ushort id)
    {
        FreeChain(id);
        Volatile.Write(ref TheHeader->OldFreeHead, _free);
        Volatile.Write(ref Entries[_entryOf[id]].Inflight, 0);
    }

    /// <summary>Before the ring says that <paramref name="id"/> is used.</summary>
    public void Returning(ushort id, int usedIndex, bool usedWrap)
    {
        FreeChain(id);
        Write(TheHeader->Places with { Index = (ushort)usedIndex, Wrap = usedWrap ? (byte)1 : (byte)0 });
    }

    /// <summary>After it has said so.</summary>
    public void Returned(ushort id)
    {
        Volatile.Write(ref Entries[_entryOf[id]].Inflight, 0);
        TheHeader->OldFreeHead = TheHeader->FreeHead;
        Write(TheHeader->Places.WithOldAsNew());
    }

    // By one store: a process that ends between the index and the wrap counter would leave a place where the ring never was.
    private void Write(UsedPlaces places) => Volatile.Write(ref *(ulong*)&TheHeader->Places, Unsafe.BitCast<UsedPlaces, ulong>(places));

    private void FreeChain(ushort id)
    {
        ushort first = _entryOf[id], last = _lastOf[id];
        _next[last] = _free;
        Entries[last].Next = _free;
        _free = first;
        TheHeader->FreeHead = first;
    }

    private void Begin((int Index, bool Wrap) used)
    {
        new Span<Entry>(Entries, _capacity).Clear();
        for (int i = 0; i < _capacity; i++)
            Entries[i].Next = _next[i] = (ushort)(i + 1);
        *TheHeader = new Header     // its features are 0: "Now it's initialized to 0" (vhost-user.rst, "Inflight I/O tracking")
        {
            DescriptorCount = (ushort)_capacity,
            Places = new UsedPlaces { Index = (ushort)used.Index, Wrap = used.Wrap ? (byte)1 : (byte)0 }.WithOldAsNew(),
        };
        _free = 0;
        Volatile.Write(ref TheHeader->Version, CurrentVersion);
    }

    private List<(ulong Counter, ushort Entry, ushort Count)> Collect(int size)
    {
        var isSeen = new bool[_capacity];
        for (int i = 0; i < _capacity; i++)
            _next[i] = Entries[i].Next;
        for (ushort entry = _free; entry < _capacity; entry = _next[entry])
        {
            if (isSeen[entry])
                throw new InvalidDataException("the free list of its in-flight log loops");
            isSeen[entry] = true;
            Entries[entry].Inflight = 0;
        }
        var found = new List<(ulong Counter, ushort Entry, ushort Count)>();
        int total = 0;
        for (int i = 0; i < _capacity; i++)
        {
            Entry first = Entries[i];
            if (first.Inflight == 0)
                continue;
            total += first.Num;
            ushort entry = (ushort)i;
            for (int k = 0; k < first.Num; k++)
            {
                if (entry >= _capacity || isSeen[entry])
                    throw new InvalidDataException("a request of its in-flight log is broken");
                isSeen[entry] = true;
                entry = _next[entry];
            }
            if (first.Num == 0 || total > size)
                throw new InvalidDataException($"its in-flight log has requests of {total} descriptors in a ring of {size}");
            found.Add((first.Counter, (ushort)i, first.Num));
        }
        // Every entry is free or of a request: as many as the ring has descriptors can be taken, and no more.
        if (isSeen.Contains(false))
            throw new InvalidDataException("the free list of its in-flight log is broken");
        found.Sort();
        _counter = found.Count > 0 ? found[^1].Counter + 1 : 0;
        return found;
    }

    [StructLayout(LayoutKind.Sequential, Size = 32)]
    private struct Header
    {
        public ulong Features;
        public ushort Version;
        public ushort DescriptorCount;
        public ushort FreeHead;
        public ushort OldFreeHead;
        public UsedPlaces Places;
    }

    // Where the ring gives back next: with the return that is prepared, and before it.
    [StructLayout(LayoutKind.Sequential, Size = sizeof(ulong))]
    private struct UsedPlaces
    {
        public ushort Index;
        public ushort OldIndex;
        public byte Wrap;
        public byte OldWrap;
        public ushort Padding;

        public readonly bool IsAhead => Index != OldIndex || Wrap != OldWrap;

        // The wrap counter changes exactly where the index becomes smaller. A log in which it does not is one whose writer died between two stores, one of the index and one of the
        // counter. Earlier versions of this library wrote them so, after the driver could see the return.
        public readonly bool IsHalfWritten => Index != OldIndex && (Index < OldIndex) == (Wrap == OldWrap);

        public readonly UsedPlaces WithOldAsNew() => this with { OldIndex = Index, OldWrap = Wrap };

        public readonly UsedPlaces WithNewAsOld() => this with { Index = OldIndex, Wrap = OldWrap };
    }

    [StructLayout(LayoutKind.Explicit, Size = 32)]
    private struct Entry
    {
        [FieldOffset(0)]
        public byte Inflight;
        [FieldOffset(2)]
        public ushort Next;
        [FieldOffset(4)]
        public ushort Last;
        [FieldOffset(6)]
        public ushort Num;
        [FieldOffset(8)]
        public ulong Counter;
        [FieldOffset(16)]
        public ushort Id;
        [FieldOffset(18)]
        public ushort Flags;
        [FieldOffset(20)]
        public uint Length;
        [FieldOffset(24)]
        public ulong Address;
    }
}
