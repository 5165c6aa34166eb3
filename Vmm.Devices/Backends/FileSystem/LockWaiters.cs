using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>Requests that wait for a lock. One thread tries them again, now and then and when a guest gives a lock up: a thread for each would be as many as a guest
/// likes, and could not be called back when the device is to stop.</summary>
internal sealed class LockWaiters(FuseServer server) : IDisposable
{
    private const int Most = 4096;
    private const int ShortestPause = 2, LongestPause = 50;     // milliseconds

    private readonly object _lock = new();
    private readonly List<FuseRequest> _waiting = [];
    private Thread? _thread;
    private bool _isStopping;
    private bool _hasNews;

    /// <summary>Adds a request; its ring is told when it is done.</summary>
    /// <returns>False if too many wait.</returns>
    public bool TryAdd(FuseRequest request)
    {
        lock (_lock)
        {
            if (_waiting.Count >= Most || _isStopping)
                return false;
            if (_thread is null)
            {
                var thread = new Thread(Run, 256 * 1024) { Name = "fs locks", IsBackground = true };
                try
                {
                    NativeThread.Start(thread);
                }
                catch (ErrnoException)
                {
                    return false;
                }
                _thread = thread;
            }
            _waiting.Add(request);
            Monitor.Pulse(_lock);
            return true;
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
        FuseRequest? found;
        lock (_lock)
        {
            found = _waiting.Find(request => request.Header.Unique == unique);
            if (found is null)
                return;
            _waiting.Remove(found);
        }
        found.Result = -Errnos.Eintr;
        found.Ring!.Done(found);
    }

    /// <summary>Takes away all requests of a ring.</summary>
    public IReadOnlyList<FuseRequest> Remove(FileSystemRing ring)
    {
        lock (_lock)
        {
            FuseRequest[] removed = [.. _waiting.Where(request => request.Ring == ring)];
            _waiting.RemoveAll(request => request.Ring == ring);
            return removed;
        }
    }

    /// <summary>All requests end with EINTR: what they wait for is gone.</summary>
    public void Clear()
    {
        FuseRequest[] all;
        lock (_lock)
        {
            all = [.. _waiting];
            _waiting.Clear();
        }
        foreach (FuseRequest request in all)
        {
            request.Result = -Errnos.Eintr;
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
                request = _waiting[i];
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
}
