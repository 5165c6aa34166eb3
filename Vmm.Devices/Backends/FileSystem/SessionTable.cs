using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>The files of a directory that a guest knows, with the places where they were seen, and its openings, in memory that outlives the process. The process may be
/// killed at any instant: the next one finds each record whole or not at all, since the word that makes a record valid is written last. Thread-safe.</summary>
/// <param name="memory">The memory.</param>
/// <param name="isKept">Whether it is memory that a front-end keeps, which is written while requests are under way; else it is a state that is saved.</param>
/// <remarks>A header, then slots of 128 bytes. A name that is longer than its slot has room for goes on in others. At the end of kept memory stands by which requests the guest was told of
/// files lately: if such a request is left to the next process, the guest has not heard of it. That is a ring, whose oldest entries are written over.
/// Kept memory is the front-end's, too, which may write anything there at any instant. So each number is read once, and only what this process knows by itself bounds loops and memory.</remarks>
internal sealed class SessionTable(Func<Span<byte>> memory, bool isKept = false)
{
    private const ulong Magic = 0x3130_3046_4D56_6D76;     // "vmVMF001"

    /// <summary>Bytes of the header.</summary>
    public const int HeaderRoom = 128;

    private const ulong MaxId = long.MaxValue;      // numbers are counted up from 1: nobody gets there

    private const int NameInSlot = SlotSize - 80, NameInRest = SlotSize - 8;
    private const int MostRests = (InodeTable.MaxName - NameInSlot + NameInRest - 1) / NameInRest;  // slots that the longest name takes beside its own

    /// <summary>Bytes of a slot.</summary>
    public const int SlotSize = 128;

    private const int ToldPart = 256, ToldSize = 16;    // of the kept memory's bytes: 16,384 entries of 64 MiB
    private const int PartForOpenings = 4;              // of the kept memory's slots: what only openings, their files and the directories above may have

    private readonly Lock _lock = new();
    private readonly FreeSlots _free = new();
    private int _toldCount;
    private int _used;
    private bool _isFull;

    private enum SlotKind : uint
    {
        Free,
        File,
        Opening,
        RestOfName,
    }

    private int Slots => (memory().Length - HeaderRoom - _toldCount * ToldSize) / SlotSize;

    private int MostTold => isKept ? memory().Length / ToldPart / ToldSize : 0;

    private ref Header Head => ref MemoryMarshal.AsRef<Header>(memory());

    /// <summary>Whether the memory holds such a table.</summary>
    public bool IsTable => Head.Magic == Magic;

    /// <summary>Whether a session is in the table: the guest has mounted.</summary>
    public bool HasSession => Head.IsReady != 0;

    /// <summary>Whether a record found no room, so that the table is not complete.</summary>
    public bool IsFull => _isFull;

    /// <summary>The mount of the directory as the writer of the table saw it. After a boot, and in another namespace, a mount has another number.</summary>
    public ulong RootMount => Head.RootMount;

    /// <summary>What was agreed on by FUSE_INIT; null where no session is in the table, one of another directory's, or one whose numbers make no sense.</summary>
    /// <param name="root">The directory.</param>
    /// <param name="isElsewhere">Whether the directory may be a copy, or the same one as another host has it.</param>
    public FuseFlags? Session(in InodeIdentity root, bool isElsewhere)
    {
        Header head = Head;
        bool isSound = head.Magic == Magic && head.IsReady == 1 && head.LastFile <= MaxId && head.LastOpening <= MaxId;
        return isSound && (isElsewhere || IsOf(in head, in root)) ? head.Flags : null;
    }

    /// <summary>Whether it was written for this very directory, as far as its number says. The roots of two file systems of a kind have the same number, and the devices may have,
    /// too.</summary>
    public bool IsOf(in InodeIdentity root) => IsOf(Head, in root);

    /// <summary>Whether it was written for this very directory, which was made at <paramref name="born"/>. A table may not say: of a version before this one, or of a file system that does
    /// not.</summary>
    public bool IsOf(in InodeIdentity root, FileTime born) =>
        IsOf(in root) && new FileTime(Head.RootBornSeconds, Head.RootBornNanoseconds) is var written && (written == default || written == born);

    /// <summary>The last number that a file and an opening were given, at most 2⁶³-1.</summary>
    public (ulong File, ulong Opening) Last => (Math.Min(Head.LastFile, MaxId), Math.Min(Head.LastOpening, MaxId));

    /// <summary>Empties the table.</summary>
    public void Clear()
    {
        lock (_lock)
        {
            Head.IsReady = 0;
            Span<byte> slots = memory()[HeaderRoom..];
            // New memory is zero, and takes room only where it is written; in other memory a process before this one may have used any.
            int count = Head.Magic switch
            {
                0 => 0,
                Magic => (int)Math.Min(Head.MostUsed, (uint)Slots),
                _ => Slots,
            };
            for (int i = 0; i < count; i++)
                MemoryMarshal.AsRef<Slot>(slots[(i * SlotSize)..]).Kind = SlotKind.Free;
            _toldCount = MostTold;
            int told = Head.Magic switch
            {
                0 => 0,
                Magic when Head.ToldCount == _toldCount => (int)Math.Min(Head.Told, (ulong)_toldCount),
                _ => _toldCount,
            };
            for (int i = 0; i < told; i++)
                ToldAt(i) = default;
            Head = new Header { Magic = Magic, ToldCount = _toldCount };
            _free.Clear();
            _used = 0;
            _isFull = false;
        }
    }

    /// <summary>A session has begun, or goes on.</summary>
    /// <param name="root">The directory.</param>
    /// <param name="born">When that was made.</param>
    /// <param name="flags">What was agreed on.</param>
    public void Begin(in InodeIdentity root, FileTime born, FuseFlags flags)
    {
        lock (_lock)
        {
            ref Header head = ref Head;
            (head.Device, head.Number, head.RootMount, head.Flags) = (root.Device, root.Number, root.Mount, flags);
            (head.RootBornSeconds, head.RootBornNanoseconds) = (born.Seconds, born.Nanoseconds);
            Volatile.Write(ref head.IsReady, 1);
        }
    }

    /// <summary>Writes a file that is not in the table.</summary>
    /// <returns>Its slot; -1 where there is no room.</returns>
    public int Add(Inode inode) => Add(inode, inode.Parent, inode.Name, isForOpening: false);

    /// <summary>Writes one that is open, or leads to one that is: there is more room for those.</summary>
    /// <returns>Its slot; -1 where there is no room.</returns>
    public int AddForOpening(Inode inode) => Add(inode, inode.Parent, inode.Name, isForOpening: true);

    /// <summary>The same without the name by which the file was seen last, which does not lead to it any more.</summary>
    /// <returns>Its slot; -1 where there is no room.</returns>
    public int AddNameless(Inode inode) => Add(inode, null, [], isForOpening: false);

    /// <summary>Writes how often the guest was told of a file.</summary>
    public void SetLookups(Inode inode)
    {
        if (inode.Slot >= 0)
            Volatile.Write(ref At(inode.Slot).Lookups, inode.Lookups);
    }

    /// <summary>Writes where a file is now.</summary>
    /// <returns>Its new slot.</returns>
    public int Move(Inode inode)
    {
        lock (_lock)
        {
            if (inode.Slot < 0)
                return Write(inode, inode.Parent, inode.Name, version: 0, isForOpening: inode.FirstOpen is not null);
            int old = inode.Slot;
            uint version = At(old).Version + 1;
            // For a moment there are two: the later version counts.
            int slot = Write(inode, inode.Parent, inode.Name, version, isForOpening: true);
            Free(old);
            // Where there is no room for both, there is none for a moment.
            return slot >= 0 ? slot : Write(inode, inode.Parent, inode.Name, version, isForOpening: true);
        }
    }

    /// <summary>Notes that a request tells the guest of a file, which is counted already.</summary>
    /// <param name="request">The request's number.</param>
    /// <param name="file">The file's.</param>
    public void Tell(ulong request, ulong file)
    {
        lock (_lock)
        {
            if (_toldCount == 0)
                return;
            // Whatever the instant at which the process is killed: what stands there was counted.
            ref Told entry = ref ToldAt((int)(Head.Told % (uint)_toldCount));
            Volatile.Write(ref entry.Request, 0);
            Volatile.Write(ref entry.File, file);
            Volatile.Write(ref entry.Request, request);
            Head.Told++;
        }
    }

    /// <summary>The files of which a request told the guest, each as often as it did. They are noted no more, and are to be counted back now.</summary>
    public List<ulong> TakeTold(ulong request)
    {
        lock (_lock)
        {
            var files = new List<ulong>();
            for (int i = 0; request != 0 && i < _toldCount; i++)
            {
                ref Told entry = ref ToldAt(i);
                if (entry.Request != request)
                    continue;
                files.Add(entry.File);
                Volatile.Write(ref entry.Request, 0);
            }
            return files;
        }
    }

    /// <summary>Writes an opening.</summary>
    /// <returns>Its slot; -1 where there is no room.</returns>
    public int Add(OpenFile file)
    {
        lock (_lock)
        {
            // Also of one without a slot: a successor must not give its number to another.
            Head.LastOpening = Math.Max(Head.LastOpening, file.Handle);
            int index = Take(isForOpening: true);
            if (index < 0)
                return index;
            ref Slot slot = ref At(index);
            slot = new Slot { Id = file.Handle, Parent = file.Inode.Id, Number = file.Request, Lookups = (uint)file.Flags, Type = file.Directory is null ? 0U : 1 };
            Volatile.Write(ref Unsafe.As<SlotKind, uint>(ref slot.Kind), (uint)SlotKind.Opening);
            return index;
        }
    }

    /// <summary>Takes a record away.</summary>
    public void Remove(int slot)
    {
        if (slot < 0)
            return;
        lock (_lock)
            Free(slot);
    }

    /// <summary>All records, after a process that has ended; those that make no sense are left out. The table goes on with them.</summary>
    public (List<FileRecord> Files, List<OpeningRecord> Openings) Load()
    {
        lock (_lock)
        {
            var files = new Dictionary<ulong, FileRecord>();
            var openings = new Dictionary<ulong, OpeningRecord>();
            var isUsed = new HashSet<int>();
            // One of a version before this one says nothing of requests, and has slots in their place.
            _toldCount = Head.ToldCount == MostTold ? MostTold : 0;
            _used = (int)Math.Min(Head.MostUsed, (uint)Slots);
            bool[] isRead = new bool[_used];
            for (int i = 0; i < _used; i++)
            {
                Slot slot = At(i);      // the one copy that is looked at
                if (slot.Id > MaxId)
                    continue;
                if (slot.Kind == SlotKind.Opening)
                    openings.TryAdd(slot.Id, new OpeningRecord(slot.Id, slot.Parent, (int)slot.Lookups, slot.Type == 1, slot.Number, i));
                if (slot.Kind != SlotKind.File || slot.Id <= InodeTable.RootId || ReadName(i, in slot, isRead) is not { } name)
                    continue;
                if (files.TryGetValue(slot.Id, out FileRecord? other) && other.Version >= slot.Version)
                    continue;
                files[slot.Id] = new FileRecord(
                    slot.Id, slot.Parent, new InodeIdentity(slot.Device, slot.Number, slot.Mount), new FileTime(slot.BornSeconds, slot.BornNanoseconds), slot.Type,
                    slot.Lookups, name, i, slot.Version);
            }
            foreach (FileRecord file in files.Values)
                KeepSlots(file, isUsed);
            foreach (OpeningRecord opening in openings.Values)
                isUsed.Add(opening.Slot);
            for (int i = 0; i < _used; i++)
            {
                if (isUsed.Contains(i))
                    continue;
                At(i).Kind = SlotKind.Free;
                _free.Push(i);
            }
            return ([.. files.Values], [.. openings.Values]);
        }
    }

    /// <summary>How many slots a file takes.</summary>
    public static int SlotsOf(Inode inode) => 1 + RestsOf(inode.Name.Length);

    private static bool IsOf(in Header head, in InodeIdentity root) => head.Device == root.Device && head.Number == root.Number;

    private ref Slot At(int index) => ref MemoryMarshal.AsRef<Slot>(memory().Slice(HeaderRoom + index * SlotSize, SlotSize));

    private ref Told ToldAt(int index)
    {
        Span<byte> all = memory();
        return ref MemoryMarshal.AsRef<Told>(all.Slice(all.Length - (index + 1) * ToldSize, ToldSize));
    }

    private int Take(bool isForOpening)
    {
        int slots = Slots, left = _free.Count + slots - _used;
        if (left <= (isKept && !isForOpening ? slots / PartForOpenings : 0))
        {
            if (!_isFull)
                s_log.Warn("the guest knows more files than there is room for ({Used} of {Count} records): should this process be killed, it loses those that are not open", slots - left, slots);
            _isFull = true;
            return -1;
        }
        if (_free.TryPop(out int index))
            return index;
        Head.MostUsed = (uint)_used + 1;
        return _used++;
    }

    private int Add(Inode inode, Inode? parent, byte[] name, bool isForOpening)
    {
        lock (_lock)
            return Write(inode, parent, name, version: 0, isForOpening);
    }

    private int Write(Inode inode, Inode? parent, byte[] name, uint version, bool isForOpening)
    {
        // Also of one without a slot: a successor must not give its number to another.
        Head.LastFile = Math.Max(Head.LastFile, inode.Id);
        int index = Take(isForOpening);
        if (index < 0)
            return index;
        if (!TryWriteRest(name.AsSpan(Math.Min(NameInSlot, name.Length)), isForOpening, out int next))
        {
            _free.Push(index);
            return -1;
        }
        ref Slot slot = ref At(index);
        slot = new Slot
        {
            Version = version,
            Id = inode.Id,
            Parent = parent?.Id ?? 0,
            Device = inode.Identity.Device,
            Number = inode.Identity.Number,
            Mount = inode.Identity.Mount,
            BornSeconds = inode.Born.Seconds,
            BornNanoseconds = inode.Born.Nanoseconds,
            Lookups = inode.Lookups,
            Type = inode.Type,
            NameLength = (uint)name.Length,
            Next = next,
        };
        name.AsSpan(0, Math.Min(NameInSlot, name.Length)).CopyTo(Bytes(index)[(SlotSize - NameInSlot)..]);
        Volatile.Write(ref Unsafe.As<SlotKind, uint>(ref slot.Kind), (uint)SlotKind.File);
        return index;
    }

    // The rest of a name, if there is one: its first slot, or -1. False where there is no room for all of it.
    private bool TryWriteRest(ReadOnlySpan<byte> rest, bool isForOpening, out int index)
    {
        index = -1;
        if (rest.IsEmpty)
            return true;
        index = Take(isForOpening);
        if (index < 0)
            return false;
        if (!TryWriteRest(rest[Math.Min(NameInRest, rest.Length)..], isForOpening, out int next))
        {
            _free.Push(index);
            return false;
        }
        At(index) = new Slot { Kind = SlotKind.RestOfName };
        MemoryMarshal.Write(Bytes(index)[4..], in next);
        rest[..Math.Min(NameInRest, rest.Length)].CopyTo(Bytes(index)[(SlotSize - NameInRest)..]);
        return true;
    }

    // A slot is of one name only, so that names take no more memory than the table does.
    private byte[]? ReadName(int index, in Slot slot, bool[] isRead)
    {
        if (slot.NameLength is 0 or > InodeTable.MaxName)
            return slot.NameLength == 0 ? [] : null;
        // Nor is there memory for a name of which there is no rest.
        if (slot.NameLength > NameInSlot && ((uint)slot.Next >= (uint)_used || isRead[slot.Next]))
            return null;
        byte[] name = new byte[slot.NameLength];
        int done = Math.Min(NameInSlot, name.Length);
        Bytes(index).Slice(SlotSize - NameInSlot, done).CopyTo(name);
        for (int next = slot.Next; done < name.Length; next = NextOf(next))
        {
            if (next < 0 || next >= _used || At(next).Kind != SlotKind.RestOfName || isRead[next])
                return null;
            isRead[next] = true;
            int count = Math.Min(NameInRest, name.Length - done);
            Bytes(next).Slice(SlotSize - NameInRest, count).CopyTo(name.AsSpan(done));
            done += count;
        }
        ReadOnlySpan<byte> text = name.AsSpan(0, name.Length - 1);
        bool isName = name[^1] == 0 && text.Length > 0 && !text.Contains((byte)0) && !text.Contains((byte)'/') && !text.SequenceEqual("."u8) && !text.SequenceEqual(".."u8);
        return isName ? name : null;
    }

    private void KeepSlots(FileRecord file, HashSet<int> isUsed)
    {
        isUsed.Add(file.Slot);
        int next = At(file.Slot).Next;
        for (int left = RestsOf(file.Name.Length); left > 0 && next >= 0 && next < _used; left--)
        {
            isUsed.Add(next);
            next = NextOf(next);
        }
    }

    private void Free(int index)
    {
        Slot slot = At(index);
        Volatile.Write(ref Unsafe.As<SlotKind, uint>(ref At(index).Kind), (uint)SlotKind.Free);
        _free.Push(index);
        int next = slot.Next;
        for (int left = slot.Kind == SlotKind.File ? RestsOf(slot.NameLength) : 0; left > 0 && next >= 0 && next < _used; left--)
        {
            int rest = next;
            next = NextOf(rest);
            At(rest).Kind = SlotKind.Free;
            _free.Push(rest);
        }
    }

    // How many slots a name takes beside its file's own.
    private static int RestsOf(long nameLength) => nameLength <= NameInSlot ? 0 : (int)Math.Min((nameLength - NameInSlot + NameInRest - 1) / NameInRest, MostRests);

    // The slot behind one that holds a part of a name.
    private int NextOf(int rest) => MemoryMarshal.Read<int>(Bytes(rest)[4..]);

    private Span<byte> Bytes(int index) => memory().Slice(HeaderRoom + index * SlotSize, SlotSize);

    private static readonly Vhost.BoundedLog s_log = new("Vmm.Devices.Backends.FileSystem");

    private struct Header
    {
        public ulong Magic;
        public ulong Device;
        public ulong Number;
        public FuseFlags Flags;
        public ulong LastFile;
        public ulong LastOpening;
        public int IsReady;
        public uint MostUsed;
        public ulong RootMount;
        public long RootBornSeconds;
        public uint RootBornNanoseconds;
        public int ToldCount;
        public ulong Told;      // how often the guest was told of a file: where the next entry comes
    }

    private struct Told
    {
        public ulong Request;       // 0 for none; written last
        public ulong File;
    }

    [StructLayout(LayoutKind.Sequential, Size = SlotSize)]
    private struct Slot
    {
        public SlotKind Kind;       // written last
        public uint Version;
        public ulong Id;
        public ulong Parent;
        public ulong Device;
        public ulong Number;        // of an opening: that of the request by which it was opened
        public ulong Mount;
        public long BornSeconds;
        public ulong Lookups;
        public uint BornNanoseconds;
        public uint Type;
        public uint NameLength;
        public int Next;
    }
}

/// <summary>A file in a <see cref="SessionTable"/>.</summary>
internal sealed record FileRecord(
    ulong Id, ulong Parent, InodeIdentity Identity, FileTime Born, uint Type, ulong Lookups, byte[] Name, int Slot, uint Version);

/// <summary>An opening in a <see cref="SessionTable"/>.</summary>
internal sealed record OpeningRecord(ulong Handle, ulong File, int Flags, bool IsDirectory, ulong Request, int Slot);
