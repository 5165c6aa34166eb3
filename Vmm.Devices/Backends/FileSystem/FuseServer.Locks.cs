using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <content>Locks: those of ranges (fcntl(2)) and of whole files (flock(2)). They are taken on the host, so that they hold against its programs, too.</content>
internal sealed partial class FuseServer
{
    private readonly LockWaiters _waiters;

    /// <summary>Tries once more to take the lock that a request waits for.</summary>
    /// <returns>As <see cref="Execute"/>; EAGAIN if somebody else still has it.</returns>
    public long TryLockAgain(FuseRequest request)
    {
        request.Rewind();
        try
        {
            return request.TryTake(out FuseLock arguments) && _inodes.Find(request.Header.Node) is { } inode ? TakeLock(inode, in arguments) : -Errnos.Einval;
        }
        catch (ObjectDisposedException)
        {
            return -Errnos.Ebadf;
        }
    }

    /// <summary>Waits no more for locks on behalf of a ring: it is about to stop.</summary>
    /// <returns>The requests that waited.</returns>
    public IReadOnlyList<FuseRequest> GiveUpWaiting(FileSystemRing ring) => _waiters.Remove(ring);

    // Who may change nothing may hold up nobody either: the guest's kernel keeps locks to itself then.
    private bool HasHostLocks => Options.HostLocks && !Options.IsReadOnly;

    private long GetLock(FuseRequest request, Inode inode)
    {
        if (!HasHostLocks)
            return -Errnos.Enosys;
        if (!request.TryTake(out FuseLock arguments) || !IsRange(in arguments, out RangeLockRequest range) || range.Type == OpenFileIo.Unlock)
            return -Errnos.Einval;
        if (_handles.Find(arguments.Handle) is not { } opened || opened.Inode != inode)
            return -Errnos.Ebadf;
        int error = FindLockFile(inode, arguments.Owner, makes: true, out FileDescriptor? file);
        if (error < 0)
            return error;
        using HeldDescriptor held = file!.Hold();
        if ((error = OpenFileIo.GetLock(in held, ref range)) < 0)
            return error;
        ulong end = range.Length == 0 ? long.MaxValue : (ulong)range.Start + (ulong)range.Length - 1;
        return request.Reply(new FuseLockReply((ulong)range.Start, end, (uint)range.Type, range.Process > 0 ? (uint)range.Process : 0));
    }

    private long SetLock(FuseRequest request, Inode inode, bool waits)
    {
        if (!HasHostLocks)
            return -Errnos.Enosys;
        if (!request.TryTake(out FuseLock arguments))
            return -Errnos.Einval;
        long result = TakeLock(inode, in arguments);
        if (result != -Errnos.Eagain || !waits || request.Ring is null)
        {
            // Somebody may wait for what was just given up.
            if (result == 0 && arguments.Type == (uint)OpenFileIo.Unlock)
                _waiters.LookNow();
            return result;
        }
        return _waiters.TryAdd(request) ? Waits : -Errnos.Enolck;
    }

    private long TakeLock(Inode inode, in FuseLock arguments)
    {
        // Asked for each time: a request that waits must not get its lock when the file is closed.
        if (_handles.Find(arguments.Handle) is not { } opened || opened.Inode != inode)
            return -Errnos.Ebadf;
        if ((arguments.Flags & FuseLock.IsFlock) != 0)
        {
            int operation = arguments.Type switch
            {
                (uint)OpenFileIo.ReadLock => OpenFileIo.FlockShared,
                (uint)OpenFileIo.WriteLock => OpenFileIo.FlockExclusive,
                (uint)OpenFileIo.Unlock => OpenFileIo.FlockUnlock,
                _ => 0,
            };
            using HeldDescriptor file = opened.Descriptor.Hold();
            return operation == 0 ? -Errnos.Einval : OpenFileIo.Flock(in file, operation | OpenFileIo.FlockNonBlocking);
        }
        if (!IsRange(in arguments, out RangeLockRequest range))
            return -Errnos.Einval;
        int error = FindLockFile(inode, arguments.Owner, makes: range.Type != OpenFileIo.Unlock, out FileDescriptor? lockFile);
        if (error < 0 || lockFile is null)
            return error;
        using HeldDescriptor held = lockFile.Hold();
        return OpenFileIo.SetLock(in held, in range);
    }

    // Each owner of locks in the guest has an opening of the file of his own: to that the host's locks belong. Null where there is none and none is made.
    private int FindLockFile(Inode inode, ulong owner, bool makes, out FileDescriptor? file)
    {
        file = null;
        Dictionary<ulong, FileDescriptor>? locks = inode.Locks;
        if (locks is null)
        {
            if (!makes)
                return 0;
            Interlocked.CompareExchange(ref inode.Locks, [], null);
            locks = inode.Locks!;
        }
        lock (locks)
        {
            if (locks.TryGetValue(owner, out file) || !makes)
                return 0;
        }
        if (!inode.IsRegular)
            return -Errnos.Ebadf;
        using HeldDescriptor path = _inodes.Hold(inode, out int error);
        if (error < 0)
            return error;
        // To lock for writing one must be able to write.
        error = Reopen(in path, FileTree.ReadWrite | FileTree.NonBlocking, out file);
        if (error is -Errnos.Eacces or -Errnos.Erofs or -Errnos.Eperm or -Errnos.Etxtbsy && (error = Reopen(in path, FileTree.NonBlocking, out file)) < 0)
            return error;
        if (error < 0)
            return error;
        lock (locks)
        {
            if (!locks.TryAdd(owner, file!))
            {
                file!.Dispose();
                file = locks[owner];
            }
        }
        return 0;
    }

    private void ReleaseLocks(Inode inode, ulong owner)
    {
        if (inode.Locks is not { } locks)
            return;
        FileDescriptor? file;
        lock (locks)
        {
            if (!locks.Remove(owner, out file))
                return;
        }
        file.Dispose();
        _waiters.LookNow();
    }

    private static bool IsRange(in FuseLock arguments, out RangeLockRequest range)
    {
        range = default;
        if (arguments.Start > long.MaxValue || arguments.End < arguments.Start || arguments.Type > (uint)OpenFileIo.Unlock)
            return false;
        range.Type = (short)arguments.Type;
        range.Start = (long)arguments.Start;
        range.Length = arguments.End >= long.MaxValue ? 0 : (long)(arguments.End - arguments.Start + 1);
        return true;
    }
}
