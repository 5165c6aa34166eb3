using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Block;

/// <summary>Does what would make a ring wait: reads from the disk, flushes, ranges. Belongs to one ring, and is called by its thread only.</summary>
internal abstract class BlockEngine(BlockImage image) : IDisposable
{
    private static readonly BoundedLog s_log = new("Vmm.Devices.Backends.Block");

    protected BlockImage Image { get; } = image;

    /// <summary>An engine that uses <paramref name="uring"/>, or threads where that is null.</summary>
    /// <param name="image">The image that it works on.</param>
    /// <param name="requests">All that may be submitted, by their index.</param>
    /// <param name="uring">An io_uring, which stays the caller's.</param>
    /// <param name="ready">To be signalled when something is done, after <see cref="Arm"/>: that of <paramref name="uring"/> where there is one.</param>
    /// <remarks>Where the host allows no thread beside the io_uring, threads that begin later do the work: a ring that does not start is a disk that
    /// hangs.</remarks>
    public static BlockEngine Create(BlockImage image, BlockRequest[] requests, PooledUring? uring, EventFd ready)
    {
        if (uring is not null)
        {
            try
            {
                return new UringEngine(image, requests, uring);
            }
            catch (ErrnoException e)
            {
                s_log.Warn("{Path}: {Error}: threads do the I/O of this queue", image.Path, e.Message);
            }
        }
        return new ThreadEngine(image, requests.Length, ready);
    }

    /// <summary>Puts a request's operation among those to begin.</summary>
    public abstract void Submit(BlockRequest request);

    /// <summary>Has all that was submitted begin.</summary>
    public abstract void Push();

    /// <summary>Takes a request whose operation is done, with its result.</summary>
    public abstract bool TryTake(out BlockRequest request);

    /// <summary>Gives up what was submitted and nobody has begun: it is done, with the result -ECANCELED.</summary>
    public abstract void CancelWaiting();

    /// <summary>Has the eventfd signalled when something is done.</summary>
    /// <returns>False if something is already, for which no signal may come.</returns>
    public abstract bool Arm();

    /// <summary>Undoes <see cref="Arm"/>.</summary>
    public abstract void Disarm();

    /// <inheritdoc/>
    public abstract void Dispose();

    /// <summary>Does an operation on the calling thread, once nobody else changes the same blocks.</summary>
    public static void Execute(BlockImage image, BlockRequest request)
    {
        if (request.IsUnaligned)
        {
            request.Result = request.Operation == BlockOperation.Read
                ? image.Unaligned!.Read(request.Vectors, request.Offset)
                : image.Unaligned!.Write(request.Vectors, request.Offset);
        }
        else if (image.Ranges is { } ranges && request.Changes)
        {
            ranges.Enter(request.Offset, request.Remaining);
            try
            {
                Do(image, request);
            }
            finally
            {
                ranges.Leave(request.Offset, request.Remaining);
            }
        }
        else
        {
            Do(image, request);
        }
    }

    private static void Do(BlockImage image, BlockRequest request)
    {
        DiskFile file = image.File!;
        long offset = (long)request.Offset;
        request.Result = request.Operation switch
        {
            BlockOperation.Read => PositionedIo.Read(file, request.Vectors, offset),
            BlockOperation.Write => PositionedIo.Write(file, request.Vectors, offset),
            BlockOperation.Sync => PositionedIo.Sync(file),
            BlockOperation.PunchHole => PositionedIo.Allocate(file, AllocateMode.PunchHole, offset, (long)request.RangePiece),
            BlockOperation.ZeroRange => PositionedIo.Allocate(file, AllocateMode.ZeroRange, offset, (long)request.RangePiece),
            BlockOperation.Discard => file.Discard(request.Offset, request.RangePiece),
            _ => throw new ArgumentOutOfRangeException(nameof(request)),
        };
    }
}
