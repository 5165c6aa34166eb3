using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>Works the requests of one ring: does at once what does not wait, and gives the rest to the <see cref="RequestPool"/>.</summary>
internal sealed class FileSystemRing(FuseServer server, RequestPool pool, int processors) : IRingHandler
{
    private const int Batch = 8;        // completions before it is considered to call the driver
    private const int MostLarge = 32;   // requests that keep much memory: so many wait for other threads, and so many are kept to be used again

    private readonly EventFd _ready = new();
    private readonly Lock _lock = new();
    private readonly List<FuseRequest> _done = [];      // by other threads
    private readonly Stack<FuseRequest> _free = [];
    private readonly LargeBuffers _large = new();
    private readonly BusyPoll _poll = new(processors);
    private readonly KickGathering _gathering = new(processors);
    private FuseRequest[] _taken = [];
    private int _takenCount;
    private volatile bool _hasDone;
    private int _pending;
    private int _largePending;
    private int _largeFree;
    private int _uncalled;

    /// <inheritdoc/>
    public FileDescriptor? Ready => _pending > 0 ? _ready : null;

    /// <summary>Requests that are kept to be used again, and those of them that keep much memory.</summary>
    public (int All, int Large) Kept => (_free.Count, _largeFree);

    /// <summary>Another thread has done a request.</summary>
    public void Done(FuseRequest request)
    {
        lock (_lock)
        {
            _done.Add(request);
            if (_hasDone)
                return;
            _hasDone = true;
            _ready.Signal();
        }
    }

    /// <inheritdoc/>
    public void Process(BackendRing ring)
    {
        _poll.Begin();
        while (true)
        {
            int done = Work(ring);
            if (done > 0)
                _gathering.Count(done);
            if (ring.IsTurnOver)
                return;
            if (done > 0)
                _poll.Restart();
            else if (!_poll.ShouldGoOn())
                break;
        }
        _poll.End();
    }

    /// <inheritdoc/>
    public void Drain(BackendRing ring)
    {
        foreach (FuseRequest request in server.GiveUpWaiting(this))
        {
            End(request);
            GiveUp(ring, request);
        }
        while (_pending > 0)
        {
            if (Reap(ring) == 0)
                Poll.Wait([new PollEntry(_ready, PollEvents.Readable)], -1);
        }
        ring.Notify();
    }

    /// <inheritdoc/>
    public void Dispose() => _ready.Dispose();

    private void Begin(BackendRing ring, ref readonly DescriptorChain chain)
    {
        FuseRequest request = Take();
        long result = request.Load(in chain);
        // The process before this one may have done the request already. To forget a file twice is unsafe. An error is safe: the guest can look at what was done.
        bool isLeft = ring.IsLatestLeft;
        if (result == 0 && isLeft)
            server.TakeBack(request);
        if (result == 0 && isLeft && server.IsForOnce(request))
            result = -Errnos.Eio;
        if (result == 0 && (FuseServer.HasReply(request.Header.Opcode) || !isLeft))
        {
            // Before anybody else can say that it is done.
            _pending++;
            if (request.IsLarge)
                _largePending++;
            result = server.Execute(request, mayWait: false);
            if (result == FuseServer.Waits || (result == FuseServer.NeedsThread && _largePending <= MostLarge && pool.TryAdd(request)))
                return;
            End(request);
            if (result == FuseServer.NeedsThread)
            {
                request.Rewind();
                result = server.Execute(request, mayWait: true);
            }
        }
        request.Result = result;
        Complete(ring, request);
    }

    private int Reap(BackendRing ring)
    {
        if (!_hasDone)
            return 0;
        lock (_lock)
        {
            // The eventfd is readable exactly as long as a request is in the list: both change under the lock.
            _hasDone = false;
            _ready.Drain();
            if (_taken.Length < _done.Count)
                _taken = new FuseRequest[2 * _done.Count];
            _done.CopyTo(_taken);
            _takenCount = _done.Count;
            _done.Clear();
        }
        for (int i = 0; i < _takenCount; i++)
        {
            End(_taken[i]);
            if (_taken[i].Result == FuseServer.Waits)
                GiveUp(ring, _taken[i]);
            else
                Complete(ring, _taken[i]);
        }
        Array.Clear(_taken, 0, _takenCount);
        return _takenCount;
    }

    // A request that has waited for a lock, when the ring is to stop.
    private void GiveUp(BackendRing ring, FuseRequest request)
    {
        // With an in-flight log, the request is left to that log, and waits again when the ring goes on.
        if (ring.MayLeave)
        {
            Free(request);
            return;
        }
        // Not EINTR: where no signal is pending, Linux makes an error of it that no program knows.
        request.Result = -Errnos.Enolck;
        Complete(ring, request);
    }

    private void Complete(BackendRing ring, FuseRequest request)
    {
        ring.Complete(request.Head, request.Finish());
        Free(request);
        if (++_uncalled >= Batch)
            Call(ring);
    }

    // How much was done: requests begun and requests ended.
    private int Work(BackendRing ring)
    {
        int done = Reap(ring);
        for (; ring.TryTake(out DescriptorChain chain); done++)
            Begin(ring, in chain);
        if (_uncalled > 0)
            Call(ring);
        return done;
    }

    // A request waits no more.
    private void End(FuseRequest request)
    {
        _pending--;
        if (request.IsLarge)
            _largePending--;
    }

    private FuseRequest Take()
    {
        if (!_free.TryPop(out FuseRequest? request))
            return new FuseRequest { Ring = this, Large = _large };
        if (request.IsLarge)
            _largeFree--;
        return request;
    }

    private void Free(FuseRequest request)
    {
        if (request.IsLarge && _largeFree >= MostLarge)
            return;
        if (request.IsLarge)
            _largeFree++;
        _free.Push(request);
    }

    private void Call(BackendRing ring)
    {
        ring.Notify();
        _uncalled = 0;
    }
}
