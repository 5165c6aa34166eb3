using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;
using Vmm.Vhost.User.Backend;

namespace Vmm.Devices.Backends.Block;

/// <summary>A block device (VIRTIO 1.2 §5.2) served as a vhost-user back-end, from a raw image or a block device of the host's.</summary>
public sealed class BlockBackend : VhostUserDevice, IDisposable
{
    /// <summary>The system calls that it makes while it is served, besides those of every back-end.</summary>
    public static readonly IReadOnlyList<SystemCallRule> SystemCalls =
    [
        SystemCallNumber.Preadv, SystemCallNumber.Pwritev, SystemCallNumber.Preadv2, SystemCallNumber.Pwritev2, SystemCallNumber.Lseek,
        SystemCallNumber.Fdatasync, SystemCallNumber.Fallocate,
        new(SystemCallNumber.IoUringEnter, "flags is IORING_ENTER_GETEVENTS", ArgumentCondition.IsOneOf(3, GetEvents)),
        new(SystemCallNumber.Fcntl, "cmd is F_OFD_GETLK or F_OFD_SETLK", ArgumentCondition.IsOneOf(1, GetLock, SetLock)),
        SystemCallRule.Requests(DiskFile.DiscardRequest),
    ];

    private const uint GetEvents = 1;                   // IORING_ENTER_GETEVENTS of linux/io_uring.h
    private const uint GetLock = 36, SetLock = 37;      // F_OFD_GETLK and F_OFD_SETLK of asm-generic/fcntl.h

    private const int QueueSize = 1024;

    private static readonly BoundedLog s_log = new("Vmm.Devices.Backends.Block");

    private readonly BlockImage _image;
    private readonly int _queues;
    private readonly UringPool? _urings;        // none: threads
    private readonly BlockWriteCache _cache;
    private readonly CapacityWatch _watch;
    private readonly int _processors = Processors.CountOnline();
    private ulong _toldCapacity;

    /// <summary>Opens and locks the image.</summary>
    /// <exception cref="VhostException">It cannot be had, or the engine that was asked for; the message says what to do.</exception>
    public BlockBackend(BlockOptions options)
    {
        if (options.Queues is < 1 or > BlockOptions.MaxQueues)
            throw new VhostException($"a block device has 1 to {BlockOptions.MaxQueues} queues, not {options.Queues}");
        if (options.Serial?.Length > BlockOptions.MaxSerial)
            throw new VhostException($"a serial number has at most {BlockOptions.MaxSerial} characters, not {options.Serial.Length}");
        if (options.LogicalBlockSize is int size && (size is < BlockImage.SectorSize or > BlockOptions.MaxLogicalBlockSize || !int.IsPow2(size)))
        {
            throw new VhostException($"a logical block size is a power of two from {BlockImage.SectorSize} to "
                + $"{BlockOptions.MaxLogicalBlockSize}, not {size}");
        }
        _queues = options.Queues;
        _cache = new BlockWriteCache(_queues);
        _image = BlockImage.Open(options);
        _toldCapacity = _image.Capacity;
        try
        {
            _urings = MakeUrings(options.Engine);
            _watch = new CapacityWatch(_image.Path, UpdateCapacity);
        }
        catch
        {
            _urings?.Dispose();
            _image.Dispose();
            throw;
        }
        s_log.Debug("{Path}: {Sectors} sectors, blocks of {Block}, I/O by {Engine}", _image.Path, _image.Capacity, _image.BlockSize, Engine);
    }

    /// <inheritdoc/>
    public override string Name => $"blk {_image.Path}";

    /// <inheritdoc/>
    public override ulong Features => BlockFeatures.SegmentLimit | BlockFeatures.BlockSize | BlockFeatures.Topology | BlockFeatures.Flush
        | BlockFeatures.MultiQueue
        | (_image.IsReadOnly ? BlockFeatures.ReadOnly : BlockFeatures.WriteCacheSwitch | BlockFeatures.WriteZeroes)
        | (_image.CanDiscard ? BlockFeatures.Discard : 0);

    /// <inheritdoc/>
    public override int RingCount => _queues;

    /// <inheritdoc/>
    public override int MaxQueueSize => QueueSize;

    /// <inheritdoc/>
    public override int ConfigSize => BlockConfigSpace.Size;

    /// <summary>Its image.</summary>
    internal BlockImage Image => _image;

    /// <summary>What does the disk's reads, writes and flushes, so that no queue waits for them: never <see cref="BlockEngineKind.Auto"/>.</summary>
    internal BlockEngineKind Engine => _urings is null ? BlockEngineKind.Threads : BlockEngineKind.IoUring;

    /// <summary>Whether a write is only done when it is on the disk (VIRTIO 1.2 §5.2.6.2).</summary>
    internal bool IsWriteThrough => _cache.IsWriteThrough;

    /// <summary>The system calls and rights that the process of this back-end keeps when it is confined.</summary>
    public Confinement Confinement => new() { Calls = [.. SystemCalls, .. KickGathering.CallsOn(_processors)] };

    /// <inheritdoc/>
    public override void ReadConfig(Span<byte> config)
    {
        // A driver that looks again, after a reset for example, sees how large the image is now.
        _image.UpdateCapacity();
        BlockConfigSpace.Write(config, _image, _queues, !IsWriteThrough);
    }

    /// <inheritdoc/>
    public override bool WriteConfig(int offset, ReadOnlySpan<byte> data)
    {
        // A migration, and a driver that writes more than it has to, also write what is there already.
        Span<byte> config = stackalloc byte[BlockConfigSpace.Size];
        ReadConfig(config);
        for (int i = 0; i < data.Length; i++)
        {
            if (offset + i != BlockConfigSpace.WriteCacheOffset && config[offset + i] != data[i])
                return false;
        }
        int position = BlockConfigSpace.WriteCacheOffset - offset;
        if (position < 0 || position >= data.Length)
            return true;
        return _cache.TrySet(data[position]) || config[BlockConfigSpace.WriteCacheOffset] == data[position];
    }

    /// <inheritdoc/>
    public override void FeaturesAccepted(ulong features)
    {
        _cache.Accept(features);
        // Not before: a confined process has its threads begin confined.
        if (_image.File is null)
            return;
        try
        {
            _watch.Start();
        }
        catch (ErrnoException e)
        {
            s_log.Warn("{Path}: {Error}: the guest is not told when its size changes", _image.Path, e.Message);
        }
    }

    /// <inheritdoc/>
    public override void Reset() => _cache.Reset();

    /// <inheritdoc/>
    public override IRingHandler StartRing(BackendRing ring)
    {
        _image.BeginUse();
        try
        {
            if (_cache.StartRing(ring.Index, ring.IsContinued))
            {
                s_log.Info("{Path}: the driver may have switched the write cache off before this process began: all is written through until it says, or is reset",
                    _image.Path);
            }
            return new BlockRing(this, _image, ring.Size, ring.Features, _processors);
        }
        catch
        {
            RingStopped(isMigrating: false);
            throw;
        }
    }

    /// <summary>An io_uring for a ring that starts; null where threads do the I/O.</summary>
    internal PooledUring? TryTakeUring() => _urings?.TryTake();

    /// <summary>Takes it back from a ring that has stopped.</summary>
    internal void ReturnUring(PooledUring uring) => _urings!.Return(uring);

    /// <summary>A ring has given back what it had.</summary>
    /// <param name="isMigrating">Whether the guest moves (<see cref="BlockImage.EndUse"/>).</param>
    internal void RingStopped(bool isMigrating) => _image.EndUse(isMigrating);

    /// <summary>Has somebody look soon whether the image has grown or shrunk; they look every second anyway, while a front-end is there. Any thread may call
    /// it.</summary>
    public void Refresh() => _watch.LookNow();

    /// <summary>Looks whether the image has grown or shrunk, and has the guest told.</summary>
    /// <exception cref="VhostException">The kernel does not say, or the front-end is gone.</exception>
    public void UpdateCapacity()
    {
        _image.UpdateCapacity();
        ulong capacity = _image.Capacity;
        // A front-end that reads the configuration for another reason, and finds the new capacity in it, need not tell its guest.
        if (capacity == Volatile.Read(ref _toldCapacity) || FrontEnd is not { } frontEnd)
            return;
        frontEnd.ConfigurationChanged();
        Volatile.Write(ref _toldCapacity, capacity);
        s_log.Info("{Path} has {Sectors} sectors now", _image.Path, capacity);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _watch.Dispose();
        _urings?.Dispose();
        _image.Dispose();
    }

    // All at once and now: a confined process can make none.
    private UringPool? MakeUrings(BlockEngineKind wanted)
    {
        if (wanted == BlockEngineKind.Threads || _image.File is null)
            return null;
        try
        {
            return new UringPool(_image.File, _queues, QueueSize);
        }
        catch (ErrnoException e) when (wanted == BlockEngineKind.Auto)
        {
            s_log.Debug("{Path}: {Error}: I/O by threads", _image.Path, e.Message);
            return null;
        }
        catch (ErrnoException e)
        {
            throw new VhostException($"{_image.Path}: {e.Message}: take threads instead, or see /proc/sys/kernel/io_uring_disabled", e);
        }
    }
}
