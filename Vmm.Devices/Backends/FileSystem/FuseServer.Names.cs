using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <content>Names: looked up, made and taken away.</content>
internal sealed partial class FuseServer
{
    private const int MaxTarget = 4096;             // PATH_MAX: of a symbolic link
    private const uint RenameFlags = 7;             // RENAME_NOREPLACE, _EXCHANGE and _WHITEOUT of linux/fs.h
    private const uint RenameExchange = 2, RenameWhiteout = 4;

    private static ReadOnlySpan<byte> DefaultAcl => "system.posix_acl_default\0"u8;

    private long Lookup(FuseRequest request, Inode parent)
    {
        if (request.Rest.StartsWith(".\0"u8) || request.Rest.StartsWith("..\0"u8))
            return LookupAgain(request, parent, isAbove: request.Rest[1] != 0);
        int error = request.TakeName(out ReadOnlySpan<byte> name);
        if (error < 0)
            return error;
        using HeldDescriptor directory = _inodes.Hold(parent, out error);
        return error < 0 ? error : ReplyEntry(request, parent, in directory, name);
    }

    // The directory itself, or the one above. What is above is not asked of the host: it could lead out.
    private long LookupAgain(FuseRequest request, Inode directory, bool isAbove)
    {
        if (!directory.IsDirectory)
            return -Errnos.Enotdir;
        if (_inodes.EnterAgain(directory, isAbove, request.Header.Unique) is not { } inode)
            return -Errnos.Estale;
        FileStatus status = default;
        int error;
        using (HeldDescriptor path = _inodes.Hold(inode, out error))
        {
            if (error == 0)
                error = FileTree.GetStatus(in path, out status);
        }
        if (error == 0)
            return request.Reply(Entry(inode.Parent ?? inode, inode, in status));
        _inodes.TakeBack(inode.Id, request.Header.Unique);
        return error;
    }

    // The guest is told of a file once more: by each reply that really goes out.
    private long ReplyEntry(FuseRequest request, Inode parent, in HeldDescriptor directory, ReadOnlySpan<byte> name)
    {
        int error = FileTree.GetStatus(in directory, name, out FileStatus status);
        return error < 0 ? error : request.Reply(Entry(request, parent, name, in status));
    }

    private FuseEntry Entry(FuseRequest request, Inode parent, ReadOnlySpan<byte> name, in FileStatus status) =>
        Entry(parent, _inodes.Enter(parent, name, in status, request.Header.Unique), in status);

    private FuseEntry Entry(Inode parent, Inode inode, in FileStatus status)
    {
        FuseAttributes attributes = Attributes(inode, in status);
        // A btrfs subvolume has a device of its own in the same mount.
        if (Has(FuseFlags.Submounts) && inode.IsDirectory && (inode.Identity.Mount, inode.Identity.Device) != (parent.Identity.Mount, parent.Identity.Device))
            attributes.Flags |= SubmountFlag;
        return new FuseEntry
        {
            Node = inode.Id,
            EntrySeconds = KeepSeconds,
            AttributesSeconds = KeepSeconds,
            EntryNanoseconds = KeepNanoseconds,
            AttributesNanoseconds = KeepNanoseconds,
            Attributes = attributes,
        };
    }

    // With POSIX ACLs the guest's kernel leaves the umask to this side (FUSE_DONT_MASK): it counts only where the directory has no default ACL. An umask that
    // takes nothing away needs no look at the directory.
    private uint NewMode(in HeldDescriptor directory, uint mode, uint mask) =>
        (mode & mask & 0x1FF) != 0 && Has(FuseFlags.DontMask) && ExtendedAttributes.Get(in directory, DefaultAcl, default) <= 0 ? mode & ~(mask & 0x1FF) : mode;

    private long MakeDirectory(FuseRequest request, Inode parent)
    {
        if (!request.TryTake(out FuseMakeDirectory arguments))
            return -Errnos.Einval;
        int error = request.TakeName(out ReadOnlySpan<byte> name);
        return error < 0 ? error : Make(request, parent, name, FileStatus.Directory | (arguments.Mode & 0xFFF), arguments.Mask);
    }

    private long MakeNode(FuseRequest request, Inode parent)
    {
        // Those have requests of their own.
        if (!request.TryTake(out FuseMakeNode arguments) || (arguments.Mode & FileStatus.TypeMask) is FileStatus.Directory or FileStatus.SymbolicLink)
            return -Errnos.Einval;
        if (!IsAllowedNode(arguments.Mode & FileStatus.TypeMask, arguments.Device))
            return -Errnos.Eperm;
        int error = request.TakeName(out ReadOnlySpan<byte> name);
        return error < 0 ? error : Make(request, parent, name, AllowedMode(arguments.Mode & 0xFFFF, isDirectory: false), arguments.Mask, arguments.Device);
    }

    private long MakeSymbolicLink(FuseRequest request, Inode parent)
    {
        int error = request.TakeName(out ReadOnlySpan<byte> name);
        if (error < 0)
            return error;
        if (!request.TryTakeText(out ReadOnlySpan<byte> target))
            return -Errnos.Einval;
        return target.Length > MaxTarget ? -Errnos.Enametoolong : Make(request, parent, name, FileStatus.SymbolicLink, target: target);
    }

    // What is not opened at once: the type in the mode says what it is.
    private long Make(FuseRequest request, Inode parent, ReadOnlySpan<byte> name, uint mode, uint mask = 0, uint device = 0, ReadOnlySpan<byte> target = default)
    {
        using HeldDescriptor directory = _inodes.Hold(parent, out int error);
        if (error < 0)
            return error;
        uint type = mode & FileStatus.TypeMask;
        using (Caller.Become(this, request, out error))
        {
            if (error < 0)
                return error;
            error = type switch
            {
                FileStatus.Directory => FileTree.MakeDirectory(in directory, name, NewMode(in directory, mode & ~type, mask)),
                FileStatus.SymbolicLink => FileTree.MakeSymbolicLink(in directory, name, target),
                _ => FileTree.MakeNode(in directory, name, NewMode(in directory, mode, mask), device),
            };
            if (error < 0)
                return error;
        }
        error = Label(request, in directory, name, isDirectory: type == FileStatus.Directory);
        return error < 0 ? error : ReplyEntry(request, parent, in directory, name);
    }

    private long ReadLink(FuseRequest request, Inode inode)
    {
        if (inode.Type != FileStatus.SymbolicLink)
            return -Errnos.Einval;
        using HeldDescriptor link = _inodes.Hold(inode, out int error);
        return error < 0 ? error : FileTree.ReadLink(in link, request.MakeReply((int)Math.Min(request.Room, MaxTarget)));
    }

    private long Link(FuseRequest request, Inode parent)
    {
        if (!request.TryTake(out ulong id))
            return -Errnos.Einval;
        int error = request.TakeName(out ReadOnlySpan<byte> name);
        if (error < 0)
            return error;
        if (_inodes.Find(id) is not { } inode)
            return -Errnos.Estale;
        using HeldDescriptor file = _inodes.Hold(inode, out error);
        if (error < 0)
            return error;
        using HeldDescriptor directory = _inodes.Hold(parent, out error), links = _links.Hold();
        if (error < 0 || (error = FileTree.Link(in links, in file, in directory, name)) < 0)
            return error;
        return ReplyEntry(request, parent, in directory, name);
    }

    private long Remove(FuseRequest request, Inode parent, bool isDirectory)
    {
        int error = request.TakeName(out ReadOnlySpan<byte> name);
        if (error < 0)
            return error;
        using HeldDescriptor directory = _inodes.Hold(parent, out error);
        if (error < 0)
            return error;
        if ((error = _inodes.Pin(parent, in directory, name, isOnlyForOpen: IsOfServer(parent, in directory))) < 0)
            return error;
        error = FileTree.Remove(in directory, name, isDirectory);
        if (error < 0)
            _inodes.Named(parent, in directory, name);
        return error;
    }

    private long Rename(FuseRequest request, Inode parent, bool hasFlags)
    {
        uint flags = 0;
        ulong id;
        if (hasFlags)
        {
            if (!request.TryTake(out FuseRename2 arguments))
                return -Errnos.Einval;
            (id, flags) = (arguments.NewDirectory, arguments.Flags);
        }
        else if (!request.TryTake(out id))
        {
            return -Errnos.Einval;
        }
        if ((flags & ~RenameFlags) != 0)
            return -Errnos.Einval;
        int error = request.TakeName(out ReadOnlySpan<byte> name);
        if (error < 0 || (error = request.TakeName(out ReadOnlySpan<byte> newName)) < 0)
            return error;
        if (_inodes.Find(id) is not { } newParent)
            return -Errnos.Estale;
        using HeldDescriptor directory = _inodes.Hold(parent, out error);
        if (error < 0)
            return error;
        using HeldDescriptor newDirectory = _inodes.Hold(newParent, out error);
        if (error < 0)
            return error;
        bool isExchange = (flags & RenameExchange) != 0;
        if ((error = _inodes.Pin(newParent, in newDirectory, newName, isOnlyForOpen: !isExchange && IsOfServer(newParent, in newDirectory))) < 0 && !isExchange)
            return error;
        // The file stays open until its new name is known: another queue may use it, or a file below it, meanwhile. If it cannot be opened, nothing is lost.
        _inodes.Pin(parent, in directory, name);
        error = (flags & RenameWhiteout) == 0 ? FileTree.Rename(in directory, name, in newDirectory, newName, flags)
            : RenameLeavingWhiteout(request, in directory, name, in newDirectory, newName, flags);
        if (error < 0)
        {
            // Neither has lost its name.
            _inodes.Named(newParent, in newDirectory, newName);
            _inodes.Named(parent, in directory, name);
            return error;
        }
        _inodes.Named(newParent, in newDirectory, newName, parent, name);
        if (isExchange)
            _inodes.Named(parent, in directory, name, newParent, newName);
        return error;
    }

    // What stays in the place of the file (RENAME_WHITEOUT) is a new file, which belongs to the caller.
    private int RenameLeavingWhiteout(FuseRequest request, in HeldDescriptor directory, ReadOnlySpan<byte> name, in HeldDescriptor newDirectory, ReadOnlySpan<byte> newName, uint flags)
    {
        using var caller = Caller.Become(this, request, out int error, hasAllRights: true);
        return error < 0 ? error : FileTree.Rename(in directory, name, in newDirectory, newName, flags);
    }
}
