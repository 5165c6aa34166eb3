using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <content>Locks: those of ranges (fcntl(2)) and of whole files (flock(2)). They are taken on the host, so that they hold against its programs, too.</content>
internal sealed partial class FuseServer
{
    private readonly LockWaiters _waiters;
    private RangeCount _ranges = new();

    /// <summary>Tries once more to take the lock that a request waits for.</summary>
    /// <returns>As <see cref="Execute"/>; EAGAIN if somebody else still has it.</returns>
    public long TryLockAgain(FuseRequest request)
    {
        request.Rewind();
        try
        {
            if (FindFile(request) is not { } inode)
                return -Errnos.Ebadf;
            return request.TryTake(out FuseLock arguments) ? TakeLock(request, inode, in arguments, waits: true) : -Errnos.Einval;
        }
        catch (ObjectDisposedException)
        {
            return -Errnos.Ebadf;
        }
    }

    /// <summary>Waits no more for locks on behalf of a ring: it is about to stop.</summary>
    /// <returns>The requests that waited.</returns>
    public IReadOnlyList<FuseRequest> GiveUpWaiting(FileSystemRing ring) => _waiters.Remove(ring);

    // A guest that may change nothing must not block others by locks either: its kernel keeps its locks to itself then.
    private bool HasHostLocks(bool isFlock) => (isFlock ? Options.FlockLocks : Options.PosixLocks) && !Options.IsReadOnly;

    private long GetLock(FuseRequest request, Inode inode)
    {
        if (!HasHostLocks(isFlock: false))
            return -Errnos.Enosys;
        if (!request.TryTake(out FuseLock arguments) || !IsRange(in arguments, out RangeLockRequest range) || range.Type == OpenFileIo.Unlock)
            return -Errnos.Einval;
        if (Opening(request, arguments.Handle) is null)
            return -Errnos.Ebadf;
        RangeLocks locks = LocksOf(inode);
        int error = BeginLocking(inode, locks, arguments.Owner, out RangeLocks.Owner? owner);
        if (error < 0)
            return error;
        uint process;
        try
        {
            error = locks.Get(owner!, ref range, out process);
        }
        finally
        {
            locks.End(owner!, waits: false);
        }
        if (error < 0)
            return error;
        ulong end = range.Length == 0 ? long.MaxValue : (ulong)range.Start + (ulong)range.Length - 1;
        return request.Reply(new FuseLockReply((ulong)range.Start, end, (uint)range.Type, process));
    }

    private long SetLock(FuseRequest request, Inode inode, bool waits)
    {
        if (!request.TryTake(out FuseLock arguments))
            return -Errnos.Einval;
        if (!HasHostLocks((arguments.Flags & FuseLock.IsFlock) != 0))
            return -Errnos.Enosys;
        waits = waits && request.Ring is not null;
        long result = TakeLock(request, inode, in arguments, waits);
        if (result != -Errnos.Eagain || !waits)
        {
            // Somebody may wait for what was just given up.
            if (result == 0 && arguments.Type == (uint)OpenFileIo.Unlock)
                _waiters.LookNow();
            return result;
        }
        int error = _waiters.Add(request, inode, in arguments);
        if (error == 0)
            return Waits;
        inode.Locks?.RemoveIdle(arguments.Owner);
        return error;
    }

    // If somebody else has the lock, and the request waits for that, the owner's opening stays for the next try.
    private long TakeLock(FuseRequest request, Inode inode, in FuseLock arguments, bool waits)
    {
        // Asked for each time: a request that waits must not get its lock when the file is closed.
        if (Opening(request, arguments.Handle) is not { } opened)
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
        if (range.Type == OpenFileIo.Unlock && inode.Locks is null)
            return 0;
        RangeLocks locks = LocksOf(inode);
        RangeLocks.Owner? owner;
        int error = 0;
        if (range.Type == OpenFileIo.Unlock)
            owner = locks.Begin(arguments.Owner);
        else
            error = BeginLocking(inode, locks, arguments.Owner, out owner);
        if (owner is null)
            return error;       // 0 for one that has no lock to give up
        bool isKept = false;
        try
        {
            error = locks.Set(owner, arguments.Process, in range);
            isKept = waits && error == -Errnos.Eagain;
        }
        finally
        {
            locks.End(owner, isKept);
        }
        // Another queue may have ended the file's last opening meanwhile, and given up the locks that there were then.
        if (error == 0 && range.Type != OpenFileIo.Unlock && Opening(request, arguments.Handle) is null)
        {
            ReleaseLocks(inode, arguments.Owner);
            return -Errnos.Ebadf;
        }
        return error;
    }

    private RangeLocks LocksOf(Inode inode)
    {
        if (inode.Locks is null)
            Interlocked.CompareExchange(ref inode.Locks, new RangeLocks(_ranges), null);
        return inode.Locks;
    }

    // Each owner of locks in the guest has an opening of the file of his own, as long as he has a lock, waits for one or asks for one.
    private int BeginLocking(Inode inode, RangeLocks locks, ulong id, out RangeLocks.Owner? owner)
    {
        owner = locks.Begin(id);
        if (owner is not null)
            return 0;
        if (!inode.IsRegular)
            return -Errnos.Ebadf;
        using HeldDescriptor path = _inodes.Hold(inode, out int error);
        if (error < 0)
            return error;
        // To lock for writing one must be able to write. EAGAIN is for a file on which a program of the host's has a lease (F_SETLEASE): a guest that may write to it has ended that already.
        error = Reopen(in path, FileTree.ReadWrite | FileTree.NonBlocking, out FileDescriptor? file);
        if (error is -Errnos.Eacces or -Errnos.Erofs or -Errnos.Eperm or -Errnos.Etxtbsy or -Errnos.Eagain)
            error = Reopen(in path, FileTree.NonBlocking, out file);
        if (error == 0)
            owner = locks.Begin(id, file!);
        return error;
    }

    private void ReleaseLocks(Inode inode, ulong owner)
    {
        if (inode.Locks?.Remove(owner) == true)
            _waiters.LookNow();
    }

    /// <summary>The range of a lock as the host says it.</summary>
    /// <returns>False if it is none.</returns>
    public static bool IsRange(in FuseLock arguments, out RangeLockRequest range)
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
