using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;
using Vmm.Vhost.User.Backend;

namespace Vmm.Devices.Backends.FileSystem;

/// <content>What outlives the process: in memory that the front-end keeps, and as the state of a guest that is saved or moves.</content>
internal sealed partial class FuseServer
{
    /// <summary>Bytes of the memory that the front-end keeps: 390,000 files that are not open, and 65,000 that are. What is not used takes no room.</summary>
    public const int KeptSize = 64 << 20;

    /// <summary>The front-end keeps memory from now on, or no more. A process that has just begun goes on with the session that is in there.</summary>
    public void Keep(KeptMemory? memory)
    {
        if (memory is null)
        {
            _handles.WriteTo(null);
            _inodes.WriteTo(null);
            return;
        }
        var table = new SessionTable(() => memory.Bytes, isKept: true);
        if (!_isReady && table.Session(_inodes.Root.Identity, isElsewhere: false) is { } flags && (flags & ~Offered) == 0)
        {
            Restore(table, flags, isKept: true);
            return;
        }
        if (!_isReady && table.IsTable && table.HasSession)
            SayWhyLost(table);
        WriteTo(table);
    }

    // The guest has mounted, and this process cannot go on with that.
    private void SayWhyLost(SessionTable table)
    {
        if (!table.IsOf(_inodes.Root.Identity))
        {
            s_log.Warn("{Directory}: a process before this one served another directory, so the guest gets EIO: unmount and mount again there", Options.Directory);
            return;
        }
        FuseFlags missing = (table.Session(_inodes.Root.Identity, isElsewhere: false) ?? 0) & ~Offered;
        if (missing == 0)
        {
            s_log.Warn("{Directory}: what a process before this one has written down makes no sense, so the guest gets EIO: unmount and mount again there", Options.Directory);
            return;
        }
        s_log.Warn("{Directory}: the guest has mounted it with what this process does not offer ({Options}), so it gets EIO: unmount and mount again there. A daemon that is started again needs the options that it had",
            Options.Directory, string.Join("; ", OptionsBehind(missing)));
    }

    private static IEnumerable<string> OptionsBehind(FuseFlags flags)
    {
        (FuseFlags Flags, string Options)[] all =
        [
            (FuseFlags.PosixLocks, "locks of ranges on the host: not with --no-posix-lock, --no-host-locks or --readonly"),
            (FuseFlags.FlockLocks, "locks of files on the host: not with --no-flock, --no-host-locks or --readonly"),
            (FuseFlags.AutoInvalidateData, "--cache auto"),
            (FuseFlags.ReadDirectoryPlus | FuseFlags.ReadDirectoryPlusAuto, "READDIRPLUS: not with --no-readdirplus"),
            (FuseFlags.DirectIoAllowMmap, "--allow-mmap"),
            (FuseFlags.WritebackCache, "--writeback"),
            (FuseFlags.Submounts, "file systems below: not with --no-announce-submounts"),
            (FuseFlags.MapAlignment | FuseFlags.InodeDax, "--dax-window"),
            (FuseFlags.HandleKillPrivileges2, "set-user-id bits that the host takes away: not with --no-killpriv-v2 or DAX"),
            (FuseFlags.SecurityContext, "--security-label"),
            (FuseFlags.PosixAcl | FuseFlags.DontMask, "POSIX ACLs: not with --no-posix-acl, --no-xattr, or an --xattrmap that renames them"),
        ];
        foreach ((FuseFlags each, string options) in all)
        {
            if ((flags & each) != 0)
                yield return options;
            flags &= ~each;
        }
        if (flags != 0)
            yield return $"FUSE flags 0x{(ulong)flags:X}, which this version does not know";
    }

    /// <summary>The session as bytes; null where it cannot be saved, which the log explains: the guest knows more files than a state has room for, or has files mapped
    /// (DAX). No ring runs.</summary>
    public byte[]? Save()
    {
        // The guest reads mapped files without a request. The process that loads the state has nothing mapped there.
        if (_window is { IsEmpty: false } || _mayHaveMappings)
        {
            s_log.Warn("{Directory}: the guest has files mapped (DAX), so its state cannot be saved: unmount the directory in the guest first, or mount it without -o dax", Options.Directory);
            return null;
        }
        long size = SessionTable.HeaderRoom + (long)SessionTable.SlotSize * (_inodes.CountSlots() + _handles.Count);
        if (size > VhostUserDevice.MaxStateSize)
        {
            s_log.Warn("{Directory}: the guest knows {Files} files, and its state cannot be saved, because that may have {Limit} MiB: drop its caches first (vm.drop_caches)",
                Options.Directory, _inodes.Count.Files, VhostUserDevice.MaxStateSize >> 20);
            return null;
        }
        byte[] bytes = new byte[size];
        var table = new SessionTable(() => bytes);
        table.Clear();
        _inodes.WriteState(table);
        _handles.WriteState(table);
        Begin(table);
        return table.IsFull ? null : bytes;
    }

    /// <summary>Goes on with a session that was saved. No ring runs.</summary>
    /// <returns>Whether it is one that this process can go on with.</returns>
    public bool Load(ReadOnlySpan<byte> state)
    {
        byte[] bytes = state.ToArray();
        if (bytes.Length < SessionTable.HeaderRoom)
            return false;
        var table = new SessionTable(() => bytes);
        if (table.IsTable && !table.HasSession)
        {
            Reset();        // a guest that has not mounted
            return true;
        }
        if (table.Session(_inodes.Root.Identity, isElsewhere: true) is not { } flags || (flags & ~Offered) != 0)
            return false;
        SessionTable? kept = _inodes.Session;
        Reset();
        Restore(table, flags, isKept: false);
        if (kept is not null)
            WriteTo(kept);
        return true;
    }

    /// <summary>A request that a process before this one has left is about to be done: what that has given out by it already, the guest has not heard of.</summary>
    public void TakeBack(FuseRequest request)
    {
        _handles.TakeBack(request.Header.Unique);
        _inodes.TakeBack(request.Header.Unique);
    }

    private void WriteTo(SessionTable table)
    {
        table.Clear();
        _inodes.WriteTo(table);
        _handles.WriteTo(table);
        Begin(table);
    }

    private void Begin(SessionTable? table)
    {
        if (_isReady)
            table?.Begin(_inodes.Root.Identity, _inodes.RootBorn, _flags);
    }

    private void Restore(SessionTable table, FuseFlags flags, bool isKept)
    {
        // The front-end keeps the memory for one daemon: there the directory is the same.
        bool isElsewhere = !isKept && !table.IsOf(_inodes.Root.Identity, _inodes.RootBorn);
        (List<FileRecord> files, List<OpeningRecord> openings) = table.Load();
        SessionTable? session = isKept ? table : null;
        _inodes.Restore(files, table.Last.File, session, isElsewhere, table.RootMount);
        _flags = flags;
        List<OpenFile> opened = OpenAgain(openings, session);
        _handles.Restore(opened, table.Last.Opening, session);
        _isReady = true;
        _mayHaveMappings = isKept && _window is not null && Has(FuseFlags.MapAlignment);
        s_log.Info("{Directory}: goes on with {Files} files and {Openings} openings that a process before this one had", Options.Directory, files.Count, opened.Count);
        if (opened.Count < openings.Count)
        {
            s_log.Warn("{Directory}: {Lost} of {All} openings that a process before this one had are lost, and give EBADF: their files were removed or replaced, or cannot be opened",
                Options.Directory, openings.Count - opened.Count, openings.Count);
        }
    }

    private List<OpenFile> OpenAgain(List<OpeningRecord> openings, SessionTable? session)
    {
        ILookup<Inode?, OpeningRecord> ofFile = openings.ToLookup(
            opening => _inodes.Find(opening.File) is { } inode && opening.IsDirectory == inode.IsDirectory && (inode.IsDirectory || inode.IsRegular) ? inode : null);
        var opened = new List<OpenFile>();
        var lost = openings.ToHashSet();
        _inodes.HoldAll(ofFile.Select(group => group.Key).OfType<Inode>(), (Inode inode, in HeldDescriptor path) =>
        {
            foreach (OpeningRecord opening in ofFile[inode])
            {
                if (OpenAgain(opening, inode, in path) is not { } file)
                    continue;
                file.Slot = session is null ? -1 : opening.Slot;
                opened.Add(file);
                lost.Remove(opening);
            }
        });
        foreach (OpeningRecord opening in lost)
            session?.Remove(opening.Slot);
        return opened;
    }

    // Null where the file cannot be opened so.
    private OpenFile? OpenAgain(OpeningRecord opening, Inode inode, in HeldDescriptor path)
    {
        int flags = FileTree.DirectoryOnly;
        if (!opening.IsDirectory && HostFlags((uint)opening.Flags & ~(uint)FileTree.Truncate, out flags) < 0)
            return null;
        if (ReopenFor(inode, in path, (uint)opening.Flags, ref flags, out FileDescriptor? file) < 0)
            return null;
        return new OpenFile(opening.Handle, inode, file!, flags) { Request = opening.Request, Directory = opening.IsDirectory ? new DirectoryStream(_directoryBuffers) : null };
    }
}
