using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>Threads for requests that would hold up others. They are begun when there is something to do, and end with the device.</summary>
internal sealed class RequestPool(FuseServer server, int size) : IDisposable
{
    private const int StackSize = 256 * 1024;

    private readonly object _lock = new();
    private readonly Queue<FuseRequest> _waiting = [];
    private readonly List<Thread> _threads = [];
    private int _idle;
    private bool _isStopping;

    /// <summary>How many threads were begun.</summary>
    public int Count
    {
        get
        {
            lock (_lock)
                return _threads.Count;
        }
    }

    /// <summary>Has a thread do a request; its ring is told when it is done.</summary>
    /// <returns>False if there is no thread to be had.</returns>
    public bool TryAdd(FuseRequest request)
    {
        lock (_lock)
        {
            if (_isStopping || (_idle <= _waiting.Count && !TryStartThread()))
                return false;
            _waiting.Enqueue(request);
            if (_idle > 0)
                Monitor.Pulse(_lock);
            return true;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_lock)
        {
            _isStopping = true;
            Monitor.PulseAll(_lock);
        }
        foreach (Thread thread in _threads)
            thread.Join();
    }

    // Whether there is one that will do what is added, now or later.
    private bool TryStartThread()
    {
        if (_threads.Count >= size)
            return size > 0;
        var thread = new Thread(Work, StackSize) { Name = $"fs pool {_threads.Count}", IsBackground = true };
        try
        {
            NativeThread.Start(thread);
        }
        catch (ErrnoException)
        {
            return _threads.Count > 0;
        }
        _threads.Add(thread);
        return true;
    }

    private void Work()
    {
        KickGathering.BeginWorker();
        while (true)
        {
            FuseRequest request;
            lock (_lock)
            {
                while (_waiting.Count == 0)
                {
                    if (_isStopping)
                        return;
                    _idle++;
                    Monitor.Wait(_lock);
                    _idle--;
                }
                request = _waiting.Dequeue();
            }
            request.Rewind();
            request.Result = server.Execute(request, mayWait: true);
            request.Ring!.Done(request);
        }
    }
}
