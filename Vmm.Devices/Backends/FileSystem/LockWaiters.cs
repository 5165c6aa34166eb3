using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>Requests that wait for a lock. One thread tries them again, now and then and when a guest gives a lock up: a thread for each would be as many as a guest
/// likes, and could not be called back when the device is to stop.</summary>
internal sealed class LockWaiters(FuseServer server) : IDisposable
{
    private const int Most = 4096;
    private const int MostSteps = 100_000;  // of the search for a deadlock: locks that are looked at
    private const int ShortestPause = 2, LongestPause = 50;     // milliseconds

    private readonly object _lock = new();
    private readonly List<Waiter> _waiting = [];
    private Thread? _thread;
    private bool _isStopping;
    private bool _hasNews;

    /// <summary>Adds a request; its ring is told when it is done.</summary>
    /// <param name="request">The request.</param>
    /// <param name="inode">The file.</param>
    /// <param name="wanted">The lock.</param>
    /// <returns>0; ENOLCK if too many wait; EDEADLK if who has the lock waits for who asks.</returns>
    public int Add(FuseRequest request, Inode inode, in FuseLock wanted)
    {
        lock (_lock)
        {
            if (_waiting.Count >= Most || _isStopping)
                return -Errnos.Enolck;
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

    /// <summary>A lock was given up: somebody may have it now.</summary>
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

    /// <summary>The guest does not want the answer to a request any more: it ends with EINTR, if it waits here.</summary>
    public void Interrupt(ulong unique)
    {
        FuseRequest found;
        lock (_lock)
        {
            int index = _waiting.FindIndex(waiter => waiter.Request.Header.Unique == unique);
            if (index < 0)
                return;
            found = _waiting[index].Request;
            _waiting.RemoveAt(index);
        }
        found.Result = -Errnos.Eintr;
        found.Ring!.Done(found);
    }

    /// <summary>Takes away all requests of a ring.</summary>
    public IReadOnlyList<FuseRequest> Remove(FileSystemRing ring)
    {
        lock (_lock)
        {
            FuseRequest[] removed = [.. _waiting.Select(waiter => waiter.Request).Where(request => request.Ring == ring)];
            _waiting.RemoveAll(waiter => waiter.Request.Ring == ring);
            return removed;
        }
    }

    /// <summary>All requests end with ENOLCK: what they wait for is gone.</summary>
    public void Clear()
    {
        FuseRequest[] all;
        lock (_lock)
        {
            all = [.. _waiting.Select(waiter => waiter.Request)];
            _waiting.Clear();
        }
        foreach (FuseRequest request in all)
        {
            request.Result = -Errnos.Enolck;
            request.Ring!.Done(request);
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
        for (int i = 0; ; i++)
        {
            FuseRequest request;
            lock (_lock)
            {
                if (i >= _waiting.Count)
                    return isAnyDone;
                request = _waiting[i].Request;
                // Under the lock: a request that is taken away meanwhile must not get its lock. No try waits.
                long result = server.TryLockAgain(request);
                if (result == -Errnos.Eagain)
                    continue;
                request.Result = result;
                _waiting.RemoveAt(i--);
            }
            request.Ring!.Done(request);
            isAnyDone = true;
        }
    }
    // Under the lock. Whether those who have the lock wait, for one another or at once, for who asks: none of them would ever go on (EDEADLK of fcntl(2)). Programs of the host's are not
    // known here, nor are locks of whole files, for which the kernel does not look either.
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
    }
}
