using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Block;

/// <summary>The engine by io_uring: one system call for as many requests as there are.</summary>
internal sealed class UringEngine : BlockEngine
{
    private readonly BlockRequest[] _requests;
    private readonly IoUring _ring;
    private readonly ThreadEngine? _threads;    // for what io_uring cannot do; none where it can do all
    private bool _isEnabled;
    private bool _hasSubmissions;
    private int _pending;

    /// <summary>Makes a ring for <paramref name="requests"/>.</summary>
    /// <exception cref="ErrnoException">The kernel refuses.</exception>
    public UringEngine(BlockImage image, BlockRequest[] requests, EventFd ready)
        : base(image)
    {
        _requests = requests;
        _ring = new IoUring(Math.Min(requests.Length, IoUring.MaxEntries), image.File!, ready);
        if (image.Ranges is null && !(image.File!.IsBlockDevice && image.CanDiscard))
            return;
        try
        {
            _threads = new ThreadEngine(image, requests.Length, ready, startsNow: true);
        }
        catch
        {
            _ring.Dispose();
            throw;
        }
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
        if (!_isEnabled)
        {
            // Here, because the thread that does this is the one that may use the ring.
            _ring.Enable();
            _isEnabled = true;
        }
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
        _ring.Dispose();
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
