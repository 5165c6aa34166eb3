using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Block;

/// <summary>The engine by threads, which are begun when there is something to do. Where the host has none to give, the ring's thread does it.</summary>
internal sealed class ThreadEngine : BlockEngine
{
    private const int MaxThreads = 8;
    private const int StackSize = 256 * 1024;

    private readonly EventFd _ready;
    private readonly object _lock = new();
    private readonly BlockRequest[] _submitted;     // by the ring's thread alone, until Push
    private readonly BlockRequest[] _waiting;       // a ring
    private readonly BlockRequest[] _done;
    private readonly BlockRequest[] _taken;         // by the ring's thread alone
    private readonly List<Thread> _threads = [];
    private int _submittedCount;
    private int _waitingFirst;
    private int _waitingCount;
    private int _doneCount;
    private int _takenCount;
    private int _idle;
    private bool _isArmed;
    private bool _isStopping;

    /// <summary>An engine for at most <paramref name="size"/> requests at a time, which signals <paramref name="ready"/>.</summary>
    /// <param name="image">The image that it works on.</param>
    /// <param name="size">Requests at a time.</param>
    /// <param name="ready">To be signalled when something is done.</param>
    /// <param name="startsNow">Whether the first thread begins at once, because the ring's thread may not wait for blocks of the image's
    /// <see cref="RangeLock"/>: it has some itself.</param>
    /// <exception cref="ErrnoException">The host allows no more threads, and one was to begin at once.</exception>
    public ThreadEngine(BlockImage image, int size, EventFd ready, bool startsNow = false)
        : base(image)
    {
        _ready = ready;
        _submitted = new BlockRequest[size];
        _waiting = new BlockRequest[size];
        _done = new BlockRequest[size];
        _taken = new BlockRequest[size];
        if (startsNow)
            StartThread();
    }

    /// <inheritdoc/>
    public override void Submit(BlockRequest request) => _submitted[_submittedCount++] = request;

    /// <inheritdoc/>
    public override void Push()
    {
        if (_submittedCount == 0)
            return;
        lock (_lock)
        {
            for (int i = 0; i < _submittedCount; i++)
                _waiting[(_waitingFirst + _waitingCount++) % _waiting.Length] = _submitted[i];
            for (int i = 0; i < Math.Min(_submittedCount, _idle); i++)
                Monitor.Pulse(_lock);
            for (int i = _idle; i < _waitingCount && _threads.Count < MaxThreads; i++)
            {
                try
                {
                    StartThread();
                }
                catch (ErrnoException)
                {
                    break;   // those that are there do it all, one after the other
                }
            }
        }
        _submittedCount = 0;
        if (_threads.Count == 0)
            ExecuteHere();
    }

    /// <inheritdoc/>
    public override bool TryTake(out BlockRequest request)
    {
        if (_takenCount == 0 && Volatile.Read(ref _doneCount) > 0)
        {
            lock (_lock)
            {
                _takenCount = _doneCount;
                Array.Copy(_done, _taken, _doneCount);
                _doneCount = 0;
            }
        }
        if (_takenCount == 0)
        {
            request = null!;
            return false;
        }
        request = _taken[--_takenCount];
        return true;
    }

    /// <inheritdoc/>
    public override void CancelWaiting()
    {
        lock (_lock)
        {
            for (; _waitingCount > 0; _waitingCount--)
            {
                BlockRequest request = _waiting[_waitingFirst];
                _waitingFirst = (_waitingFirst + 1) % _waiting.Length;
                request.Result = -Errnos.Ecanceled;
                _done[_doneCount++] = request;
            }
        }
    }

    /// <inheritdoc/>
    public override bool Arm()
    {
        lock (_lock)
        {
            _isArmed = true;
            return _doneCount + _takenCount == 0;
        }
    }

    /// <inheritdoc/>
    public override void Disarm()
    {
        lock (_lock)
            _isArmed = false;
    }

    /// <summary>Ends the threads; what they do they finish.</summary>
    public override void Dispose()
    {
        lock (_lock)
        {
            _isStopping = true;
            Monitor.PulseAll(_lock);
        }
        foreach (Thread thread in _threads)
            thread.Join();
    }

    // There is no thread that could do it meanwhile.
    private void ExecuteHere()
    {
        for (; _waitingCount > 0; _waitingCount--)
        {
            BlockRequest request = _waiting[_waitingFirst];
            _waitingFirst = (_waitingFirst + 1) % _waiting.Length;
            Execute(Image, request);
            _done[_doneCount++] = request;
        }
    }

    private void StartThread()
    {
        var thread = new Thread(Work, StackSize) { Name = "block I/O", IsBackground = true };
        NativeThread.Start(thread);
        _threads.Add(thread);
    }

    private void Work()
    {
        KickGathering.BeginWorker();
        while (true)
        {
            BlockRequest request;
            lock (_lock)
            {
                while (_waitingCount == 0)
                {
                    if (_isStopping)
                        return;
                    _idle++;
                    Monitor.Wait(_lock);
                    _idle--;
                }
                request = _waiting[_waitingFirst];
                _waitingFirst = (_waitingFirst + 1) % _waiting.Length;
                _waitingCount--;
            }
            Execute(Image, request);
            lock (_lock)
            {
                _done[_doneCount++] = request;
                if (!_isArmed)
                    continue;
                _isArmed = false;
            }
            _ready.Signal();
        }
    }
}
