using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>Works the requests of one ring: does at once what does not wait, and gives the rest to the <see cref="RequestPool"/>.</summary>
internal sealed class FileSystemRing(FuseServer server, RequestPool pool) : IRingHandler
{
    private const int Batch = 8;        // completions before it is considered to call the driver

    private readonly EventFd _ready = new();
    private readonly Lock _lock = new();
    private readonly List<FuseRequest> _done = [];      // by other threads
    private readonly Stack<FuseRequest> _free = [];
    private readonly LargeBuffers _large = new();
    private FuseRequest[] _taken = [];
    private int _takenCount;
    private int _pending;
    private int _uncalled;

    /// <inheritdoc/>
    public FileDescriptor? Ready => _pending > 0 ? _ready : null;

    /// <summary>Another thread has done a request.</summary>
    public void Done(FuseRequest request)
    {
        bool isFirst;
        lock (_lock)
        {
            _done.Add(request);
            isFirst = _done.Count == 1;
        }
        if (isFirst)
            _ready.Signal();
    }

    /// <inheritdoc/>
    public void Process(BackendRing ring)
    {
        Reap(ring);
        while (ring.TryTake(out DescriptorChain chain))
            Begin(ring, in chain);
        if (_uncalled > 0)
            Call(ring);
    }

    /// <inheritdoc/>
    public void Drain(BackendRing ring)
    {
        foreach (FuseRequest request in server.GiveUpWaiting(this))
        {
            _pending--;
            // Left to the log of what is in flight, it waits again when the ring goes on.
            if (!ring.MayLeave)
            {
                request.Result = -Errnos.Eintr;
                Complete(ring, request);
            }
            else
            {
                _free.Push(request);
            }
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
        FuseRequest request = _free.TryPop(out FuseRequest? free) ? free : new FuseRequest { Ring = this, Large = _large };
        long result = request.Load(in chain);
        // What a process before this one may have done already: to forget a file once too often is worse than not to forget it, and who hears of an error can look what is so.
        bool isLeft = ring.IsLatestLeft;
        if (result == 0 && isLeft && server.IsForOnce(request))
            result = -Errnos.Eio;
        if (result == 0 && (FuseServer.HasReply(request.Header.Opcode) || !isLeft))
        {
            // Before anybody else can say that it is done.
            _pending++;
            result = server.Execute(request, mayWait: false);
            if (result == FuseServer.Waits || (result == FuseServer.NeedsThread && pool.TryAdd(request)))
                return;
            _pending--;
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
        if (_pending == 0)
            return 0;
        _ready.Drain();
        lock (_lock)
        {
            if (_taken.Length < _done.Count)
                _taken = new FuseRequest[2 * _done.Count];
            _done.CopyTo(_taken);
            _takenCount = _done.Count;
            _done.Clear();
        }
        for (int i = 0; i < _takenCount; i++)
        {
            _pending--;
            Complete(ring, _taken[i]);
        }
        return _takenCount;
    }

    private void Complete(BackendRing ring, FuseRequest request)
    {
        ring.Complete(request.Head, request.Finish());
        _free.Push(request);
        if (++_uncalled >= Batch)
            Call(ring);
    }

    private void Call(BackendRing ring)
    {
        ring.Notify();
        _uncalled = 0;
    }
}
