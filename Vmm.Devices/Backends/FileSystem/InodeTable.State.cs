using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <content>What outlives the process: the files are written down, and found again.</content>
internal sealed partial class InodeTable
{
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
            var written = new HashSet<Inode>();
            foreach (Inode inode in _byId.Values)
            {
                if (inode.FirstOpen is not null)
                    WriteWay(inode, written);
            }
        }
    }

    /// <summary>Writes all files down for a process that may have a copy of the directory. That process finds a file by the name under which it was seen last. An open file whose name
    /// is gone is saved without a name, so that the new file of that name is not mistaken for it. No request is under way.</summary>
    public void WriteState(SessionTable state)
    {
        HashSet<Inode> nameless = FindNameless();
        lock (_lock)
        {
            foreach (Inode inode in _byId.Values.Where(inode => inode != Root))
                _ = nameless.Contains(inode) ? state.AddNameless(inode) : state.Add(inode);
        }
    }

    /// <summary>When the shared directory was made, as it says now: an overlay says another time once something was written there.</summary>
    public FileTime RootBorn
    {
        get
        {
            using HeldDescriptor held = Root.Path!.Hold();
            return FileTree.GetStatus(in held, out FileStatus status) == 0 ? status.Born : Root.Born;
        }
    }

    /// <summary>How many slots of a <see cref="SessionTable"/> all files take.</summary>
    public long CountSlots()
    {
        lock (_lock)
            return _byId.Values.Where(inode => inode != Root).Sum(inode => (long)SessionTable.SlotsOf(inode));
    }

    /// <summary>Goes on with files that were written down; their numbers are not given out again.</summary>
    /// <param name="records">The files.</param>
    /// <param name="last">The last number that was given out.</param>
    /// <param name="session">Where they stand, and others will; null where they are read from elsewhere.</param>
    /// <param name="isElsewhere">Whether the directory may be a copy of the one where they were seen: what makes a file the same is then its path and its kind.</param>
    /// <param name="rootMount">The mount of the directory where they were seen first. Files of other mounts are found by their paths, too: the number of a mount below may be another now,
    /// and a process in between may have had another for the directory itself.</param>
    public void Restore(IReadOnlyList<FileRecord> records, ulong last, SessionTable? session, bool isElsewhere, ulong rootMount)
    {
        var foundByName = new List<Inode>();
        lock (_lock)
        {
            Session = session;
            _lastId = Math.Max(_lastId, last);
            foreach (FileRecord record in records)
            {
                _lastId = Math.Max(_lastId, record.Id);
                bool isOfRootMount = record.Identity.Mount == rootMount;
                InodeIdentity identity = isOfRootMount ? record.Identity with { Mount = Root.Identity.Mount } : record.Identity;
                var inode = new Inode(record.Id, identity, record.Born, record.Type) { Lookups = record.Lookups, Name = record.Name, Slot = session is null ? -1 : record.Slot };
                if (record.Lookups == 0 || !_byId.TryAdd(record.Id, inode))
                    continue;
                if (isElsewhere || !isOfRootMount)
                    foundByName.Add(inode);
                else
                    _byIdentity[identity] = inode;
            }
            PlaceAll(records);
        }
        // Not under the lock: the host may take its time.
        OpenByNames(foundByName, (Inode inode, in HeldDescriptor path, int error) =>
        {
            if (error == 0)
                Adopt(inode, in path, isElsewhere);
            return false;
        });
        lock (_lock)
        {
            foreach (Inode inode in _byId.Values)
            {
                // One that the host has renamed meanwhile is found when the guest looks its new name up, if the number of its mount is the same.
                if (!isElsewhere)
                    _byIdentity.TryAdd(inode.Identity, inode);
                NoteFileSystem(inode);
            }
        }
    }

    // Where the files were seen. Records that make a circle, or directories too deep, make no sense: there a file is in no directory. Each directory is looked at once, whatever is below it.
    private void PlaceAll(IReadOnlyList<FileRecord> records)
    {
        foreach (FileRecord record in records)
        {
            if (record.Name.Length > 0 && _byId.GetValueOrDefault(record.Parent) is { IsDirectory: true } parent && _byId.TryGetValue(record.Id, out Inode? inode) && inode != Root)
                inode.Parent = parent;
        }
        const int unknown = -1;
        var depths = new Dictionary<Inode, int>(_byId.Count) { [Root] = 0 };
        var way = new Stack<Inode>();
        foreach (Inode inode in _byId.Values)
        {
            Inode? each = inode;
            for (; each is not null && depths.TryAdd(each, unknown); each = each.Parent)
                way.Push(each);
            // One whose depth is not known is on this way: that is a circle.
            if (each is not null && depths[each] == unknown)
                way.Peek().Parent = null;
            while (way.TryPop(out Inode? next))
            {
                int depth = next.Parent is null ? 0 : depths[next.Parent] + 1;
                if (depth > MaxDepth)
                    (next.Parent, depth) = (null, 0);
                depths[next] = depth;
                if (next.Parent is { } parent)
                    parent.Uses++;
            }
        }
    }

    // Binds the inode to the file at its saved path. In a copy of the directory a file of the same kind fits; where only the number of the mount has changed, it must be the very
    // same file. If none fits, no file is entered for the inode, and it is stale.
    private void Adopt(Inode inode, in HeldDescriptor path, bool isElsewhere)
    {
        if (FileTree.GetStatus(in path, out FileStatus status) < 0 || status.Type != inode.Type)
            return;
        InodeIdentity found = InodeIdentity.Of(in status);
        lock (_lock)
        {
            if (_byId.GetValueOrDefault(inode.Id) != inode)
                return;     // forgotten meanwhile
            if (!isElsewhere && (found with { Mount = inode.Identity.Mount } != inode.Identity || status.Born != inode.Born))
                return;
            (inode.Identity, inode.Born) = (found, status.Born);
            _byIdentity[inode.Identity] = inode;
        }
    }

    // Only open files are looked for by their names: the host may have replaced or renamed one, and the guest does not know. A file that is not open has nothing but its path. Where the host cannot say,
    // the name is kept.
    private HashSet<Inode> FindNameless()
    {
        var nameless = new HashSet<Inode>();
        var open = new List<Inode>();
        lock (_lock)
        {
            foreach (Inode inode in _byId.Values.Where(inode => inode != Root))
            {
                if (inode.IsPinned)
                    nameless.Add(inode);
                else if (inode.FirstOpen is not null)
                    open.Add(inode);
            }
        }
        OpenByNames(open, (Inode inode, in HeldDescriptor path, int error) =>
        {
            if (error == -Errnos.Estale || (error == 0 && !IsSame(inode, in path)))
                nameless.Add(inode);
            return false;
        });
        return nameless;
    }
}
