using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>The window of the guest's addresses into which its front-end maps files (DAX). It knows the mappings that this side has asked for. This process
/// never reads a mapped file, so nobody can end it by making one shorter.</summary>
/// <param name="length">Bytes of the window.</param>
internal sealed class DaxWindow(ulong length)
{
    /// <summary>VIRTIO_FS_SHMCAP_ID_CACHE, the only region (VIRTIO 1.2 §5.11.5).</summary>
    public const byte Region = 0;

    private const ulong PageSize = 4096;

    private static readonly BoundedLog s_log = new("Vmm.Devices.Backends.FileSystem");

    private readonly Lock _lock = new();
    private readonly SortedList<ulong, Mapping> _mappings = [];

    /// <summary>Bytes of the window.</summary>
    public ulong Length { get; } = length;

    /// <summary>Whether nothing is mapped.</summary>
    public bool IsEmpty
    {
        get
        {
            lock (_lock)
                return _mappings.Count == 0;
        }
    }

    /// <summary>Maps a part of a file, in place of whatever is there.</summary>
    /// <param name="frontEnd">The front-end, which maps the part into the guest at our request.</param>
    /// <param name="offset">Where in the window.</param>
    /// <param name="bytes">How much.</param>
    /// <param name="inode">Of which file.</param>
    /// <param name="file">The same, open.</param>
    /// <param name="fileOffset">Where in the file.</param>
    /// <param name="isWritable">Whether the guest may write there.</param>
    /// <returns>0, or a negated error number.</returns>
    /// <exception cref="VhostException">The front-end refused, or is gone.</exception>
    public int Map(BackendRequestSender frontEnd, ulong offset, ulong bytes, ulong inode, FileDescriptor file, ulong fileOffset, bool isWritable)
    {
        if (!IsRange(offset, bytes) || fileOffset % PageSize != 0 || fileOffset > long.MaxValue - bytes)
            return -Errnos.Einval;
        lock (_lock)
        {
            var mapping = new Mapping(bytes, inode, fileOffset, isWritable);
            // The mapping is there already, with at least the rights that the guest asks for. To map it anew would take the memory away for a moment while the guest uses it.
            if (_mappings.TryGetValue(offset, out Mapping same) && (same == mapping || (same with { IsWritable = false }) == mapping))
                return 0;
            Remove(frontEnd, offset, bytes);
            frontEnd.MapSharedMemory(Region, offset, file, fileOffset, bytes, isWritable);
            _mappings.Add(offset, mapping);
            return 0;
        }
    }

    /// <summary>Takes away all mappings, as far as the front-end has them: it may have taken them away by itself, or be gone.</summary>
    public void UnmapAll(BackendRequestSender frontEnd)
    {
        lock (_lock)
        {
            foreach ((ulong start, Mapping mapping) in _mappings)
            {
                try
                {
                    frontEnd.UnmapSharedMemory(Region, start, mapping.Length);
                }
                catch (VhostException e)
                {
                    s_log.Debug("what was mapped at 0x{Start:x}: {Error}", start, e.Message);
                }
            }
            _mappings.Clear();
        }
    }

    /// <summary>Takes away all mappings that a range touches.</summary>
    /// <returns>0, or a negated error number.</returns>
    /// <exception cref="VhostException">The front-end refused, or is gone.</exception>
    public int Unmap(BackendRequestSender frontEnd, ulong offset, ulong bytes)
    {
        if (bytes == ulong.MaxValue)    // all
            (offset, bytes) = (0, Length);
        if (!IsRange(offset, bytes))
            return -Errnos.Einval;
        lock (_lock)
            Remove(frontEnd, offset, bytes);
        return 0;
    }

    /// <summary>The front-end has taken everything away.</summary>
    public void Clear()
    {
        lock (_lock)
            _mappings.Clear();
    }

    private bool IsRange(ulong offset, ulong bytes) => bytes != 0 && (offset | bytes) % PageSize == 0 && offset <= Length && bytes <= Length - offset;

    private void Remove(BackendRequestSender frontEnd, ulong offset, ulong bytes)
    {
        for (int i = _mappings.Count - 1; i >= 0; i--)
        {
            ulong start = _mappings.GetKeyAtIndex(i);
            ulong length = _mappings.GetValueAtIndex(i).Length;
            if (start >= offset + bytes || start + length <= offset)
                continue;
            _mappings.RemoveAt(i);
            frontEnd.UnmapSharedMemory(Region, start, length);
        }
    }

    private readonly record struct Mapping(ulong Length, ulong Inode, ulong FileOffset, bool IsWritable);
}
