using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>The window of the guest's addresses into which its front-end maps files (DAX). It knows the mappings that this side has asked for. This process
/// never reads a mapped file, so nobody can end it by making one shorter.</summary>
/// <param name="length">Bytes of the window.</param>
/// <param name="open">Opens a file once more, of which a part stays mapped.</param>
internal sealed class DaxWindow(ulong length, DaxWindow.FileOpener open)
{
    /// <summary>Opens the file with a number.</summary>
    /// <returns>0, or a negated error number.</returns>
    public delegate int FileOpener(ulong inode, bool isWritable, out FileDescriptor? file);

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

    /// <summary>The most mappings; by default as many as the largest window has of what Linux maps at a time.</summary>
    internal int Most { get; init; } = 1 << 15;

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
            int error = Remove(frontEnd, offset, bytes, added: 1);
            if (error == 0)
                Add(frontEnd, offset, in mapping, file);
            return error;
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

    /// <summary>Takes away what is mapped in a range. What is mapped beside it stays, though it is away for a moment where it is a part of the same mapping.</summary>
    /// <returns>0, or a negated error number; EIO where the file of such a part cannot be opened, and nothing changes.</returns>
    /// <exception cref="VhostException">The front-end refused, or is gone.</exception>
    public int Unmap(BackendRequestSender frontEnd, ulong offset, ulong bytes)
    {
        if (bytes == ulong.MaxValue)    // all
            (offset, bytes) = (0, Length);
        if (!IsRange(offset, bytes))
            return -Errnos.Einval;
        lock (_lock)
            return Remove(frontEnd, offset, bytes, added: 0);
    }

    /// <summary>The front-end has taken everything away.</summary>
    public void Clear()
    {
        lock (_lock)
            _mappings.Clear();
    }

    private bool IsRange(ulong offset, ulong bytes) => bytes != 0 && (offset | bytes) % PageSize == 0 && offset <= Length && bytes <= Length - offset;

    private void Add(BackendRequestSender frontEnd, ulong offset, in Mapping mapping, FileDescriptor file)
    {
        frontEnd.MapSharedMemory(Region, offset, file, mapping.FileOffset, mapping.Length, mapping.IsWritable);
        _mappings.Add(offset, mapping);
    }

    // A front-end takes a mapping away as a whole (vhost-user.rst, "VHOST_USER_BACKEND_SHMEM_UNMAP"). So what stays of it is mapped anew. Nothing changes where that cannot be opened. A front-end that has as many
    // mappings as it may have can refuse to map it: then the guest has lost it.
    private int Remove(BackendRequestSender frontEnd, ulong offset, ulong bytes, int added)
    {
        ulong end = offset + bytes;
        int first = 0;
        while (first < _mappings.Count && EndOf(first) <= offset)
            first++;
        int behind = first;
        while (behind < _mappings.Count && _mappings.GetKeyAtIndex(behind) < end)
            behind++;
        // None overlaps another: no more than one begins before the range, and no more than one ends behind it.
        bool hasHead = first < behind && _mappings.GetKeyAtIndex(first) < offset, hasTail = first < behind && EndOf(behind - 1) > end;
        if (_mappings.Count - (behind - first) + (hasHead ? 1 : 0) + (hasTail ? 1 : 0) + added > Most)
            return -Errnos.Enomem;
        ulong headStart = 0;
        Mapping head = default, tail = default;
        FileDescriptor? headFile = null, tailFile = null;
        try
        {
            int error = 0;
            if (hasHead)
            {
                headStart = _mappings.GetKeyAtIndex(first);
                head = _mappings.GetValueAtIndex(first);
                head = head with { Length = offset - headStart };
                error = open(head.Inode, head.IsWritable, out headFile);
            }
            if (hasTail && error == 0)
            {
                tail = _mappings.GetValueAtIndex(behind - 1);
                ulong cut = end - _mappings.GetKeyAtIndex(behind - 1);
                tail = tail with { Length = tail.Length - cut, FileOffset = tail.FileOffset + cut };
                error = open(tail.Inode, tail.IsWritable, out tailFile);
            }
            // Not the error itself: the request may be about another file.
            if (error < 0)
                return -Errnos.Eio;
            for (int i = behind - 1; i >= first; i--)
            {
                (ulong start, ulong length) = (_mappings.GetKeyAtIndex(i), _mappings.GetValueAtIndex(i).Length);
                frontEnd.UnmapSharedMemory(Region, start, length);
                _mappings.RemoveAt(i);
            }
            try
            {
                if (hasHead)
                    Add(frontEnd, headStart, in head, headFile!);
            }
            finally
            {
                if (hasTail)
                    Add(frontEnd, end, in tail, tailFile!);
            }
            return 0;
        }
        finally
        {
            headFile?.Dispose();
            tailFile?.Dispose();
        }
    }

    private ulong EndOf(int index) => _mappings.GetKeyAtIndex(index) + _mappings.GetValueAtIndex(index).Length;

    private readonly record struct Mapping(ulong Length, ulong Inode, ulong FileOffset, bool IsWritable);
}
