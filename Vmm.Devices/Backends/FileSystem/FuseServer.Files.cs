using System.Collections.Concurrent;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <content>Files that are open.</content>
internal sealed partial class FuseServer
{
    private const int KeptFlags = FileTree.AccessMask | FileTree.Truncate | FileTree.NonBlocking | FileTree.Synchronous;
    private const uint AllocateShift = 0x8 | 0x20;      // FALLOC_FL_COLLAPSE_RANGE and _INSERT_RANGE: what is behind moves
    private const uint AllocateModes = 0x1 | 0x2 | 0x8 | 0x10 | 0x20 | 0x40;    // FALLOC_FL_* of linux/falloc.h but NO_HIDE_STALE

    private readonly ConcurrentDictionary<ulong, bool> _servers = [];       // by device: what is mounted below the directory

    private long Open(FuseRequest request, Inode inode, bool mayWait)
    {
        if (!request.TryTake(out FuseOpen arguments))
            return -Errnos.Einval;
        int error = HostFlags(arguments.Flags, out int flags);
        if (error < 0)
            return error;
        // Devices, pipes and sockets are the guest's own business: its kernel does not ask for them.
        if (!inode.IsRegular)
            return inode.IsDirectory ? -Errnos.Eisdir : -Errnos.Enxio;
        using HeldDescriptor path = _inodes.Hold(inode, out error);
        if (error < 0)
            return error;
        if (!mayWait && (flags & FileTree.Truncate) != 0 && request.MayBeLeft && FreesMuch(inode, in path, 0))
            return NeedsThread;
        FileDescriptor? file;
        using (BeginChange((arguments.OpenFlags & FuseOpen.KillPrivileges) != 0))
        {
            error = ReopenFor(inode, in path, arguments.Flags, ref flags, out file);
        }
        return error < 0 ? error : request.Reply(Opened(request, inode, file!, flags));
    }

    // The opening that a request means, which is of the file that the request is about.
    private OpenFile? Opening(FuseRequest request, ulong handle) => _handles.Find(handle) is { } opened && opened.Inode.Id == request.Header.Node ? opened : null;

    private FuseOpenReply Opened(FuseRequest request, Inode inode, FileDescriptor file, int flags)
    {
        var opened = new OpenFile(_handles.Next(), inode, file, flags) { Request = request.Header.Unique };
        _handles.Add(opened);
        return new FuseOpenReply(opened.Handle, Options.Cache switch
        {
            FileSystemCache.Always => FuseOpenReply.KeepCache,
            FileSystemCache.Auto => 0,
            _ => FuseOpenReply.DirectIo,
        }, 0);
    }

    // The flags with which the host's file is opened, for those that the guest asks for: at most reading and writing of a file that exists. O_APPEND is left out: a page that the
    // guest's cache writes back belongs to its old place, so each write says for itself whether it appends.
    private int HostFlags(uint wanted, out int flags)
    {
        flags = (int)wanted & (KeptFlags | (Options.AllowDirectIo ? FileTree.Direct : 0) | (Options.PreserveNoAccessTime ? FileTree.NoAccessTime : 0));
        int access = flags & FileTree.AccessMask;
        if (access == FileTree.AccessMask)
            return -Errnos.Einval;
        if (Options.IsReadOnly && (access != 0 || (flags & FileTree.Truncate) != 0))
            return -Errnos.Erofs;
        // A cache that is written back later reads what it does not have, and knows best where a file ends.
        if (Has(FuseFlags.WritebackCache))
            flags = (flags & ~FileTree.AccessMask) | (access == FileTree.WriteOnly ? FileTree.ReadWrite : access);
        return 0;
    }

    private int ReopenFor(Inode inode, in HeldDescriptor path, uint wanted, ref int flags, out FileDescriptor? file)
    {
        file = null;
        int error = (wanted & (FileTree.AccessMask | FileTree.Truncate)) != 0 ? TakeSetIdAway(in path) : 0;
        if (error < 0 || ((flags & FileTree.Truncate) != 0 && (error = TakeCapabilitiesAway(inode, in path)) < 0))
            return error;
        error = Reopen(in path, flags, out file);
        // A file that may only be appended to (chattr +a): the host opens it in no other way. A cache that is written back would append whole pages.
        return error == -Errnos.Eperm && (wanted & FileTree.Append) != 0 && !Has(FuseFlags.WritebackCache) ? Reopen(in path, flags |= FileTree.Append, out file) : error;
    }

    // Opens a file, which is open by O_PATH, once more by /proc/self/fd. If the process has no descriptor left, it closes those of files that it can find again.
    private int Reopen(in HeldDescriptor path, int flags, out FileDescriptor? file)
    {
        using HeldDescriptor links = _links.Hold();
        int number = FileTree.Reopen(in links, in path, flags);
        if (number is -Errnos.Emfile or -Errnos.Enfile && _inodes.Shrink())
            number = FileTree.Reopen(in links, in path, flags);
        file = number < 0 ? null : new FileDescriptor(number);
        return Math.Min(number, 0);
    }

    private long Create(FuseRequest request, Inode parent)
    {
        if (!request.TryTake(out FuseCreate arguments))
            return -Errnos.Einval;
        int error = request.TakeName(out ReadOnlySpan<byte> name);
        if (error < 0 || (error = HostFlags(arguments.Flags, out int flags)) < 0)
            return error;
        using HeldDescriptor directory = _inodes.Hold(parent, out error);
        if (error < 0)
            return error;
        // O_EXCL always: what is there already may be a device, or a link.
        int number = Options.IsReadOnly ? -Errnos.Erofs : MakeFile(request, in directory, name, flags | FileTree.Create | FileTree.Exclusive, in arguments);
        if (number == -Errnos.Eexist && ((int)arguments.Flags & FileTree.Exclusive) == 0)
            return CreateOverExisting(request, parent, in directory, name, flags, in arguments);
        if (number < 0)
            return number;
        var file = new FileDescriptor(number);
        FileStatus status = default;
        error = Label(request, in directory, name, isDirectory: false);
        if (error == 0)
        {
            using HeldDescriptor held = file.Hold();
            error = FileTree.GetStatus(in held, out status);
        }
        if (error < 0)
        {
            file.Dispose();
            return error;
        }
        return ReplyCreated(request, Entry(request, parent, name, in status), file, flags);
    }

    private int MakeFile(FuseRequest request, in HeldDescriptor directory, ReadOnlySpan<byte> name, int flags, in FuseCreate arguments)
    {
        uint mode = NewMode(in directory, AllowedMode(arguments.Mode & 0xFFF, isDirectory: false), arguments.Mask);
        using var caller = Caller.Become(this, request, out int error);
        if (error < 0)
            return error;
        int number = FileTree.Open(in directory, name, flags, mode);
        return number is -Errnos.Emfile or -Errnos.Enfile && _inodes.Shrink() ? FileTree.Open(in directory, name, flags, mode) : number;
    }

    private long CreateOverExisting(FuseRequest request, Inode parent, in HeldDescriptor directory, ReadOnlySpan<byte> name, int flags, in FuseCreate arguments)
    {
        int error = FileTree.GetStatus(in directory, name, out FileStatus status);
        if (error < 0)
            return error;
        if (!status.IsRegular)
            return status.IsDirectory ? -Errnos.Eisdir : -Errnos.Enxio;
        FuseEntry entry = Entry(request, parent, name, in status);
        error = OpenEntered(entry.Node, ref flags, in arguments, out FileDescriptor? file);
        if (error == 0)
            return ReplyCreated(request, entry, file!, flags);
        _inodes.TakeBack(entry.Node, request.Header.Unique);
        return error;
    }

    private int OpenEntered(ulong id, ref int flags, in FuseCreate arguments, out FileDescriptor? file)
    {
        file = null;
        if (_inodes.Find(id) is not { } inode)
            return -Errnos.Estale;
        using HeldDescriptor path = _inodes.Hold(inode, out int error);
        if (error < 0)
            return error;
        using var powers = BeginChange((arguments.OpenFlags & FuseOpen.KillPrivileges) != 0);
        return ReopenFor(inode, in path, arguments.Flags, ref flags, out file);
    }

    private long ReplyCreated(FuseRequest request, in FuseEntry entry, FileDescriptor file, int flags)
    {
        // A guest that forgets it at the same time gets what it deserves.
        if (_inodes.Find(entry.Node) is not { } inode)
        {
            file.Dispose();
            return -Errnos.Estale;
        }
        request.Reply(in entry);
        return request.Reply(Opened(request, inode, file, flags), FuseEntry.WireSize);
    }

    private long MakeTemporaryFile(FuseRequest request, Inode parent)
    {
        if (!request.TryTake(out FuseCreate arguments))
            return -Errnos.Einval;
        int error = HostFlags(arguments.Flags, out int flags);
        if (error < 0)
            return error;
        using HeldDescriptor directory = _inodes.Hold(parent, out error);
        if (error < 0)
            return error;
        int isExclusive = (int)arguments.Flags & FileTree.Exclusive;    // it never gets a name
        int number = MakeFile(request, in directory, ".\0"u8, (flags & ~FileTree.Truncate) | FileTree.Temporary | isExclusive, in arguments);
        if (number < 0)
            return number;
        var file = new FileDescriptor(number);
        using HeldDescriptor held = file.Hold(), links = _links.Hold();
        int path = FileTree.Reopen(in links, in held, FileTree.PathOnly);
        FileStatus status = default;
        if (path < 0 || (error = LabelOpen(request, in held)) < 0 || (error = FileTree.GetStatus(in held, out status)) < 0)
        {
            if (path >= 0)
                new FileDescriptor(path).Dispose();
            file.Dispose();
            return path < 0 ? path : error;
        }
        return ReplyCreated(request, Entry(parent, _inodes.EnterNameless(new FileDescriptor(path), in status, request.Header.Unique), in status), file, flags);
    }

    private long Read(FuseRequest request, bool mayWait)
    {
        if (!request.TryTake(out FuseTransfer arguments) || arguments.Offset > long.MaxValue - MaxTransfer)
            return -Errnos.Einval;
        if (Opening(request, arguments.Handle) is not { } opened)
            return -Errnos.Ebadf;
        if (opened.Directory is not null)
            return -Errnos.Eisdir;
        if ((opened.MayBlock || opened.CannotTell) && !mayWait)
            return NeedsThread;
        using HeldDescriptor file = opened.Descriptor.Hold();
        ulong size = Math.Min(Math.Min(arguments.Size, MaxTransfer), (ulong)request.Room);
        ulong done = 0;
        bool asks = !mayWait && !opened.NeverWaits;
        request.IsReplyInPlace = true;
        // A short answer is the file's end for the guest, or zeros, also where an error is behind what was read: its kernel then reads the pages one by one. With O_DIRECT
        // some file systems have an error for what is behind the last bytes of a file, because that is not aligned.
        bool isDirect = (opened.Flags & FileTree.Direct) != 0;
        while (done < size)
        {
            long count = OpenFileIo.Read(in file, request.ReplyVectors(done, size - done), (long)(arguments.Offset + done), noWait: asks);
            if (count == -Errnos.Eagain && asks)
                return NeedsThread;
            if (count == -Errnos.Eopnotsupp && asks)
            {
                // The file system cannot say. One in memory never waits; another is a network's, most times, and may not answer for long.
                if (!FileTree.IsInMemory(in file))
                {
                    opened.CannotTell = true;
                    return NeedsThread;
                }
                opened.NeverWaits = true;
                asks = false;
                continue;
            }
            if (count < 0 && (done == 0 || !isDirect))
                return count;
            if (count <= 0)
                break;
            done += (ulong)count;
        }
        return (long)done;
    }

    private long Write(FuseRequest request, bool mayWait)
    {
        if (!request.TryTake(out FuseTransfer arguments) || arguments.Offset > long.MaxValue - MaxTransfer || arguments.Size > MaxTransfer
            || arguments.Size > request.DataLength)
        {
            return -Errnos.Einval;
        }
        if (Opening(request, arguments.Handle) is not { } opened)
            return -Errnos.Ebadf;
        if ((opened.MayBlock || opened.CannotTell) && !mayWait)
            return NeedsThread;
        using HeldDescriptor file = opened.Descriptor.Hold();
        if (!mayWait && IsOfServer(opened.Inode, in file))
            return NeedsThread;
        using var powers = BeginChange((arguments.TransferFlags & FuseTransfer.KillsPrivileges) != 0);
        bool isOfCache = (arguments.TransferFlags & FuseTransfer.FromCache) != 0;
        // The host would put a page at the end of a file that may only be appended to.
        if (isOfCache && (opened.Flags & FileTree.Append) != 0)
            return -Errnos.Eperm;
        var how = Appends(in arguments) ? WriteModes.Append : WriteModes.None;
        if (!isOfCache && ReachesDisk(in arguments, opened, ref how) && !mayWait)
            return NeedsThread;
        int error = TakeCapabilitiesAway(opened.Inode, in file);
        if (error < 0)
            return error;
        ulong done = 0;
        while (done < arguments.Size)
        {
            long count = OpenFileIo.Write(in file, request.DataVectors(done, arguments.Size - done), (long)(arguments.Offset + done), how);
            // Linux does not look how much of its cache was written, only for an error.
            if (count < 0 && (done == 0 || isOfCache))
                return count;
            if (count == 0 && isOfCache)
                return -Errnos.Eio;
            if (count <= 0)
                break;
            done += (ulong)count;
        }
        return request.Reply(new FuseWriteReply((uint)done, 0));
    }

    // Whether this one write has to be on the disk before it is done (RWF_DSYNC, RWF_SYNC), and the file was not opened so.
    private static bool ReachesDisk(in FuseTransfer arguments, OpenFile opened, ref WriteModes how)
    {
        int wanted = (int)arguments.Flags & ~opened.Flags;
        if ((wanted & FileTree.Synchronous & ~FileTree.DataSynchronous) != 0)
            how |= WriteModes.Sync;
        else if ((wanted & FileTree.DataSynchronous) != 0)
            how |= WriteModes.DataSync;
        return (how & (WriteModes.Sync | WriteModes.DataSync)) != 0;
    }

    // A cache that is written back later knows best where the file ends.
    private bool Appends(in FuseTransfer arguments) => arguments.Appends && !Has(FuseFlags.WritebackCache);

    // A program of the guest's has closed the file: it is told what a write could not say yet (ENOSPC and EDQUOT of NFS).
    private long Flush(FuseRequest request, bool mayWait)
    {
        if (!request.TryTake(out FuseFlush arguments))
            return -Errnos.Einval;
        if (Opening(request, arguments.Handle) is not { } opened)
            return -Errnos.Ebadf;
        if ((opened.Flags & FileTree.AccessMask) == 0 || opened.Directory is not null)
        {
            ReleaseLocks(opened.Inode, arguments.LockOwner);
            return 0;
        }
        using HeldDescriptor file = opened.Descriptor.Hold();
        if (!mayWait && IsOfServer(opened.Inode, in file))
            return NeedsThread;
        // Whoever gets a lock next is to find what was written.
        int error = OpenFileIo.CloseCopy(in file);
        if (error is -Errnos.Emfile or -Errnos.Enfile && _inodes.Shrink())
            error = OpenFileIo.CloseCopy(in file);
        ReleaseLocks(opened.Inode, arguments.LockOwner);
        return error is -Errnos.Emfile or -Errnos.Enfile ? 0 : error;   // that there is no descriptor for the question says nothing of the file
    }

    // Whether a server keeps the file. It is the same for all files of a device, and to ask for it may take long itself.
    private bool IsOfServer(Inode inode, in HeldDescriptor file)
    {
        ulong device = inode.Identity.Device;
        if (device == _inodes.Root.Identity.Device)
            return _isOfServer;
        if (_servers.TryGetValue(device, out bool isServer))
            return isServer;
        return _servers[device] = FileTree.IsOfServer(in file);
    }

    private long Release(FuseRequest request)
    {
        if (!request.TryTake(out FuseRelease arguments))
            return -Errnos.Einval;
        if (Opening(request, arguments.Handle) is null || !_handles.Remove(arguments.Handle))
            return -Errnos.Ebadf;
        _waiters.LookNow();     // its locks are gone
        return 0;
    }

    private long Synchronize(FuseRequest request)
    {
        if (!request.TryTake(out FuseFsync arguments))
            return -Errnos.Einval;
        if (Opening(request, arguments.Handle) is not { } opened)
            return -Errnos.Ebadf;
        using HeldDescriptor file = opened.Descriptor.Hold();
        return OpenFileIo.Synchronize(in file, (arguments.Flags & FuseFsync.DataOnly) != 0);
    }

    private long Allocate(FuseRequest request)
    {
        if (!request.TryTake(out FuseAllocate arguments) || arguments.Offset > long.MaxValue || arguments.Length > long.MaxValue)
            return -Errnos.Einval;
        if ((arguments.Mode & ~AllocateModes) != 0)
            return -Errnos.Eopnotsupp;
        if (Opening(request, arguments.Handle) is not { } opened)
            return -Errnos.Ebadf;
        using HeldDescriptor file = opened.Descriptor.Hold();
        using var powers = BeginChange(Has(FuseFlags.HandleKillPrivileges2));
        int error = TakeCapabilitiesAway(opened.Inode, in file);
        return error < 0 ? error : OpenFileIo.Allocate(in file, arguments.Mode, (long)arguments.Offset, (long)arguments.Length);
    }

    private long Seek(FuseRequest request)
    {
        const uint hole = 4;    // SEEK_HOLE, the last that there is
        if (!request.TryTake(out FuseSeek arguments) || arguments.Whence > hole)
            return -Errnos.Einval;
        if (Opening(request, arguments.Handle) is not { Directory: null } opened)
            return -Errnos.Ebadf;
        using HeldDescriptor file = opened.Descriptor.Hold();
        long result = OpenFileIo.Seek(in file, (long)arguments.Offset, (int)arguments.Whence);
        return result < 0 ? result : request.Reply(in result);
    }

    private long CopyRange(FuseRequest request)
    {
        if (!request.TryTake(out FuseCopyRange arguments) || arguments.Flags != 0 || arguments.Offset > long.MaxValue || arguments.TargetOffset > long.MaxValue)
            return -Errnos.Einval;
        if (Opening(request, arguments.Handle) is not { } source || _handles.Find(arguments.TargetHandle) is not { } target || target.Inode.Id != arguments.TargetNode)
            return -Errnos.Ebadf;
        const ulong most = 1UL << 30;   // at once: the guest asks again for what is left
        using HeldDescriptor from = source.Descriptor.Hold(), to = target.Descriptor.Hold();
        using var powers = BeginChange(Has(FuseFlags.HandleKillPrivileges2));
        int error = TakeCapabilitiesAway(target.Inode, in to);
        if (error < 0)
            return error;
        long result = OpenFileIo.CopyRange(in from, (long)arguments.Offset, in to, (long)arguments.TargetOffset, Math.Min(arguments.Length, most));
        return result < 0 ? result : request.Reply(new FuseWriteReply((uint)result, 0));
    }

    // Passes on only the requests of chattr(1) and lsattr(1). Any other could mean anything to the file's driver on the host, and the file's owner there has not agreed to it.
    private long Ioctl(FuseRequest request)
    {
        if (!request.TryTake(out FuseIoctl arguments))
            return -Errnos.Einval;
        if (Opening(request, arguments.Handle) is not { } opened)
            return -Errnos.Ebadf;
        bool isSet = arguments.Command == OpenFileIo.SetFlagsRequest.Number;
        // The long that the numbers speak of is an int.
        (IoctlRequest? command, int size) = arguments.Command switch
        {
            _ when isSet => (OpenFileIo.SetFlagsRequest, sizeof(int)),
            _ when arguments.Command == OpenFileIo.GetFlagsRequest.Number => (OpenFileIo.GetFlagsRequest, sizeof(int)),
            _ when arguments.Command == OpenFileIo.GetAttributesRequest.Number => (OpenFileIo.GetAttributesRequest, 28),
            _ => ((IoctlRequest?)null, 0),
        };
        if (command is null)
            return -Errnos.Enotty;
        if (isSet && Options.IsReadOnly)
            return -Errnos.Erofs;
        Span<byte> data = stackalloc byte[32];
        data.Clear();
        if (isSet && (!request.TryTakeBytes(sizeof(int), out ReadOnlySpan<byte> value) || !value.TryCopyTo(data)))
            return -Errnos.Einval;
        using HeldDescriptor file = opened.Descriptor.Hold();
        // Linux checks it since 5.13 (vfs_fileattr_set), which was the first with this flag. Such a guest knows more: CAP_FOWNER, and users of its namespaces.
        int error = isSet && !Has(FuseFlags.SetXattrExtension) ? CheckOwner(request, in file) : 0;
        if (error < 0 || (error = OpenFileIo.Request(in file, command.Value, data)) < 0)
            return error;
        int length = request.Reply(default(FuseIoctlReply));
        int count = isSet ? 0 : (int)Math.Min(Math.Min((uint)size, arguments.OutSize), (ulong)Math.Max(0, request.Room - length));
        data[..count].CopyTo(request.MakeReply(length + count)[length..]);
        return length + count;
    }
}
