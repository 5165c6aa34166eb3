using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Block;

/// <summary>The engine by io_uring: one system call for as many requests as there are. The io_uring is one of the disk's <see cref="UringPool"/>.</summary>
internal sealed class UringEngine : BlockEngine
{
    private readonly BlockRequest[] _requests;
    private readonly IoUring _ring;
    private readonly ThreadEngine? _threads;    // for what io_uring cannot do; none where it can do all
    private bool _hasSubmissions;
    private int _pending;

    /// <summary>Makes an engine for <paramref name="requests"/>.</summary>
    /// <param name="image">The image.</param>
    /// <param name="requests">All that may be submitted, by their index.</param>
    /// <param name="uring">What does them. It stays the caller's; nothing is under way on it once this engine is disposed.</param>
    /// <exception cref="ErrnoException">The host allows no more threads, and some operations need one.</exception>
    public UringEngine(BlockImage image, BlockRequest[] requests, PooledUring uring)
        : base(image)
    {
        _requests = requests;
        _ring = uring.Ring;
        if (image.Ranges is not null || (image.File!.IsBlockDevice && image.CanDiscard))
            _threads = new ThreadEngine(image, requests.Length, uring.Ready, startsNow: true);
    }

    /// <inheritdoc/>
    public override void Submit(BlockRequest request)
    {
        // By a thread what has to wait for others that change the same blocks, too.
        if (request.IsUnaligned || request.Operation == BlockOperation.Discard || !TryEnter(request))
        {
            _threads!.Submit(request);
            return;
        }
        ulong id = (ulong)request.Index;
        switch (request.Operation)
        {
            case BlockOperation.Read:
                _ring.Read(request.Vectors, request.Offset, id);
                break;
            case BlockOperation.Write:
                _ring.Write(request.Vectors, request.Offset, id);
                break;
            case BlockOperation.Sync:
                _ring.Sync(id);
                break;
            case BlockOperation.PunchHole:
                _ring.Allocate(AllocateMode.PunchHole, request.Offset, request.RangePiece, id);
                break;
            case BlockOperation.ZeroRange:
                _ring.Allocate(AllocateMode.ZeroRange, request.Offset, request.RangePiece, id);
                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(request));
        }
        _hasSubmissions = true;
        _pending++;
    }

    /// <inheritdoc/>
    public override void Push()
    {
        _threads?.Push();
        if (!_hasSubmissions)
            return;
        _hasSubmissions = false;
        _ring.Push();
    }

    /// <inheritdoc/>
    public override bool TryTake(out BlockRequest request)
    {
        if (_pending > 0)
        {
            bool isDone = _ring.TryTake(out ulong id, out int result);
            if (!isDone && !_hasSubmissions && _ring.HasWork)
            {
                _ring.Push();
                isDone = _ring.TryTake(out id, out result);
            }
            if (isDone)
            {
                _pending--;
                request = _requests[id];
                request.Result = result;
                Leave(request);
                return true;
            }
        }
        if (_threads is not null && _threads.TryTake(out request))
            return true;
        request = null!;
        return false;
    }

    /// <summary>What the kernel has it has begun, as far as anybody can tell.</summary>
    public override void CancelWaiting() => _threads?.CancelWaiting();

    /// <inheritdoc/>
    public override bool Arm()
    {
        bool isIdle = _threads?.Arm() ?? true;
        _ring.SetNotifications(true);
        return isIdle && !_ring.HasCompletions && !_ring.HasWork;
    }

    /// <inheritdoc/>
    public override void Disarm()
    {
        _ring.SetNotifications(false);
        _threads?.Disarm();
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        _threads?.Dispose();
        // After an error there may be something left. Its memory must stay until the kernel is done with it, and the next queue must not find it.
        _ring.SetNotifications(false);
        while (_pending > 0)
        {
            _ring.Push(wait: 1);
            while (_ring.TryTake(out _, out _))
                _pending--;
        }
        foreach (BlockRequest request in _requests)
            Leave(request);
    }

    private bool TryEnter(BlockRequest request)
    {
        if (Image.Ranges is not { } ranges || !request.Changes)
            return true;
        request.HoldsRange = ranges.TryEnter(request.Offset, request.Remaining);
        return request.HoldsRange;
    }

    private void Leave(BlockRequest request)
    {
        if (!request.HoldsRange)
            return;
        request.HoldsRange = false;
        Image.Ranges!.Leave(request.Offset, request.Remaining);
    }
}
