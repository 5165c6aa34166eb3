using System.Runtime.CompilerServices;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Devices.Backends.Block;

/// <summary>Works the requests of one ring: does at once what does not wait, and gives the rest to an engine. Shares nothing with other
/// rings but the image.</summary>
internal sealed class BlockRing : IRingHandler
{
    private const int Batch = 8;                // completions before it is considered to call the driver
    private const int ZerosSize = 64 * 1024;
    private const int MaxInterruptions = 16;

    // Bytes that are under way before another request is taken, so that many requests do not hold up the end of a ring. One alone may: where the front-end
    // does not keep track of what is in flight (BackendRing.MayLeave), it is done to its end.
    private const ulong MaxWeight = 32 << 20;

    private static readonly BoundedLog s_log = new("Vmm.Devices.Backends.Block");

    private readonly BlockBackend _backend;
    private readonly BlockImage _image;
    private readonly ulong _features;
    private readonly PooledUring? _uring;
    private readonly EventFd _ready;
    private readonly BlockRequest[] _free;
    private readonly BlockRequest[] _requests;
    private readonly BlockRequest[] _canceled;  // while the ring is drained
    private readonly NativeBuffer _vectors;
    private readonly BlockEngine? _engine;      // none without a file
    private readonly ImmediateIo _immediate;
    private readonly BusyPoll _poll;
    private readonly KickGathering _gathering;
    private readonly BounceBuffers _bounces = new();
    private NativeBuffer? _zeros;
    private int _freeCount;
    private int _canceledCount;
    private long _taken;
    private int _pending;
    private int _uncalled;
    private ulong _weight;
    private bool _isCanceling;
    private bool _isLeaving;
    private bool _isMigrating;                  // when the ring was drained last
    private bool _isArmed;
    private bool _hasReported;
    private long _completed;
    private long? _allocatedBefore;

    /// <summary>Makes what the ring needs.</summary>
    /// <param name="backend">The device.</param>
    /// <param name="image">Its image.</param>
    /// <param name="size">Descriptors in the ring.</param>
    /// <param name="features">What the driver accepted.</param>
    /// <param name="processors">Those of the machine.</param>
    public BlockRing(BlockBackend backend, BlockImage image, int size, ulong features, int processors)
    {
        _poll = new BusyPoll(processors);
        _gathering = new KickGathering(processors);
        _backend = backend;
        _image = image;
        _features = features;
        _immediate = new ImmediateIo(image);
        _vectors = new NativeBuffer(size * BlockRequest.VectorRoom * Unsafe.SizeOf<IoVector>());
        _requests = new BlockRequest[size];
        for (int i = 0; i < size; i++)
            _requests[i] = new BlockRequest(i, _vectors);
        _free = [.. _requests];
        _canceled = new BlockRequest[size];
        _freeCount = size;
        _uring = backend.TryTakeUring();
        try
        {
            _ready = _uring?.Ready ?? new EventFd();
            _engine = image.File is null ? null : BlockEngine.Create(image, _requests, _uring, _ready);
        }
        catch
        {
            FreeMemory();
            throw;
        }
    }

    /// <inheritdoc/>
    public FileDescriptor? Ready => _isArmed ? _ready : null;

    /// <inheritdoc/>
    public void Process(BackendRing ring)
    {
        _allocatedBefore ??= GC.GetAllocatedBytesForCurrentThread();
        Disarm();
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
            else if (!_poll.ShouldGoOn() && TrySleep())
                return;
        }
    }

    /// <inheritdoc/>
    public void Drain(BackendRing ring)
    {
        Disarm();
        _isMigrating = ring.IsLogged;
        _isLeaving = ring.MayLeave;
        CancelWaiting(ring);
        while (_pending > 0)
        {
            _engine!.Push();
            if (Reap(ring) > 0)
                continue;
            if (_engine.Arm())
                Poll.Wait([new PollEntry(_ready, PollEvents.Readable)], -1);
            _engine.Disarm();
            _ready.Drain();
        }
        _isLeaving = false;
        ring.Notify();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        s_log.Debug("{Path}: {Requests} requests, for which the queue's thread allocated {Bytes} bytes", _image.Path, _completed,
            GC.GetAllocatedBytesForCurrentThread() - (_allocatedBefore ?? 0));
        try
        {
            // After an error here the kernel may still use the memory and the io_uring: neither is used again.
            _engine?.Dispose();
            _bounces.Dispose();
            _zeros?.Dispose();
            FreeMemory();
        }
        finally
        {
            _backend.RingStopped(_isMigrating);
        }
    }

    private void FreeMemory()
    {
        _vectors.Dispose();
        if (_uring is null)
            _ready?.Dispose();
        else
            _backend.ReturnUring(_uring);
    }

    // How much was done: requests begun and operations ended.
    private int Work(BackendRing ring)
    {
        int done = Reap(ring);
        while (_weight < MaxWeight && ring.TryTake(out DescriptorChain chain) && TryBegin(ring, in chain))
            done++;
        if (_pending > 0)
        {
            _engine!.Push();
            done += Reap(ring);
        }
        if (_uncalled > 0)
            Call(ring);
        return done;
    }

    private bool TrySleep()
    {
        if (_pending > 0)
        {
            _isArmed = true;
            if (!_engine!.Arm())
            {
                Disarm();
                return false;
            }
        }
        _poll.End();
        return true;
    }

    private void Disarm()
    {
        if (!_isArmed)
            return;
        _isArmed = false;
        _engine?.Disarm();
        _ready.Drain();
    }

    private int Reap(BackendRing ring)
    {
        int done = 0;
        while (_pending > 0 && _engine!.TryTake(out BlockRequest request))
        {
            _pending--;
            done++;
            if (_isCanceling && request.Result == -Errnos.Ecanceled)
            {
                _canceled[_canceledCount++] = request;
                continue;
            }
            if (!Continue(ring, request))
                continue;
            // The request is done in part. The next back-end finds it in the in-flight log and does all of it once more.
            if (_isLeaving)
                Release(request);
            else
                Run(ring, request);
        }
        return done;
    }

    // Puts requests that were not begun back into the ring, the latest first, up to one that was begun. Without this a guest with many
    // requests on a slow disk could delay the stop of the ring as long as it likes.
    private void CancelWaiting(BackendRing ring)
    {
        _isCanceling = true;
        _engine?.CancelWaiting();
        Reap(ring);
        _isCanceling = false;
        Span<BlockRequest> canceled = _canceled.AsSpan(0, _canceledCount);
        // A request that a predecessor left is in the in-flight log only. Without a next back-end that reads the log, it is done here.
        for (int i = IndexOfLatest(canceled); i >= 0 && (_isLeaving || !ring.IsLatestLeft); i = IndexOfLatest(canceled))
        {
            BlockRequest request = canceled[i];
            _taken--;
            Release(request);
            ring.PutBack(request.Head);
            canceled[i] = canceled[^1];
            canceled = canceled[..^1];
        }
        _canceledCount = 0;
        foreach (BlockRequest request in canceled)
        {
            if (_isLeaving)
                Release(request);
            else
                Run(ring, request);
        }
    }

    private int IndexOfLatest(ReadOnlySpan<BlockRequest> requests)
    {
        for (int i = 0; i < requests.Length; i++)
        {
            if (requests[i].Sequence == _taken)
                return i;
        }
        return -1;
    }

    // False if the request stays in the ring until another one of it is done.
    private bool TryBegin(BackendRing ring, in DescriptorChain chain)
    {
        _taken++;
        if (!BlockRequestParser.TryFindStatus(in chain, out GuestBuffer status))
        {
            Report("a request has no room for its status");
            ring.Complete(chain.Head, 0);
            _uncalled++;
            return true;
        }
        BlockRequest request = _free[--_freeCount];
        request.Reset();
        request.Sequence = _taken;
        request.Head = chain.Head;
        request.Status = status;
        if (!BlockRequestParser.TryParse(in chain, _image, _features, request, out BlockStatus answer))
        {
            End(ring, request, answer);
        }
        else if (_engine is null)
        {
            EndWithoutFile(ring, request);
        }
        else if (NeedsBounce(request) && !TryBounce(request))
        {
            _taken--;
            Release(request);
            ring.PutBack(chain.Head);
            return false;
        }
        else if (Prepare(ring, request))
        {
            Run(ring, request);
        }
        return true;
    }

    private bool NeedsBounce(BlockRequest request) =>
        _image.IsDirect && request.Type is BlockRequestType.In or BlockRequestType.Out && !request.IsUnaligned
        && !request.IsAligned(_image.File!.MemoryAlignment, _image.TransferUnit);

    private bool TryBounce(BlockRequest request)
    {
        if (_bounces.TryTake() is not NativeBuffer buffer)
            return false;
        request.BounceBy(buffer);
        return true;
    }

    // False if there is nothing to be done.
    private bool Prepare(BackendRing ring, BlockRequest request)
    {
        switch (request.Type)
        {
            case BlockRequestType.In or BlockRequestType.Out when request.Remaining == 0:
            case BlockRequestType.Flush when _image.IsReadOnly:
                End(ring, request, BlockStatus.Ok);
                return false;
            case BlockRequestType.Discard or BlockRequestType.WriteZeroes:
                BeginRange(request);
                return true;
            default:
                return true;
        }
    }

    // Does what is to be done next, until it takes time or there is nothing more.
    private void Run(BackendRing ring, BlockRequest request)
    {
        do
        {
            if (!_immediate.TryExecute(request))
            {
                if (request.Weight == 0)
                {
                    // A discard or a write of zeroes moves no data: however much it is for, others are taken meanwhile.
                    ulong left = request.Left;
                    request.Weight = request.Type is BlockRequestType.Discard or BlockRequestType.WriteZeroes ? Math.Min(left, BlockRequest.MaxPiece) : left;
                    _weight += request.Weight;
                }
                _engine!.Submit(request);
                _pending++;
                return;
            }
        }
        while (Continue(ring, request));
    }

    // Goes on after an operation: whether there is another one to be done.
    private bool Continue(BackendRing ring, BlockRequest request)
    {
        long result = request.Result;
        if (result is -Errnos.Eintr or -Errnos.Eagain && ++request.Interruptions <= MaxInterruptions)
            return true;
        switch (request.Operation)
        {
            case BlockOperation.Sync:
                End(ring, request, _image.EndFlush((int)result) ? BlockStatus.Ok : BlockStatus.IoError);
                return false;
            case BlockOperation.Read or BlockOperation.Write:
                if (result <= 0)
                    return Fail(ring, request, result);
                if (request.Operation == BlockOperation.Read)
                    request.Filled += (uint)result;
                request.Advance((ulong)result);
                if (request.Remaining > 0)
                {
                    if (request.WritesZeros)
                        request.LimitZeros(_zeros!);
                    return true;
                }
                return request.Type == BlockRequestType.WriteZeroes ? ContinueRanges(ring, request) : ContinueDone(ring, request);
            default:
                // Block devices refuse what is no whole sectors of theirs (EINVAL).
                if (result is -Errnos.Eopnotsupp or -Errnos.Einval && TryOtherwise(request))
                    return true;
                if (result < 0)
                    return Fail(ring, request, result);
                request.AdvanceRange();
                return request.Remaining > 0 || ContinueRanges(ring, request);
        }
    }

    private bool ContinueRanges(BackendRing ring, BlockRequest request)
    {
        request.EndRange();
        if (request.Ranges.IsEmpty)
            return ContinueDone(ring, request);
        BeginRange(request);
        return true;
    }

    // All is done. What was written may still have to reach the disk, if the driver relies on that.
    private bool ContinueDone(BackendRing ring, BlockRequest request)
    {
        if (request.Type != BlockRequestType.In && _backend.IsWriteThrough)
        {
            request.Operation = BlockOperation.Sync;
            return true;
        }
        End(ring, request, BlockStatus.Ok);
        return false;
    }

    private void BeginRange(BlockRequest request)
    {
        BlockRange range = request.Ranges[0];
        request.Offset = range.Offset;
        request.Remaining = range.Length;
        request.Operation = _image.Choose(request.Type, in range);
    }

    // Where a file system or a device has no holes, or cannot zero without them, there are zeros to be written.
    private bool TryOtherwise(BlockRequest request)
    {
        if (request.Type == BlockRequestType.Discard)
            return false;
        if (request.Operation == BlockOperation.PunchHole)
        {
            request.Operation = BlockOperation.ZeroRange;
            return true;
        }
        _zeros ??= new NativeBuffer(ZerosSize, alignment: 4096);
        request.PrepareZeros(_zeros);
        request.IsUnaligned = !_image.IsWhole(request.Offset, request.Remaining);
        return true;
    }

    private void EndWithoutFile(BackendRing ring, BlockRequest request)
    {
        if (request.Type == BlockRequestType.In)
            request.Filled = (uint)request.Remaining;
        End(ring, request, BlockStatus.Ok);
    }

    private bool Fail(BackendRing ring, BlockRequest request, long result)
    {
        if (!_hasReported)
        {
            string reason = result == 0 ? "the file has become shorter" : new ErrnoException("failed", (int)-result).Message;
            Report($"{request.Operation} of {request.Remaining} bytes at {request.Offset}: {reason}");
        }
        End(ring, request, result == -Errnos.Eopnotsupp ? BlockStatus.Unsupported : BlockStatus.IoError);
        return false;
    }

    private void End(BackendRing ring, BlockRequest request, BlockStatus status)
    {
        request.Status.Span[0] = (byte)status;
        ring.Complete(request.Head, request.Filled + 1);
        Release(request);
        _completed++;
        // A call costs as much as several requests. But when the driver has as much to do as is left here, both can work at a time.
        if (++_uncalled % Batch == 0 && _uncalled >= ring.Waiting)
            Call(ring);
    }

    private void Release(BlockRequest request)
    {
        if (request.Bounce is NativeBuffer buffer)
            _bounces.Return(buffer);
        _weight -= request.Weight;
        _free[_freeCount++] = request;
    }

    private void Call(BackendRing ring)
    {
        _uncalled = 0;
        ring.Notify();
    }

    // Once for a ring: a guest may fail as often as it likes.
    private void Report(string what)
    {
        if (_hasReported)
            return;
        _hasReported = true;
        s_log.Warn("{Path}: {What}; this queue's further failures are not reported", _image.Path, what);
    }
}
