using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <content>Attributes.</content>
internal sealed partial class FuseServer
{
    private const uint SubmountFlag = 1;        // FUSE_ATTR_SUBMOUNT
    private const uint KeepId = uint.MaxValue;
    private const ulong MuchToFree = 64 << 20;  // bytes of a file: the host's file system takes its time for more

    private FuseAttributes Attributes(Inode inode, in FileStatus status) => new()
    {
        Inode = status.Inode,
        Size = status.Size,
        Blocks = status.Blocks,
        Accessed = (ulong)status.Accessed.Seconds,
        Modified = (ulong)status.Modified.Seconds,
        Changed = (ulong)status.Changed.Seconds,
        AccessedNanoseconds = status.Accessed.Nanoseconds,
        ModifiedNanoseconds = status.Modified.Nanoseconds,
        ChangedNanoseconds = status.Changed.Nanoseconds,
        Mode = status.Mode,
        LinkCount = status.LinkCount,
        User = Options.Users.ToGuest(status.UserId),
        Group = Options.Groups.ToGuest(status.GroupId),
        // As the kernel encodes a device in 32 bits (new_encode_dev of linux/kdev_t.h).
        Device = (status.DeviceOfNodeMinor & 0xFF) | status.DeviceOfNodeMajor << 8 | (status.DeviceOfNodeMinor & ~0xFFU) << 12,
        BlockSize = BlockSize(in status),
        Flags = Has(FuseFlags.InodeDax) && status.IsRegular && IsMapped(inode) ? DaxFlag : 0,
    };

    // Linux writes mapped files back only where their blocks are pages (dax_writeback_mapping_range of fs/dax.c): elsewhere msync(2) and fsync(2) would be EIO.
    private uint BlockSize(in FileStatus status) => _window is not null && status.IsRegular ? 1u << PageShift : status.BlockSize;

    private long GetAttributes(FuseRequest request, Inode inode)
    {
        if (!request.TryTake(out FuseGetAttributes arguments))
            return -Errnos.Einval;
        int error = GetStatus(inode, (arguments.Flags & FuseGetAttributes.HasHandle) != 0 ? _handles.Find(arguments.Handle) : null, out FileStatus status);
        return error < 0 ? error : ReplyAttributes(request, inode, in status);
    }

    private int ReplyAttributes(FuseRequest request, Inode inode, in FileStatus status) =>
        request.Reply(new FuseAttributesReply { Seconds = KeepSeconds, Nanoseconds = KeepNanoseconds, Attributes = Attributes(inode, in status) });

    private int GetStatus(Inode inode, OpenFile? opened, out FileStatus status)
    {
        if (opened is not null && opened.Inode == inode)
        {
            using HeldDescriptor file = opened.Descriptor.Hold();
            return FileTree.GetStatus(in file, out status);
        }
        status = default;
        using HeldDescriptor path = _inodes.HoldForStatus(inode, out int error);
        return error < 0 ? error : FileTree.GetStatus(in path, out status);
    }

    private long Statx(FuseRequest request, Inode inode)
    {
        if (!request.TryTake(out FuseStatxRequest arguments))
            return -Errnos.Einval;
        int error = GetStatus(inode, (arguments.AttributeFlags & FuseGetAttributes.HasHandle) != 0 ? _handles.Find(arguments.Handle) : null, out FileStatus status);
        if (error < 0)
            return error;
        const uint told = 0xFFF;    // STATX_BASIC_STATS and STATX_BTIME: what the guest's kernel knows how to take over
        return request.Reply(new FuseStatxReply
        {
            Seconds = KeepSeconds,
            Nanoseconds = KeepNanoseconds,
            Mask = status.Mask & told,
            BlockSize = BlockSize(in status),
            Attributes = status.Attributes,
            AttributesMask = status.AttributesMask,
            LinkCount = status.LinkCount,
            User = Options.Users.ToGuest(status.UserId),
            Group = Options.Groups.ToGuest(status.GroupId),
            Mode = status.Mode,
            Inode = status.Inode,
            Size = status.Size,
            Blocks = status.Blocks,
            Accessed = new(status.Accessed.Seconds, status.Accessed.Nanoseconds),
            Born = new(status.Born.Seconds, status.Born.Nanoseconds),
            Changed = new(status.Changed.Seconds, status.Changed.Nanoseconds),
            Modified = new(status.Modified.Seconds, status.Modified.Nanoseconds),
            DeviceOfNodeMajor = status.DeviceOfNodeMajor,
            DeviceOfNodeMinor = status.DeviceOfNodeMinor,
            DeviceMajor = status.DeviceMajor,
            DeviceMinor = status.DeviceMinor,
        });
    }

    private long SetAttributes(FuseRequest request, Inode inode, bool mayWait)
    {
        if (!request.TryTake(out FuseSetAttributes change))
            return -Errnos.Einval;
        OpenFile? opened = null;
        if ((change.Valid & FuseSetAttributes.HandleBit) != 0 && (opened = Opening(request, change.Handle)) is null)
            return -Errnos.Ebadf;
        using HeldDescriptor path = _inodes.Hold(inode, out int error), links = _links.Hold();
        if (error < 0)
            return error;
        if (!mayWait && (change.Valid & FuseSetAttributes.SizeBit) != 0 && request.MayBeLeft && FreesMuch(inode, in path, change.Size))
            return NeedsThread;
        if ((change.Valid & FuseSetAttributes.ModeBit) != 0 && (error = FileTree.ChangeMode(in links, in path, AllowedMode(change.Mode & 0xFFF, inode.IsDirectory))) < 0)
            return error;
        if ((error = ChangeOwner(inode, in path, in change)) < 0)
            return error;
        error = ChangeSize(inode, opened, in path, in change);
        // A program of the host's has a lease on the file (F_SETLEASE), and has to give it up first. It is a regular file: nothing else can be waited for.
        if (error == -Errnos.Eagain && opened is null)
        {
            if (!mayWait && request.MayBeLeft)
                return NeedsThread;
            error = ChangeSize(inode, opened, in path, in change, waits: true);
        }
        if (error < 0 || (error = ChangeTimes(in path, in change)) < 0)
            return error;
        error = FileTree.GetStatus(in path, out FileStatus status);
        return error < 0 ? error : ReplyAttributes(request, inode, in status);
    }

    private int ChangeOwner(Inode inode, in HeldDescriptor path, in FuseSetAttributes change)
    {
        if ((change.Valid & (FuseSetAttributes.UserBit | FuseSetAttributes.GroupBit)) == 0)
            return 0;
        uint user = KeepId, group = KeepId;
        if ((change.Valid & FuseSetAttributes.UserBit) != 0 && !Options.Users.TryToHost(change.User, out user))
            return -Errnos.Eperm;
        if ((change.Valid & FuseSetAttributes.GroupBit) != 0 && !Options.Groups.TryToHost(change.Group, out group))
            return -Errnos.Eperm;
        int error = TakeCapabilitiesAway(inode, in path);
        return error < 0 ? error : FileTree.ChangeOwner(in path, user, group);
    }

    private int ChangeSize(Inode inode, OpenFile? opened, in HeldDescriptor path, in FuseSetAttributes change, bool waits = false)
    {
        if ((change.Valid & FuseSetAttributes.SizeBit) == 0)
            return 0;
        if (!inode.IsRegular)
            return inode.IsDirectory ? -Errnos.Eisdir : -Errnos.Einval;
        if (change.Size > long.MaxValue)
            return -Errnos.Einval;
        using var powers = BeginChange((change.Valid & FuseSetAttributes.KillPrivilegesBit) != 0);
        int error = TakeCapabilitiesAway(inode, in path);
        if (error < 0)
            return error;
        if (opened is not null)
        {
            using HeldDescriptor file = opened.Descriptor.Hold();
            return OpenFileIo.SetSize(in file, (long)change.Size);
        }
        FileDescriptor? reopened = null;
        if ((error = TakeSetIdAway(in path)) < 0 || (error = Reopen(in path, FileTree.WriteOnly | (waits ? 0 : FileTree.NonBlocking), out reopened)) < 0)
            return error;
        using (reopened)
        {
            using HeldDescriptor file = reopened!.Hold();
            return OpenFileIo.SetSize(in file, (long)change.Size);
        }
    }

    // Whether a file becomes so much shorter that this takes long.
    private static bool FreesMuch(Inode inode, in HeldDescriptor path, ulong size) =>
        inode.IsRegular && FileTree.GetStatus(in path, out FileStatus status) == 0 && status.Size > size && status.Size - size > MuchToFree;

    private static int ChangeTimes(in HeldDescriptor path, in FuseSetAttributes change)
    {
        if ((change.Valid & (FuseSetAttributes.AccessedBit | FuseSetAttributes.ModifiedBit)) == 0)
            return 0;
        return FileTree.SetTimes(
            in path,
            Time(change.Valid, FuseSetAttributes.AccessedBit, FuseSetAttributes.AccessedNowBit, change.Accessed, change.AccessedNanoseconds),
            Time(change.Valid, FuseSetAttributes.ModifiedBit, FuseSetAttributes.ModifiedNowBit, change.Modified, change.ModifiedNanoseconds));
    }

    private static FileTime Time(uint valid, uint isSet, uint isNow, ulong seconds, uint nanoseconds) =>
        (valid & isSet) == 0 ? new(0, FileTree.TimeOmit) : (valid & isNow) != 0 ? new(0, FileTree.TimeNow) : new((long)seconds, nanoseconds);

    private long CheckAccess(FuseRequest request, Inode inode)
    {
        if (!request.TryTake(out FuseAccess arguments))
            return -Errnos.Einval;
        const uint all = 7, write = 2;      // R_OK | W_OK | X_OK, and W_OK alone
        if ((arguments.Mask & ~all) != 0)
            return -Errnos.Einval;
        // As on a file system that is mounted so (sb_permission of Linux's fs/namei.c): what is written to a pipe, a socket or a device does not go there.
        if (Options.IsReadOnly && (arguments.Mask & write) != 0 && (inode.IsRegular || inode.IsDirectory || inode.Type == FileStatus.SymbolicLink))
            return -Errnos.Erofs;
        using HeldDescriptor path = _inodes.Hold(inode, out int error), links = _links.Hold();
        if (error < 0)
            return error;
        using var caller = Caller.Become(this, request, out error, isAsked: true);
        return error < 0 ? error : FileTree.CheckAccess(in links, in path, arguments.Mask);
    }

    private long GetFileSystem(FuseRequest request, Inode inode)
    {
        using HeldDescriptor path = _inodes.Hold(inode, out int error);
        if (error < 0 || (error = FileTree.GetFileSystem(in path, out FileSystemStatus status)) < 0)
            return error;
        return request.Reply(new FuseStatFs
        {
            Blocks = status.Blocks,
            BlocksFree = status.BlocksFree,
            BlocksAvailable = status.BlocksAvailable,
            Files = status.Files,
            FilesFree = status.FilesFree,
            BlockSize = (uint)status.BlockSize,
            NameLength = (uint)status.NameLength,
            FragmentSize = (uint)status.FragmentSize,
        });
    }

    private long SynchronizeFileSystem(Inode inode)
    {
        // Each file system that the guest knows of asks for itself.
        if (Has(FuseFlags.Submounts))
            return SynchronizeFileSystemOf(inode);
        // All are one for it.
        long result = 0;
        foreach (Inode each in _inodes.FileSystemRoots())
        {
            long error = SynchronizeFileSystemOf(each);
            // A file system that is mounted no more, or that cannot be opened, holds no data of the guest's.
            if (result == 0 && (each == _inodes.Root || error is not (-Errnos.Estale or -Errnos.Eacces)))
                result = error;
        }
        return result;
    }

    private long SynchronizeFileSystemOf(Inode inode)
    {
        // Not by O_PATH.
        using HeldDescriptor path = _inodes.Hold(inode.IsDirectory || inode.IsRegular ? inode : _inodes.Root, out int error);
        if (error < 0 || (error = Reopen(in path, FileTree.NonBlocking, out FileDescriptor? file)) < 0)
            return error;
        using (file)
        {
            using HeldDescriptor held = file!.Hold();
            return OpenFileIo.SynchronizeFileSystem(in held);
        }
    }
}
