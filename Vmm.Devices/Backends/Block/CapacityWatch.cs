using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Block;

/// <summary>Looks every second whether an image has another size, on a thread of its own. That is one lseek(2); inotify(7) would report each write of the
/// guest too.</summary>
internal sealed class CapacityWatch(string path, Action look) : IDisposable
{
    private const int Interval = 1000;      // ms

    private static readonly BoundedLog s_log = new("Vmm.Devices.Backends.Block");

    private readonly Lock _lock = new();
    private readonly EventFd _wake = new();
    private Thread? _thread;
    private bool _hasReported;
    private volatile bool _isStopping;

    /// <summary>Begins, unless it has begun already. For one thread.</summary>
    /// <exception cref="ErrnoException">The host allows no more threads; it may be tried again.</exception>
    public void Start()
    {
        if (_thread is not null)
            return;
        var thread = new Thread(Run) { Name = $"{path} size", IsBackground = true };
        NativeThread.Start(thread);
        _thread = thread;   // one that never ran is not waited for
    }

    /// <summary>Has it look at once, from any thread, at any time.</summary>
    public void LookNow()
    {
        lock (_lock)
        {
            if (!_isStopping)
                _wake.Signal();
        }
    }

    /// <summary>Ends it.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            if (!_isStopping)
            {
                // First, or the thread wakes, sees that it goes on, and sleeps for another second.
                _isStopping = true;
                _wake.Signal();
            }
        }
        _thread?.Join();
        _wake.Dispose();
    }

    private void Run()
    {
        while (!_isStopping)
        {
            Poll.Wait([new PollEntry(_wake, PollEvents.Readable)], Interval);
            _wake.Drain();
            if (!_isStopping)
                Look();
        }
    }

    private void Look()
    {
        try
        {
            look();
            _hasReported = false;
        }
        catch (Exception e) when (e is VhostException or IOException)
        {
            // A front-end that has just gone is the usual cause; the next one reads the configuration by itself.
            if (!_hasReported)
                s_log.Debug("{Path}: {Error}", path, e.Message);
            _hasReported = true;
        }
    }
}
