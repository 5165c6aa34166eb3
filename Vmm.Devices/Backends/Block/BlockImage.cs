using System.Globalization;
using NLog;
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

    private static readonly Logger s_log = LogManager.GetLogger("Vmm.Devices.Backends.Block");

    private ulong _capacity;
    private int _syncError;

    private BlockImage(DiskFile? file, BlockOptions options)
    {
        File = file;
        Path = options.Path;
        IsReadOnly = options.ReadOnly;
        IsDirect = options.Direct && file is not null;
        BlockSize = file?.LogicalBlockSize ?? SectorSize;
        Serial = options.Serial ?? file?.Identity ?? "null";
    }

    /// <summary>The file; null for a device without one.</summary>
    public DiskFile? File { get; }

    /// <summary>Its path, for messages.</summary>
    public string Path { get; }

    public bool IsReadOnly { get; }

    /// <summary>Whether reads and writes go past the page cache, and buffers must be aligned.</summary>
    public bool IsDirect { get; }

    /// <summary>The unit in which it can be read and written, in bytes.</summary>
    public int BlockSize { get; }

    /// <summary>The unit in which it is written best, in bytes.</summary>
    public int PhysicalBlockSize => File?.PhysicalBlockSize ?? NullBlockSize;

    public string Serial { get; }

    /// <summary>Whether ranges can be given back.</summary>
    public bool CanDiscard => !IsReadOnly && (File is null || File.CanDiscard);

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
            file = DiskFile.Open(options.Path, options.ReadOnly, options.Direct);
        }
        catch (Exception e) when (e is IOException or InvalidDataException)
        {
            throw new VhostException(e.Message, e);
        }
        try
        {
            var image = new BlockImage(file, options);
            image.UpdateCapacity();
            return image;
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>Looks how large the file is now. Requests that come later are measured by that.</summary>
    /// <returns>Whether that is news.</returns>
    /// <exception cref="VhostException">The kernel does not say.</exception>
    public bool UpdateCapacity()
    {
        if (File is null)
            return false;
        ulong size;
        try
        {
            size = File.GetSize();
        }
        catch (ErrnoException e)
        {
            throw new VhostException(e.Message, e);
        }
        ulong capacity = size / (ulong)BlockSize * ((ulong)BlockSize / SectorSize);
        if (Interlocked.Exchange(ref _capacity, capacity) == capacity)
            return false;
        if (capacity * SectorSize != size)
            s_log.Warn("{Path} has {Size} bytes: the last {Rest} are no whole block, and no part of the disk", Path, size, size - capacity * SectorSize);
        return true;
    }

    /// <summary>Notes how a flush ended, and says how it is to be answered. Once the kernel has reported a failure it has forgotten about the data
    /// (fsync(2), "EIO"), and the next flush would succeed: so no flush of this image does any more.</summary>
    /// <param name="result">Of fdatasync(2): 0, or the negated error number.</param>
    /// <returns>Whether all that was written before is on the disk.</returns>
    public bool EndFlush(int result)
    {
        if (result < 0 && Interlocked.CompareExchange(ref _syncError, result, 0) == 0)
        {
            s_log.Error("{Path}: {Error}: what was written may be lost, and no flush succeeds any more; check the disk, and start again", Path,
                new ErrnoException("fdatasync", -result).Message);
        }
        return Volatile.Read(ref _syncError) == 0;
    }

    public void Dispose() => File?.Dispose();
}
