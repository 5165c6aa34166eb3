using Vmm.Vhost.Native;

namespace Vmm.Vhost.User.Backend;

/// <summary>A thread that works rings: it waits for their kicks and for the descriptors of their handlers, and calls the handlers. Another
/// thread has a ring's work done here, too, between two turns (<see cref="Invoke"/>).</summary>
internal sealed class RingLoop : IDisposable
{
    private static readonly BoundedLog s_log = new("Vmm.Vhost.User.Backend");

    private readonly Lock _lock = new();
    private readonly EventFd _wake = new();
    private readonly List<RingRunner> _rings = [];
    private readonly Queue<Job> _jobs = [];
    private readonly VhostUserDevice _device;
    private readonly Thread _thread;
    private readonly int _pollMilliseconds;
    private PollEntry[] _entries = new PollEntry[1];
    private bool _hasJobs;
    private bool _isStopping;

    /// <summary>Starts the thread.</summary>
    /// <param name="name">The thread's name.</param>
    /// <param name="device">Whose rings it works.</param>
    /// <param name="pollInterval">How often a ring without a kick is looked at.</param>
    public RingLoop(string name, VhostUserDevice device, TimeSpan pollInterval)
    {
        _device = device;
        _pollMilliseconds = Math.Max(1, (int)pollInterval.TotalMilliseconds);
        _thread = new Thread(Run) { Name = name, IsBackground = true };
        try
        {
            NativeThread.Start(_thread);
        }
        catch
        {
            _wake.Dispose();   // there is no thread to be had
            throw;
        }
    }

    /// <summary>Has the thread do something between two turns, and waits until it is done.</summary>
    /// <remarks>Whatever <paramref name="action"/> throws, this throws.</remarks>
    public void Invoke(Action action)
    {
        using var job = new Job(action);
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_isStopping, this);
            _jobs.Enqueue(job);
            Volatile.Write(ref _hasJobs, true);
        }
        _wake.Signal();
        job.Wait();
    }

    /// <summary>Adds a ring; on the thread.</summary>
    public void Add(RingRunner ring) => _rings.Add(ring);

    /// <summary>Takes a ring away; on the thread.</summary>
    public void Remove(RingRunner ring) => _rings.Remove(ring);

    /// <summary>Ends the thread; no ring is left. Not from the thread.</summary>
    public void Dispose()
    {
        lock (_lock)
            _isStopping = true;
        _wake.Signal();
        _thread.Join();
        _wake.Dispose();
    }

    private void Run()
    {
        ServingThread.Enter(_device);
        try
        {
            while (true)
            {
                if (Volatile.Read(ref _hasJobs) && !DoJobs())
                    return;
                foreach (RingRunner ring in _rings)
                    ring.Work();
                if (Wait())
                    return;
            }
        }
        catch (Exception e)
        {
            // Nothing on this path throws but for a mistake here: it must not take the process along.
            s_log.Error(e, "{Thread}: {Error}: its rings stand still", _thread.Name, e.Message);
            FailJobs(e);
        }
    }

    // Whether the loop is to end.
    private bool Wait()
    {
        if (_entries.Length != 1 + 2 * _rings.Count)
            _entries = new PollEntry[1 + 2 * _rings.Count];
        int timeout = -1;
        for (int i = 0; i < _rings.Count; i++)
        {
            int limit = _rings[i].PrepareToWait(out FileDescriptor? kick, out FileDescriptor? ready);
            _entries[1 + 2 * i] = new PollEntry(kick, PollEvents.Readable);
            _entries[2 + 2 * i] = new PollEntry(ready, PollEvents.Readable);
            if (limit == RingRunner.Poll)
                limit = _pollMilliseconds;
            if (limit >= 0 && (timeout < 0 || limit < timeout))
                timeout = limit;
        }
        _entries[0] = new PollEntry(_wake, PollEvents.Readable);
        Native.Poll.Wait(_entries, timeout);
        for (int i = 0; i < _rings.Count; i++)
            _rings[i].Woken(_entries[1 + 2 * i].Happened, _entries[2 + 2 * i].Happened);
        if (_entries[0].Happened == PollEvents.None)
            return false;
        _wake.Drain();
        lock (_lock)
            return _isStopping && _jobs.Count == 0;
    }

    // False when the loop is to end.
    private bool DoJobs()
    {
        while (true)
        {
            Job job;
            lock (_lock)
            {
                if (_jobs.Count == 0)
                {
                    Volatile.Write(ref _hasJobs, false);
                    return !_isStopping;
                }
                job = _jobs.Dequeue();
            }
            job.Do();
        }
    }

    private void FailJobs(Exception reason)
    {
        lock (_lock)
        {
            _isStopping = true;
            while (_jobs.TryDequeue(out Job? job))
                job.Fail(reason);
        }
    }

    private sealed class Job(Action action) : IDisposable
    {
        private readonly ManualResetEventSlim _done = new();
        private Exception? _error;

        public void Do()
        {
            try
            {
                action();
            }
            catch (Exception e)
            {
                _error = e;
            }
            _done.Set();
        }

        public void Fail(Exception reason)
        {
            _error = reason;
            _done.Set();
        }

        public void Wait()
        {
            _done.Wait();
            if (_error is not null)
                throw new VhostException(_error.Message, _error);
        }

        public void Dispose() => _done.Dispose();
    }
}
