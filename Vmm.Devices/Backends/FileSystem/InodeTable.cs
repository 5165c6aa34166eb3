using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>The files that the guest knows, by the numbers that it was given. Thread-safe.</summary>
/// <remarks>A million files need no million descriptors: what has a name is opened when it is needed, and closed when too many are open. A name
/// that meanwhile leads to another file, because the host has renamed or replaced it, gives ESTALE: the guest's kernel looks the path up again.</remarks>
internal sealed class InodeTable : IDisposable
{
    /// <summary>FUSE_ROOT_ID.</summary>
    public const ulong RootId = 1;

    private const int MaxPath = 4096;       // PATH_MAX: bytes of a path that is opened at once, with its null byte
    private const int MaxName = 256;        // bytes of a name, with its null byte
    private const int MaxDepth = 10_000;    // of a directory

    private readonly Lock _lock = new();
    private readonly Dictionary<ulong, Inode> _byId = [];
    private readonly Dictionary<InodeIdentity, Inode> _byIdentity = [];
    private readonly List<Inode> _open = [];
    private readonly int _maxOpen;
    private ulong _lastId = RootId;
    private int _hand;

    /// <summary>A table with nothing but the root.</summary>
    /// <param name="root">The shared directory, open by O_PATH; the table's from now on.</param>
    /// <param name="maxOpen">How many descriptors of files may be open, besides those that must.</param>
    /// <exception cref="ErrnoException">The root cannot be looked at.</exception>
    public InodeTable(FileDescriptor root, int maxOpen)
    {
        _maxOpen = maxOpen;
        using HeldDescriptor held = root.Hold();
        int result = FileTree.GetStatus(in held, out FileStatus status);
        if (result < 0)
            throw new ErrnoException("statx", -result);
        Root = new Inode(RootId, InodeIdentity.Of(in status), status.Born, status.Type) { Path = root, Lookups = 1, IsPinned = true };
        Clear();
    }

    /// <summary>The shared directory.</summary>
    public Inode Root { get; }

    /// <summary>Where files are written down for a process after this one; null for nowhere.</summary>
    public SessionTable? Session { get; private set; }

    /// <summary>How many files the guest knows, and how many of them have a descriptor.</summary>
    public (int Files, int Descriptors) Count
    {
        get
        {
            lock (_lock)
                return (_byId.Count, _open.Count);
        }
    }

    /// <summary>The file with number <paramref name="id"/>; null if the guest cannot know such a one.</summary>
    public Inode? Find(ulong id)
    {
        lock (_lock)
            return _byId.GetValueOrDefault(id);
    }

    /// <summary>The guest is told of a file once more.</summary>
    /// <param name="parent">The directory in which it was seen.</param>
    /// <param name="name">Its name there, with a null byte.</param>
    /// <param name="status">What statx(2) says of it.</param>
    public Inode Enter(Inode parent, ReadOnlySpan<byte> name, in FileStatus status)
    {
        InodeIdentity identity = InodeIdentity.Of(in status);
        lock (_lock)
        {
            if (!_byIdentity.TryGetValue(identity, out Inode? inode) || !IsSame(inode, in status))
            {
                inode = new Inode(++_lastId, identity, status.Born, status.Type);
                _byId.Add(inode.Id, inode);
                _byIdentity[identity] = inode;  // a file that had that number before is gone
            }
            inode.Lookups++;
            if (inode == Root)
                return inode;
            inode.IsPinned = false;     // a name leads to it
            if (inode.Parent != parent || !inode.Name.AsSpan().SequenceEqual(name))
                Move(inode, parent, name);
            else
                Session?.SetLookups(inode);
            return inode;
        }
    }

    /// <summary>The same for a file without a name.</summary>
    /// <param name="path">The file, open by O_PATH; the table's from now on.</param>
    /// <param name="status">What statx(2) says of it.</param>
    public Inode EnterNameless(FileDescriptor path, in FileStatus status)
    {
        var identity = InodeIdentity.Of(in status);
        lock (_lock)
        {
            var inode = new Inode(++_lastId, identity, status.Born, status.Type) { Lookups = 1, IsPinned = true };
            _byId.Add(inode.Id, inode);
            _byIdentity[identity] = inode;
            AddOpen(inode, path);
            inode.Slot = Session?.Add(inode) ?? -1;
            return inode;
        }
    }

    /// <summary>The guest takes back <paramref name="lookups"/> times that it was told of a file.</summary>
    public void Forget(ulong id, ulong lookups)
    {
        if (id == RootId)
            return;
        lock (_lock)
        {
            if (!_byId.TryGetValue(id, out Inode? inode))
                return;
            inode.Lookups -= Math.Min(lookups, inode.Lookups);
            if (inode.Lookups > 0)
            {
                Session?.SetLookups(inode);
                return;
            }
            Session?.Remove(inode.Slot);
            _byId.Remove(id);
            if (_byIdentity.GetValueOrDefault(inode.Identity) == inode)
                _byIdentity.Remove(inode.Identity);
            Release(inode);
        }
    }

    /// <summary>A descriptor of a file, open by O_PATH until the result is disposed.</summary>
    /// <param name="inode">The file.</param>
    /// <param name="error">0, or a negated error number: the result then holds nothing.</param>
    public HeldDescriptor Hold(Inode inode, out int error)
    {
        error = 0;
        lock (_lock)
        {
            if (inode.Path is { } path)
            {
                inode.WasUsed = true;
                return path.Hold();
            }
        }
        error = OpenAgain(inode, out FileDescriptor? opened);
        if (error is -Errnos.Emfile or -Errnos.Enfile && Shrink())
            error = OpenAgain(inode, out opened);
        if (error < 0)
            return default;
        lock (_lock)
        {
            if (inode.Path is { } other)
            {
                opened!.Dispose();
                return other.Hold();
            }
            HeldDescriptor held = opened!.Hold();
            // One that the guest has forgotten, and that is only on the way to another, is closed at once.
            if (_byId.GetValueOrDefault(inode.Id) == inode)
                AddOpen(inode, opened);
            else
                opened.Dispose();
            return held;
        }
    }

    /// <summary>The guest is about to take a name away: a file that it knows by that name stays open, because the name does not lead to it afterwards. If the name stays after
    /// all, <see cref="Named"/> has to be called.</summary>
    /// <param name="directory">The directory, open.</param>
    /// <param name="name">The name.</param>
    /// <returns>0, or a negated error number: the file would be lost, so its name has to stay.</returns>
    public int Pin(in HeldDescriptor directory, ReadOnlySpan<byte> name)
    {
        if (FileTree.GetStatus(in directory, name, out FileStatus status) < 0)
            return 0;       // there is nothing to lose
        Inode? inode;
        lock (_lock)
        {
            if (!_byIdentity.TryGetValue(InodeIdentity.Of(in status), out inode) || !IsSame(inode, in status))
                return 0;
            inode.IsPinned |= inode.Path is not null;
            if (inode.IsPinned)
                return 0;
        }
        int number = FileTree.Open(in directory, name, FileTree.PathOnly);
        if (number is -Errnos.Emfile or -Errnos.Enfile && Shrink())
            number = FileTree.Open(in directory, name, FileTree.PathOnly);
        if (number < 0)
            return number == -Errnos.Enoent ? 0 : number;
        var path = new FileDescriptor(number);
        lock (_lock)
        {
            bool isSame;
            using (HeldDescriptor held = path.Hold())
                isSame = FileTree.GetStatus(in held, out status) == 0 && IsSame(inode, in status) && inode.Lookups > 0;
            inode.IsPinned |= isSame;
            // Another thread may have opened it meanwhile.
            if (isSame && inode.Path is null)
                AddOpen(inode, path);
            else
                path.Dispose();
        }
        return 0;
    }

    /// <summary>A name leads to a file, because it is new or was not taken away: one that was pinned can be found by it.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="directory">The same, open.</param>
    /// <param name="name">The name.</param>
    public void Named(Inode parent, in HeldDescriptor directory, ReadOnlySpan<byte> name)
    {
        if (FileTree.GetStatus(in directory, name, out FileStatus status) < 0)
            return;
        lock (_lock)
        {
            if (!_byIdentity.TryGetValue(InodeIdentity.Of(in status), out Inode? inode) || !IsSame(inode, in status) || inode == Root || IsBelow(parent, inode))
                return;
            inode.IsPinned = false;
            Move(inode, parent, name);
        }
    }

    /// <summary>Writes all files down, and from now on each that comes.</summary>
    public void WriteTo(SessionTable? session)
    {
        lock (_lock)
        {
            Session = session;
            foreach (Inode inode in _byId.Values)
            {
                if (inode != Root)
                    inode.Slot = session?.Add(inode) ?? -1;
            }
        }
    }

    /// <summary>Goes on with files that were written down; their numbers are not given out again.</summary>
    /// <param name="records">The files.</param>
    /// <param name="last">The last number that was given out.</param>
    /// <param name="session">Where they stand, and others will; null where they are read from elsewhere.</param>
    /// <param name="isElsewhere">Whether the directory may be a copy of the one where they were seen: what makes a file the same is then its path and its kind.</param>
    /// <param name="rootMount">The mount of the directory where they were seen. Files of other mounts are found by their paths, too, if that is another now.</param>
    public void Restore(IReadOnlyList<FileRecord> records, ulong last, SessionTable? session, bool isElsewhere, ulong rootMount)
    {
        lock (_lock)
        {
            Session = session;
            _lastId = Math.Max(_lastId, last);
            var paths = new Dictionary<ulong, Inode>(records.Count) { [RootId] = Root };
            foreach (FileRecord record in records)
            {
                _lastId = Math.Max(_lastId, record.Id);
                InodeIdentity identity = record.Identity.Mount == rootMount ? record.Identity with { Mount = Root.Identity.Mount } : record.Identity;
                var inode = new Inode(record.Id, identity, record.Born, record.Type) { Lookups = record.Lookups, Name = record.Name, Slot = session is null ? -1 : record.Slot };
                if (record.Lookups > 0 && paths.TryAdd(record.Id, inode))
                    _byId[record.Id] = inode;
            }
            foreach (FileRecord record in records)
            {
                Inode? parent = paths.GetValueOrDefault(record.Parent);
                if (parent is { IsDirectory: true } && record.Name.Length > 0 && paths.TryGetValue(record.Id, out Inode? inode) && !IsBelow(parent, inode))
                    inode.Parent = parent;
            }
            bool hasOtherMounts = rootMount != Root.Identity.Mount;
            foreach (Inode inode in _byId.Values)
            {
                if (inode != Root && (isElsewhere || (hasOtherMounts && inode.Identity.Mount != Root.Identity.Mount)))
                    Adopt(inode);
                else
                    _byIdentity[inode.Identity] = inode;
            }
        }
    }

    /// <summary>Notes an opening of the file.</summary>
    public void Add(Inode inode, OpenFile file)
    {
        lock (_lock)
        {
            file.NextOfInode = inode.FirstOpen;
            inode.FirstOpen = file;
        }
    }

    /// <summary>The opening has ended. With the last one of a file end the guest's locks of it: Linux tells nobody that those of an opening of its own (F_OFD_SETLK) are
    /// gone.</summary>
    public void Remove(Inode inode, OpenFile file)
    {
        lock (_lock)
        {
            if (inode.FirstOpen == file)
                inode.FirstOpen = file.NextOfInode;
            for (OpenFile? other = inode.FirstOpen; other is not null; other = other.NextOfInode)
            {
                if (other.NextOfInode == file)
                    other.NextOfInode = file.NextOfInode;
            }
            if (inode.FirstOpen is null)
                ReleaseLocks(inode);
        }
    }

    /// <summary>Closes descriptors that are not needed, because there are none to be had any more.</summary>
    /// <returns>Whether there were some.</returns>
    public bool Shrink()
    {
        lock (_lock)
        {
            int before = _open.Count;
            Evict(before / 2);
            return _open.Count < before;
        }
    }

    /// <summary>Forgets everything but the root.</summary>
    public void Clear()
    {
        lock (_lock)
        {
            foreach (Inode inode in _byId.Values)
            {
                if (inode != Root)
                    Release(inode);
            }
            Session?.Clear();
            _byId.Clear();
            _byIdentity.Clear();
            _open.Clear();
            _byId.Add(RootId, Root);
            _byIdentity.Add(Root.Identity, Root);
            ReleaseLocks(Root);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Clear();
        Root.Path!.Dispose();
    }

    // Under the lock. An overlay says another time of birth of a file once that was written to (copy-up). As long as the file is open its number is no other file's.
    private bool IsSame(Inode inode, in FileStatus status)
    {
        if (inode.Identity != InodeIdentity.Of(in status) || inode.Type != status.Type)
            return false;
        if (inode.Born == status.Born)
            return true;
        try
        {
            if ((inode.Path ?? inode.FirstOpen?.Descriptor) is not { } open)
                return false;
            using HeldDescriptor held = open.Hold();
            if (FileTree.GetStatus(in held, out FileStatus now) < 0 || InodeIdentity.Of(in now) != inode.Identity || now.Born != status.Born)
                return false;
        }
        catch (ObjectDisposedException)
        {
            return false;   // closed just now
        }
        inode.Born = status.Born;
        if (inode != Root && Session is { } session)
            inode.Slot = session.Move(inode);
        return true;
    }

    private void Move(Inode inode, Inode parent, ReadOnlySpan<byte> name)
    {
        (inode.Parent, inode.Name) = (parent, name.ToArray());
        if (Session is { } session)
            inode.Slot = session.Move(inode);
    }

    // A file of a copy, or of a mount that has another number now: what its path leads to, if that is of the same kind; else nothing leads to it.
    private void Adopt(Inode inode)
    {
        if (OpenByName(inode, out FileDescriptor? opened) < 0)
            return;
        using (opened)
        {
            using HeldDescriptor held = opened!.Hold();
            if (FileTree.GetStatus(in held, out FileStatus status) < 0 || status.Type != inode.Type)
                return;
            (inode.Identity, inode.Born) = (InodeIdentity.Of(in status), status.Born);
            _byIdentity[inode.Identity] = inode;
        }
    }

    // A host that moves directories about while the guest does must not make a circle of what is remembered here.
    private static bool IsBelow(Inode inode, Inode ancestor)
    {
        int depth = 0;
        for (Inode? each = inode; each is not null; each = each.Parent)
        {
            if (each == ancestor || depth++ > MaxDepth)
                return true;
        }
        return false;
    }

    private static void Release(Inode inode)
    {
        inode.Path?.Dispose();
        inode.Path = null;
        ReleaseLocks(inode);
    }

    private static void ReleaseLocks(Inode inode)
    {
        if (inode.Locks is not { } locks)
            return;
        lock (locks)
        {
            foreach (FileDescriptor file in locks.Values)
                file.Dispose();
            locks.Clear();
        }
    }

    // Under the lock.
    private void AddOpen(Inode inode, FileDescriptor path)
    {
        inode.Path = path;
        inode.WasUsed = true;
        _open.Add(inode);
        if (_open.Count > _maxOpen)
            Evict(Math.Max(0, _maxOpen - _maxOpen / 8));
    }

    // Under the lock. What was used since the last time is spared once; what is pinned, always. List entries of released files go, too.
    private void Evict(int target)
    {
        for (int looked = 2 * _open.Count; looked > 0 && _open.Count > target; looked--)
        {
            if (_hand >= _open.Count)
                _hand = 0;
            Inode inode = _open[_hand];
            if (inode.Path is not null && (inode.IsPinned || inode.WasUsed))
            {
                inode.WasUsed = false;
                _hand++;
                continue;
            }
            inode.Path?.Dispose();
            inode.Path = null;
            _open[_hand] = _open[^1];
            _open.RemoveAt(_open.Count - 1);
        }
    }

    // Outside of the lock: it may take long. By its name first, then by an opening that the guest has.
    private int OpenAgain(Inode inode, out FileDescriptor? path)
    {
        path = null;
        int result = OpenByName(inode, out FileDescriptor? opened);
        if (result < 0)
            return OpenByHandle(inode, out path) == 0 ? 0 : result;
        using (HeldDescriptor held = opened!.Hold())
        {
            bool isSame = FileTree.GetStatus(in held, out FileStatus status) == 0;
            lock (_lock)
                isSame = isSame && IsSame(inode, in status);
            if (isSame)
            {
                path = opened;
                return 0;
            }
        }
        opened.Dispose();
        return OpenByHandle(inode, out path) == 0 ? 0 : -Errnos.Estale;
    }

    private int OpenByHandle(Inode inode, out FileDescriptor? path)
    {
        path = null;
        OpenFile? file;
        lock (_lock)
            file = inode.FirstOpen;
        if (file is null || Links is not { } links)
            return -Errnos.Estale;
        try
        {
            using HeldDescriptor heldLinks = links.Hold(), held = file.Descriptor.Hold();
            int number = FileTree.Reopen(in heldLinks, in held, FileTree.PathOnly);
            if (number < 0)
                return number;
            path = new FileDescriptor(number);
            return 0;
        }
        catch (ObjectDisposedException)
        {
            return -Errnos.Estale;
        }
    }

    /// <summary>The directory /proc/self/fd.</summary>
    public FileDescriptor? Links { get; init; }

    // Opens what the names from the root on lead to, in pieces that are paths short enough.
    private int OpenByName(Inode inode, out FileDescriptor? opened)
    {
        opened = null;
        var names = new List<byte[]>();
        lock (_lock)
        {
            for (Inode each = inode; each != Root; each = each.Parent)
            {
                if (each.Parent is null || names.Count > MaxDepth)
                    return -Errnos.Estale;
                names.Add(each.Name);
            }
        }
        FileDescriptor? at = null;
        try
        {
            Span<byte> path = stackalloc byte[MaxPath];
            int length = 0;
            for (int i = names.Count - 1; i >= 0; i--)
            {
                // Each name has a null byte at its end, in whose place comes the slash.
                names[i].CopyTo(path[length..]);
                length += names[i].Length;
                path[length - 1] = i > 0 && length <= MaxPath - MaxName ? (byte)'/' : (byte)0;
                if (path[length - 1] != 0)
                    continue;
                int number;
                using (HeldDescriptor from = (at ?? Root.Path!).Hold())
                    number = FileTree.OpenBeneath(in from, path[..length], FileTree.PathOnly);
                at?.Dispose();
                at = null;
                if (number < 0)
                    return number is -Errnos.Emfile or -Errnos.Enfile or -Errnos.Enomem or -Errnos.Eacces or -Errnos.Eio ? number : -Errnos.Estale;
                at = new FileDescriptor(number);
                length = 0;
            }
            opened = at;
            at = null;
            return opened is null ? -Errnos.Estale : 0;
        }
        finally
        {
            at?.Dispose();
        }
    }
}
