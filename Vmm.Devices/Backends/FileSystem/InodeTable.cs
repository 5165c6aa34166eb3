using System.Runtime.InteropServices;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>The files that the guest knows, by the numbers that it was given. Thread-safe.</summary>
/// <remarks>A million files need no million descriptors: a file that has a name is opened when it is needed, and closed when too many are open. If the
/// host has renamed or replaced the file meanwhile, its name leads to another one. That gives ESTALE, and the guest's kernel looks the path up again.
/// A directory that the guest has forgotten is kept as long as there is a file below it that the guest knows: the way to that file leads through it. If the guest looks it up again, it has the
/// number that it had. So there is one of each directory, however often a guest looks it up and forgets it.</remarks>
internal sealed partial class InodeTable : IDisposable
{
    /// <summary>FUSE_ROOT_ID.</summary>
    public const ulong RootId = 1;

    private readonly Lock _lock = new();
    private readonly Dictionary<ulong, Inode> _byId = [];
    private readonly Dictionary<InodeIdentity, Inode> _byIdentity = [];
    private readonly Dictionary<ulong, Inode> _mounted = [];      // by device
    private readonly DescriptorCache _open;
    private ulong _lastId = RootId;

    /// <summary>A table with nothing but the root.</summary>
    /// <param name="root">The shared directory, open by O_PATH; the table's from now on.</param>
    /// <param name="maxOpen">How many descriptors of files may be open, besides those that must.</param>
    /// <exception cref="ErrnoException">The root cannot be looked at.</exception>
    public InodeTable(FileDescriptor root, int maxOpen)
    {
        _open = new DescriptorCache(maxOpen);
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

    /// <summary>How many files that the guest has forgotten are kept for others below them.</summary>
    public int CountKept()
    {
        lock (_lock)
            return _byIdentity.Values.Count(inode => inode.Lookups == 0);
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
    /// <param name="request">The number of the request that tells it.</param>
    public Inode Enter(Inode parent, ReadOnlySpan<byte> name, in FileStatus status, ulong request)
    {
        InodeIdentity identity = InodeIdentity.Of(in status);
        lock (_lock)
        {
            bool isNew = !_byIdentity.TryGetValue(identity, out Inode? inode) || !IsSame(inode, in status);
            if (isNew)
            {
                inode = new Inode(++_lastId, identity, status.Born, status.Type);
                _byIdentity[identity] = inode;  // a file that had that number before is gone
            }
            if (inode!.Lookups++ == 0)
                _byId[inode.Id] = inode;
            if (inode == Root)
                return inode;
            inode.IsPinned = false;     // a name leads to it
            // One for which there was no room may have it now.
            if (!inode.IsNamed(parent, name) && (isNew || !inode.IsDirectory || TryUntie(inode, parent)))
                Move(inode, parent, name, keepsName: HasOtherNames(in status));
            else if (inode.Slot < 0)
                Write(inode);
            else
                Session?.SetLookups(inode);
            Session?.Tell(request, inode.Id);
            NoteFileSystem(inode);
            return inode;
        }
    }

    /// <summary>The guest is told once more of a directory that it knows, or of the one above it.</summary>
    /// <param name="directory">The directory.</param>
    /// <param name="isAbove">Whether the one above is meant; above the root is the root itself.</param>
    /// <param name="request">The number of the request that tells it.</param>
    /// <returns>Null where nothing is known to be above, because the directory has lost its name, and where another queue has made the guest forget the directory meanwhile.</returns>
    public Inode? EnterAgain(Inode directory, bool isAbove, ulong request)
    {
        lock (_lock)
        {
            if (_byId.GetValueOrDefault(directory.Id) != directory || (isAbove && directory != Root ? directory.Parent : directory) is not { } inode)
                return null;
            if (inode.Lookups++ == 0)
                _byId[inode.Id] = inode;
            if (inode == Root)
                return inode;
            if (inode.Slot < 0)
                Write(inode);
            else
                Session?.SetLookups(inode);
            Session?.Tell(request, inode.Id);
            return inode;
        }
    }

    /// <summary>The same for a file without a name.</summary>
    /// <param name="path">The file, open by O_PATH; the table's from now on.</param>
    /// <param name="status">What statx(2) says of it.</param>
    /// <param name="request">The number of the request that tells it.</param>
    public Inode EnterNameless(FileDescriptor path, in FileStatus status, ulong request)
    {
        var identity = InodeIdentity.Of(in status);
        Inode inode;
        ReleasedDescriptors released = default;
        lock (_lock)
        {
            inode = new Inode(++_lastId, identity, status.Born, status.Type) { Lookups = 1, IsPinned = true };
            _byId.Add(inode.Id, inode);
            _byIdentity[identity] = inode;
            _open.Add(inode, path, ref released);
            inode.Slot = Session?.Add(inode) ?? -1;
            Session?.Tell(request, inode.Id);
        }
        released.Close();
        return inode;
    }

    /// <summary>The guest takes back <paramref name="lookups"/> times that it was told of a file.</summary>
    public void Forget(ulong id, ulong lookups)
    {
        ReleasedDescriptors released = default;
        lock (_lock)
            CountBack(id, lookups, ref released);
        released.Close();
    }

    /// <summary>The guest does not hear of a file of which a request was to tell it: the request fails.</summary>
    public void TakeBack(ulong id, ulong request)
    {
        ReleasedDescriptors released = default;
        lock (_lock)
        {
            Session?.TakeTold(request);
            CountBack(id, 1, ref released);
        }
        released.Close();
    }

    /// <summary>The guest has not heard of the files of which a process before this one was to tell it by a request.</summary>
    public void TakeBack(ulong request)
    {
        ReleasedDescriptors released = default;
        lock (_lock)
        {
            foreach (ulong id in Session?.TakeTold(request) ?? [])
                CountBack(id, 1, ref released);
        }
        released.Close();
    }

    /// <summary>A name leads to a file, because it is new or was not taken away: one that was pinned can be found by it.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="directory">The same, open.</param>
    /// <param name="name">The name.</param>
    /// <param name="oldParent">Where the file was before, if it was renamed.</param>
    /// <param name="oldName">And by what name.</param>
    public void Named(Inode parent, in HeldDescriptor directory, ReadOnlySpan<byte> name, Inode? oldParent = null, ReadOnlySpan<byte> oldName = default)
    {
        if (FileTree.GetStatus(in directory, name, out FileStatus status) < 0)
            return;
        lock (_lock)
        {
            if (!_byIdentity.TryGetValue(InodeIdentity.Of(in status), out Inode? inode) || !IsSame(inode, in status) || inode == Root || IsBelow(parent, inode))
                return;
            inode.IsPinned = false;
            if (!inode.IsNamed(parent, name))
                Move(inode, parent, name, keepsName: HasOtherNames(in status) && !(oldParent is not null && inode.IsNamed(oldParent, oldName)));
        }
    }

    /// <summary>Notes an opening of the file.</summary>
    public void Add(Inode inode, OpenFile file)
    {
        lock (_lock)
        {
            file.NextOfInode = inode.FirstOpen;
            if (inode.FirstOpen is { } first)
                first.PreviousOfInode = file;
            inode.FirstOpen = file;
            WriteWay(inode);
        }
    }

    /// <summary>The opening has ended. With the last one of a file end the guest's locks of it: Linux tells nobody that those of an opening of its own (F_OFD_SETLK) are
    /// gone.</summary>
    public void Remove(Inode inode, OpenFile file)
    {
        ReleasedDescriptors released = default;
        lock (_lock)
        {
            if (file.PreviousOfInode is { } previous)
                previous.NextOfInode = file.NextOfInode;
            else if (inode.FirstOpen == file)
                inode.FirstOpen = file.NextOfInode;
            if (file.NextOfInode is { } next)
                next.PreviousOfInode = file.PreviousOfInode;
            (file.PreviousOfInode, file.NextOfInode) = (null, null);
            if (inode.FirstOpen is null)
                inode.Locks?.Clear(ref released);
        }
        released.Close();
    }

    /// <summary>The shared directory, and the root of each other file system that the guest has seen below it (a btrfs subvolume is one, too), though it may have forgotten that.</summary>
    public Inode[] FileSystemRoots()
    {
        lock (_lock)
            return [Root, .. _mounted.Values];
    }

    /// <summary>Forgets everything but the root.</summary>
    public void Clear()
    {
        ReleasedDescriptors released = default;
        lock (_lock)
        {
            foreach (Inode inode in _byId.Values)
            {
                if (inode != Root)
                    Release(inode, ref released);
            }
            foreach (Inode inode in _mounted.Values)
                Release(inode, ref released);
            Session?.Clear();
            _byId.Clear();
            _byIdentity.Clear();
            _mounted.Clear();
            _byId.Add(RootId, Root);
            _byIdentity.Add(Root.Identity, Root);
            Root.Locks?.Clear(ref released);
            Root.LinkedFiles = null;
            Root.Uses = 0;
        }
        released.Close();
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
            // It asks no server: that would hold up all others.
            if (FileTree.GetKnownStatus(in held, out FileStatus now) < 0 || InodeIdentity.Of(in now) != inode.Identity || now.Born != status.Born)
                return false;
        }
        catch (ObjectDisposedException)
        {
            return false;   // closed just now
        }
        inode.Born = status.Born;
        if (inode != Root)
            Write(inode);
        return true;
    }

    // A file can be mounted, too.
    private void NoteFileSystem(Inode inode)
    {
        if (inode.Parent is { } parent && parent.Identity.Device != inode.Identity.Device && (inode.IsDirectory || inode.IsRegular) && inode.Identity.Device != Root.Identity.Device)
            Replace(ref CollectionsMarshal.GetValueRefOrAddDefault(_mounted, inode.Identity.Device, out _), inode);
    }

    private static bool HasOtherNames(in FileStatus status) => status.LinkCount > 1 && !status.IsDirectory;

    // Whether the name that it had is another of the same file, by which that can be found when this one is gone.
    private void Move(Inode inode, Inode parent, ReadOnlySpan<byte> name, bool keepsName)
    {
        parent.Uses++;      // it may be kept for nothing but the name that is forgotten here
        if (keepsName && inode.Parent is not null)
            SetOtherName(inode, inode.Parent, inode.Name);
        else if (inode.IsNamedOtherwise(parent, name))
            SetOtherName(inode, null, []);
        Place(inode, parent, name.ToArray());
        parent.Uses--;
    }

    private void SetOtherName(Inode inode, Inode? parent, byte[] name)
    {
        Replace(ref inode.OtherParent, parent);
        inode.OtherName = name;
    }

    private void Place(Inode inode, Inode parent, byte[] name)
    {
        inode.Parent?.LinkedFiles?.Remove(inode);
        Replace(ref inode.Parent, parent);
        inode.Name = name;
        if (inode.OtherParent is not null)
            (parent.LinkedFiles ??= []).Add(inode);
        Write(inode);
    }

    // Has a file, or the table, refer to another file. The one to which it referred may be one that nobody needs from now on.
    private void Replace(ref Inode? reference, Inode? inode)
    {
        if (inode is not null)
            inode.Uses++;
        Inode? before = reference;
        reference = inode;
        if (before is null)
            return;
        before.Uses--;
        Drop(before);
    }

    // Lets go of a file if neither the guest nor another file needs it, and then of each directory above that was kept for nothing else. Those may be very many: no recursion but for another name's
    // directory, which is none that has another name.
    private void Drop(Inode inode)
    {
        for (Inode? each = inode; each is { Lookups: 0, Uses: 0 };)
        {
            if (_byIdentity.GetValueOrDefault(each.Identity) == each)
                _byIdentity.Remove(each.Identity);
            SetOtherName(each, null, []);
            Inode? parent = each.Parent;
            each.Parent = null;
            if (parent is not null)
            {
                parent.LinkedFiles?.Remove(each);
                parent.Uses--;
            }
            each = parent;
        }
    }

    // Writes down where it is now. What is written down is of no use without the directories above.
    private void Write(Inode inode)
    {
        // One that the guest has forgotten is no file of a process after this one.
        if (Session is not { } session || inode.Lookups == 0)
            return;
        inode.Slot = session.Move(inode);
        if (inode.Slot >= 0 && inode.Parent is { } parent)
            WriteWay(parent);
    }

    // Writes a file and all directories above it down, where there was no room for that: an opening leads there, and there is more room for these.
    private void WriteWay(Inode inode, HashSet<Inode>? written = null)
    {
        if (Session is not { IsFull: true } session)
            return;
        int depth = 0;
        for (Inode? each = inode; each is not null && each != Root && depth < MaxDepth && written?.Add(each) != false; each = each.Parent, depth++)
        {
            if (each.Slot < 0 && each.Lookups > 0)
                each.Slot = session.AddForOpening(each);
        }
    }

    private void CountBack(ulong id, ulong lookups, ref ReleasedDescriptors released)
    {
        if (id == RootId || !_byId.TryGetValue(id, out Inode? inode))
            return;
        inode.Lookups -= Math.Min(lookups, inode.Lookups);
        if (inode.Lookups > 0)
        {
            Session?.SetLookups(inode);
            return;
        }
        Session?.Remove(inode.Slot);
        inode.Slot = -1;
        _byId.Remove(id);
        inode.Parent?.LinkedFiles?.Remove(inode);
        if (inode.IsPinned)
            Replace(ref inode.Parent, null);    // no name leads to it, nor to what was below
        _open.Remove(inode, ref released);
        // What the guest has open it can still use by the handle, and its locks hold.
        if (inode.FirstOpen is null)
            inode.Locks?.Clear(ref released);
        LeaveToOtherNames(inode);
        Drop(inode);
    }

    // The guest has forgotten a directory. A process after this one will not know it: a file that was seen there is found by its other name.
    private void LeaveToOtherNames(Inode directory)
    {
        if (directory.LinkedFiles is not { } files)
            return;
        directory.LinkedFiles = null;
        foreach (Inode file in files)
        {
            if (file.OtherParent is not { } parent || _byId.GetValueOrDefault(parent.Id) != parent)
                continue;
            byte[] name = file.OtherName;
            SetOtherName(file, directory, file.Name);
            Place(file, parent, name);
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

    // Makes sure that a directory is not among those above the directory in which it was seen now. If it is, the host has moved them about, and where the one of them was seen that is right below is older.
    // False where it cannot be there.
    private bool TryUntie(Inode inode, Inode parent)
    {
        int depth = 0;
        for (Inode each = parent; each.Parent is { } above; each = above)
        {
            if (above == inode)
            {
                Replace(ref each.Parent, null);
                Write(each);
                break;
            }
            if (depth++ > MaxDepth)
                return false;
        }
        return parent != inode;
    }

    private void Release(Inode inode, ref ReleasedDescriptors released)
    {
        _open.Remove(inode, ref released);
        inode.Locks?.Clear(ref released);
    }
}
