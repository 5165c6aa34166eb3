using System.Globalization;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Block;

/// <summary>The image behind a block device: its file, its size, and whether all that was acknowledged can still be relied on. Its queues
/// share it.</summary>
internal sealed class BlockImage : IDisposable
{
    /// <summary>The unit of a request's addresses, in bytes (VIRTIO 1.2 §5.2.4).</summary>
    public const int SectorSize = 512;

    private const int NullBlockSize = 4096;
    private const int Page = 4096;

    private static readonly BoundedLog s_log = new("Vmm.Devices.Backends.Block");

    private readonly Lock _sync = new();
    private readonly BlockLocking _locking;
    private ulong _capacity;
    private bool _isMeasured;
    private int _syncError;
    private int _syncReports;
    private int _users;
    private bool _hasWarnedOfLock;
    private volatile bool _usesPageCache;

    private BlockImage(DiskFile? file, BlockOptions options)
    {
        File = file;
        Path = options.Path;
        IsReadOnly = options.ReadOnly;
        IsDirect = options.Direct && file is not null;
        BlockSize = options.LogicalBlockSize ?? file?.LogicalBlockSize ?? SectorSize;
        if (IsDirect)
        {
            TransferUnit = file!.TransferAlignment;
            _usesPageCache = !file.IsAlignmentKnown;
        }
        if (TransferUnit > BlockSize)
        {
            Ranges = new RangeLock(Math.Max(TransferUnit, Page));
            Unaligned = new UnalignedIo(file!, Ranges);
        }
        Serial = options.Serial ?? file?.Identity ?? "null";
        CanDiscard = options.Discard && !options.ReadOnly && (file is null || file.CanDiscard);
        _locking = options.Locking;
    }

    /// <summary>The file; null for a device without one.</summary>
    public DiskFile? File { get; }

    /// <summary>Its path, for messages.</summary>
    public string Path { get; }

    public bool IsReadOnly { get; }

    /// <summary>Whether reads and writes go past the page cache, and buffers must be aligned.</summary>
    public bool IsDirect { get; }

    /// <summary>The unit in which the guest reads and writes, in bytes.</summary>
    public int BlockSize { get; }

    /// <summary>The unit in which the file is read and written past the page cache, in bytes; 1 through it.</summary>
    public int TransferUnit { get; } = 1;

    /// <summary>What does reads and writes that are no whole <see cref="TransferUnit"/>; null where there are none.</summary>
    public UnalignedIo? Unaligned { get; }

    /// <summary>What keeps changes of the same blocks apart; null where nobody has to.</summary>
    public RangeLock? Ranges { get; }

    /// <summary>The unit in which it is written best, in bytes; a multiple of <see cref="BlockSize"/>.</summary>
    public int PhysicalBlockSize => Math.Max(BlockSize, File?.PhysicalBlockSize ?? NullBlockSize);

    public string Serial { get; }

    /// <summary>Whether ranges can be given back, and the user lets the guest do it.</summary>
    public bool CanDiscard { get; }

    /// <summary>Its size, in sectors.</summary>
    public ulong Capacity => Volatile.Read(ref _capacity);

    /// <summary>Opens and locks the image.</summary>
    /// <exception cref="VhostException">It cannot be had; the message names it.</exception>
    public static BlockImage Open(BlockOptions options)
    {
        if (options.Path.StartsWith(BlockOptions.NullPrefix, StringComparison.Ordinal))
        {
            if (!ulong.TryParse(options.Path.AsSpan(BlockOptions.NullPrefix.Length), NumberStyles.None, CultureInfo.InvariantCulture, out ulong size))
                throw new VhostException($"{options.Path} is no size in bytes: write {BlockOptions.NullPrefix}1073741824, for example");
            return new BlockImage(null, options) { _capacity = size / SectorSize };
        }
        DiskFile file;
        try
        {
            file = DiskFile.Open(options.Path, options.ReadOnly, options.Direct, options.Locking switch
            {
                BlockLocking.On => DiskLocking.AtOpen,
                BlockLocking.Deferred => DiskLocking.Later,
                BlockLocking.Kept => DiskLocking.Kept,
                _ => DiskLocking.Never,
            }, key: options.Key);
        }
        catch (Exception e) when (e is IOException or InvalidDataException)
        {
            throw new VhostException(e.Message, e);
        }
        try
        {
            if (file.TransferAlignment > UnalignedIo.MaxUnit)
                throw new VhostException($"{options.Path} needs transfers of {file.TransferAlignment} bytes past the page cache: leave direct off");
            var image = new BlockImage(file, options);
            image.WarnOfLock();
            image.UpdateCapacity();
            return image;
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>Looks how large the file is now. Requests that come later are measured by that. Any thread may ask.</summary>
    /// <exception cref="VhostException">The kernel does not say.</exception>
    public void UpdateCapacity()
    {
        if (File is null)
            return;
        lock (_sync)
        {
            ulong size;
            try
            {
                size = File.GetSize();
            }
            catch (ErrnoException e)
            {
                throw new VhostException(e.Message, e);
            }
            ulong before = _capacity;
            ulong capacity = size / (ulong)BlockSize * ((ulong)BlockSize / SectorSize);
            Volatile.Write(ref _capacity, capacity);
            if (capacity == before && _isMeasured)
                return;
            _isMeasured = true;
            if (size == 0)
                s_log.Warn("{Path} is empty: the guest has a disk without a block", Path);
            if (capacity < before)
            {
                s_log.Warn("{Path} has shrunk from {Before} to {Size} bytes: what the guest reads and writes behind that end fails", Path,
                    before * SectorSize, size);
            }
            if (capacity * SectorSize != size)
                s_log.Warn("{Path} has {Size} bytes: the last {Rest} are no whole block, and no part of the disk", Path, size, size - capacity * SectorSize);
        }
    }

    /// <summary>A ring is about to start. The first one takes the lock, unless there is none or it is held.</summary>
    /// <exception cref="VhostException">Somebody else has the image.</exception>
    public void BeginUse()
    {
        lock (_sync)
        {
            try
            {
                if (_users == 0 && _locking != BlockLocking.Off)
                    File?.Lock();
            }
            catch (ErrnoException e)
            {
                throw new VhostException(e.Message, e);
            }
            WarnOfLock();
            _users++;
        }
    }

    /// <summary>A ring has stopped. With the last one of a guest that moves elsewhere the lock is given up.</summary>
    /// <param name="isMigrating">Whether the guest moves: its front-end keeps a log of what is written into its memory.</param>
    public void EndUse(bool isMigrating)
    {
        lock (_sync)
        {
            if (--_users > 0 || !isMigrating || _locking is BlockLocking.Off or BlockLocking.Kept || File is null)
                return;
            // Whoever takes the lock next, maybe on another host, has to read what was written here.
            if (!IsReadOnly && !EndFlush(PositionedIo.Sync(File)))
            {
                s_log.Error("{Path}: not all that the guest wrote is on the disk: the lock is kept, so that the guest cannot go on elsewhere", Path);
                return;
            }
            File.Unlock();
            s_log.Info("{Path}: the guest moves: the lock is given up", Path);
        }
    }

    /// <summary>Whether a read or write at <paramref name="offset"/> can be done as it is: it is whole blocks of the file.</summary>
    public bool IsWhole(ulong offset, ulong length) => ((offset | length) & (ulong)(TransferUnit - 1)) == 0;

    /// <summary>What is to be done for a discard or a write of zeroes. A write of zeroes keeps a sparse file sparse, and leaves the room of one that has all its
    /// room, unless the guest asks for less.</summary>
    public BlockOperation Choose(BlockRequestType type, in BlockRange range)
    {
        // What is not a whole block of the file system is zeroed in the page cache.
        if (IsDirect && (range.Offset | range.Length) % (ulong)PhysicalBlockSize != 0)
            _usesPageCache = true;
        if (type == BlockRequestType.Discard)
            return File!.IsBlockDevice ? BlockOperation.Discard : BlockOperation.PunchHole;
        return CanDiscard && (range.MayUnmap || File!.IsSparse) ? BlockOperation.PunchHole : BlockOperation.ZeroRange;
    }

    /// <summary>Notes how a flush ended, and says how it is to be answered. Once the kernel has reported that it could not write a part of the page
    /// cache it has forgotten about that data (fsync(2), "EIO"), and the next flush would succeed: so no flush of this image does any more. Past the page
    /// cache nothing is forgotten, and a flush is answered as it ended, as in QEMU.</summary>
    /// <param name="result">Of fdatasync(2): 0, or the negated error number.</param>
    /// <returns>Whether all that was written before is on the disk.</returns>
    public bool EndFlush(int result)
    {
        if (result >= 0)
            return Volatile.Read(ref _syncError) == 0;
        string error = new ErrnoException("fdatasync", -result).Message;
        if (IsDirect && !_usesPageCache)
        {
            if (Interlocked.Increment(ref _syncReports) == 1)
                s_log.Error("{Path}: {Error}: the guest is told; further failures are not reported", Path, error);
        }
        else if (Interlocked.CompareExchange(ref _syncError, result, 0) == 0)
        {
            s_log.Error("{Path}: {Error}: what was written may be lost, and no flush succeeds any more; check the disk, and start again", Path, error);
        }
        return false;
    }

    private void WarnOfLock()
    {
        if (_hasWarnedOfLock || File?.LockFailure is not { } failure)
            return;
        _hasWarnedOfLock = true;
        s_log.Warn("{Error}: nothing keeps other programs from writing it", failure.Message);
    }

    public void Dispose() => File?.Dispose();
}
