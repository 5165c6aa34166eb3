using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Block;

/// <summary>Does what would make a ring wait: reads from the disk, flushes, ranges. Belongs to one ring, and is called by its thread only.</summary>
internal abstract class BlockEngine(BlockImage image) : IDisposable
{
    protected BlockImage Image { get; } = image;

    /// <summary>An engine of the kind that <paramref name="kind"/> says.</summary>
    /// <param name="kind">Not <see cref="BlockEngineKind.Auto"/>.</param>
    /// <param name="image">The image that it works on.</param>
    /// <param name="requests">All that may be submitted, by their index.</param>
    /// <param name="ready">To be signalled when something is done, after <see cref="Arm"/>.</param>
    /// <exception cref="ErrnoException">There is none of that kind.</exception>
    public static BlockEngine Create(BlockEngineKind kind, BlockImage image, BlockRequest[] requests, EventFd ready) =>
        kind == BlockEngineKind.IoUring ? new UringEngine(image, requests, ready) : new ThreadEngine(image, requests.Length, ready);

    /// <summary>Puts a request's operation among those to begin.</summary>
    public abstract void Submit(BlockRequest request);

    /// <summary>Has all that was submitted begin.</summary>
    public abstract void Push();

    /// <summary>Takes a request whose operation is done, with its result.</summary>
    public abstract bool TryTake(out BlockRequest request);

    /// <summary>Has the eventfd signalled when something is done.</summary>
    /// <returns>False if something is already, for which no signal may come.</returns>
    public abstract bool Arm();

    /// <summary>Undoes <see cref="Arm"/>.</summary>
    public abstract void Disarm();

    /// <inheritdoc/>
    public abstract void Dispose();

    /// <summary>Does an operation on the calling thread.</summary>
    public static void Execute(BlockImage image, BlockRequest request)
    {
        DiskFile file = image.File!;
        long offset = (long)request.Offset;
        request.Result = request.Operation switch
        {
            BlockOperation.Read => PositionedIo.Read(file, request.Vectors, offset),
            BlockOperation.Write => PositionedIo.Write(file, request.Vectors, offset),
            BlockOperation.Sync => PositionedIo.Sync(file),
            BlockOperation.PunchHole => PositionedIo.Allocate(file, AllocateMode.PunchHole, offset, (long)request.Remaining),
            BlockOperation.ZeroRange => PositionedIo.Allocate(file, AllocateMode.ZeroRange, offset, (long)request.Remaining),
            BlockOperation.Discard => file.Discard(request.Offset, request.Remaining),
            _ => throw new ArgumentOutOfRangeException(nameof(request)),
        };
    }
}
