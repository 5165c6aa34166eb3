using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>Requests that wait for a lock. One thread tries them again, now and then and when a guest gives a lock up: a thread for each would be as many as a guest
/// likes, and could not be called back when the device is to stop.</summary>
internal sealed class LockWaiters(FuseServer server) : IDisposable
{
    private const int Most = 4096;
    private const int MostEarly = 64;
    private const int EarlyMilliseconds = 2000;     // between an interrupt and its request, which another queue brings
    private const int MostSteps = 100_000;  // of the search for a deadlock: locks that are looked at
    private const int ShortestPause = 2, LongestPause = 50;     // milliseconds

    private readonly object _lock = new();
    private readonly List<Waiter> _waiting = [];
    private readonly List<Waiter> _tried = [];      // the thread's
    private readonly List<(ulong Unique, long Time)> _early = new(MostEarly);   // requests that were not here when they were interrupted
    private Thread? _thread;
    private bool _isStopping;
    private bool _hasNews;

    /// <summary>Adds a request; its ring is told when it is done.</summary>
    /// <param name="request">The request.</param>
    /// <param name="inode">The file.</param>
    /// <param name="wanted">The lock.</param>
    /// <returns>0; ENOLCK if too many wait; EDEADLK if the owner of the lock itself waits for the caller, so that neither would ever go on; EINTR if the guest has interrupted the
    /// request already, by another queue.</returns>
    public int Add(FuseRequest request, Inode inode, in FuseLock wanted)
    {
        lock (_lock)
        {
            if (_waiting.Count >= Most || _isStopping)
                return -Errnos.Enolck;
            if (WasInterrupted(request.Header.Unique))
                return -Errnos.Eintr;
            var waiter = new Waiter(request, inode, in wanted);
            if (IsDeadlock(waiter))
                return -Errnos.Edeadlk;
            if (_thread is null)
            {
                var thread = new Thread(Run, 256 * 1024) { Name = "fs locks", IsBackground = true };
                try
                {
                    NativeThread.Start(thread);
                }
                catch (ErrnoException)
                {
                    return -Errnos.Enolck;
                }
                _thread = thread;
            }
            _waiting.Add(waiter);
            Monitor.Pulse(_lock);
            return 0;
        }
    }

    /// <summary>A lock was given up: somebody may have it now. Does not wait for a try that is under way.</summary>
    public void LookNow()
    {
        lock (_lock)
        {
            if (_waiting.Count == 0)
                return;
            _hasNews = true;
            Monitor.Pulse(_lock);
        }
    }

    /// <summary>The guest does not want the answer to a request any more: it ends with EINTR, if it waits here, or comes here later. FUSE lets a server answer EAGAIN where it does not know the request, so
    /// that the guest asks again. A virtio-fs device has no room for that answer.</summary>
    public void Interrupt(ulong unique)
    {
        Waiter found;
        lock (_lock)
        {
            int index = _waiting.FindIndex(waiter => waiter.Request.Header.Unique == unique);
            if (index < 0)
            {
                if (_early.Count == MostEarly)
                    _early.RemoveAt(0);
                _early.Add((unique, Environment.TickCount64));
                return;
            }
            if (!TryTakeAway(_waiting[index], -Errnos.Eintr))
                return;
            found = _waiting[index];
            _waiting.RemoveAt(index);
        }
        found.LetGo();
        found.Request.Result = -Errnos.Eintr;
        found.Request.Ring!.Done(found.Request);
    }

    /// <summary>Takes away all requests of a ring. One for which the lock is being asked for comes back by itself, with <see cref="FuseServer.Waits"/> if somebody else still has it.</summary>
    public IReadOnlyList<FuseRequest> Remove(FileSystemRing ring)
    {
        List<Waiter> taken;
        lock (_lock)
            taken = TakeAway(waiter => waiter.Request.Ring == ring, FuseServer.Waits);
        foreach (Waiter waiter in taken)
            waiter.LetGo();
        return taken.ConvertAll(waiter => waiter.Request);
    }

    /// <summary>All requests end with ENOLCK: what they wait for is gone.</summary>
    public void Clear()
    {
        List<Waiter> all;
        lock (_lock)
        {
            all = TakeAway(_ => true, -Errnos.Enolck);
            _early.Clear();
        }
        foreach (Waiter waiter in all)
        {
            waiter.LetGo();
            waiter.Request.Result = -Errnos.Enolck;
            waiter.Request.Ring!.Done(waiter.Request);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Thread? thread;
        lock (_lock)
        {
            _isStopping = true;
            thread = _thread;
            Monitor.Pulse(_lock);
        }
        thread?.Join();
    }

    private void Run()
    {
        KickGathering.BeginWorker();
        int pause = ShortestPause;
        while (true)
        {
            lock (_lock)
            {
                while (_waiting.Count == 0 && !_isStopping)
                    Monitor.Wait(_lock);
                if (!_isStopping && !_hasNews)
                    Monitor.Wait(_lock, pause);
                if (_isStopping)
                    return;
                _hasNews = false;
            }
            pause = TryAll() ? ShortestPause : Math.Min(2 * pause, LongestPause);
        }
    }

    // Whether one of them is done. The order is that in which they came.
    private bool TryAll()
    {
        bool isAnyDone = false;
        lock (_lock)
            _tried.AddRange(_waiting);
        foreach (Waiter waiter in _tried)
        {
            FuseRequest request = waiter.Request;
            lock (_lock)
            {
                if (waiter.IsAway)
                    continue;
                waiter.IsTried = true;
            }
            // Outside of this object's lock: the try does not wait for the owner of the file's lock, but a file server may take long to answer.
            long result = server.TryLockAgain(request);
            lock (_lock)
            {
                waiter.IsTried = false;
                if (result == -Errnos.Eagain && waiter.End is null)
                    continue;
                request.Result = result == -Errnos.Eagain ? waiter.End!.Value : result;
                waiter.IsAway = true;
                _waiting.Remove(waiter);
            }
            if (result != 0)
                waiter.LetGo();
            request.Ring!.Done(request);
            isAnyDone = true;
        }
        _tried.Clear();
        return isAnyDone;
    }

    // Under the lock. An interrupt of a request that was answered is remembered, too: it must not end a later request that has the same number.
    private bool WasInterrupted(ulong unique)
    {
        long oldest = Environment.TickCount64 - EarlyMilliseconds;
        return _early.RemoveAll(early => early.Unique == unique && early.Time >= oldest) > 0;
    }

    // Under the lock. False where the thread is trying at this moment: it notes how the request ends if it does not get its lock.
    private static bool TryTakeAway(Waiter waiter, long end)
    {
        if (waiter.IsTried)
        {
            waiter.End = end;
            return false;
        }
        waiter.IsAway = true;
        return true;
    }

    private List<Waiter> TakeAway(Func<Waiter, bool> isMeant, long end)
    {
        var taken = new List<Waiter>();
        foreach (Waiter waiter in _waiting.Where(isMeant))
        {
            if (TryTakeAway(waiter, end))
                taken.Add(waiter);
        }
        _waiting.RemoveAll(waiter => waiter.IsAway);
        return taken;
    }

    // Under the lock. Whether the owners of the wanted range wait for the asker, at once or by way of other owners: none of them would ever go on (EDEADLK of fcntl(2)). This class does not
    // know the locks of programs of the host. It leaves out locks of whole files, as the kernel does.
    private bool IsDeadlock(Waiter asker)
    {
        int steps = MostSteps;
        var all = new HashSet<ulong>();
        AddBlockers(asker, all, ref steps);
        for (int before = 0; all.Count > before && steps > 0;)
        {
            if (all.Contains(asker.Owner))
                return true;
            before = all.Count;
            foreach (Waiter waiter in _waiting)
            {
                if (all.Contains(waiter.Owner))
                    AddBlockers(waiter, all, ref steps);
            }
        }
        return false;
    }

    private static void AddBlockers(Waiter waiter, HashSet<ulong> blockers, ref int steps)
    {
        steps--;
        if (waiter.IsOfRange)
            waiter.Inode.Locks?.AddBlockers(waiter.Owner, in waiter.Range, blockers, ref steps);
    }

    private sealed class Waiter
    {
        public readonly RangeLockRequest Range;

        public Waiter(FuseRequest request, Inode inode, in FuseLock wanted)
        {
            (Request, Inode, Owner) = (request, inode, wanted.Owner);
            IsOfRange = (wanted.Flags & FuseLock.IsFlock) == 0 && FuseServer.IsRange(in wanted, out Range);
        }

        public FuseRequest Request { get; }

        public Inode Inode { get; }

        public ulong Owner { get; }

        public bool IsOfRange { get; }

        // Whether the thread asks for its lock at this moment.
        public bool IsTried { get; set; }

        // Whether it waits no more.
        public bool IsAway { get; set; }

        // How it ends if the try does not give it its lock; null where it waits on.
        public long? End { get; set; }

        // It ends without the lock that it asked for. Outside of the lock of LockWaiters: this may ask a file server.
        public void LetGo()
        {
            if (IsOfRange)
                Inode.Locks?.RemoveIdle(Owner);
        }
    }
}
