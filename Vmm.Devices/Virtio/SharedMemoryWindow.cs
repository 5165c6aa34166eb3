using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio;

/// <summary>A shared-memory region of a device (VIRTIO 1.2 §2.10): guest-physical addresses over which its back-end maps files. Where
/// nothing is mapped there is no memory, not even of the host's: a guest that looks there anyway cannot go on.</summary>
/// <remarks>Thread-safe: a back-end may map while others wait for it with the device's lock held. This process never looks into it, and no other device does: a file that its owner makes shorter is the guest's trouble alone.</remarks>
public sealed class SharedMemoryWindow : IDisposable
{
    /// <summary>The largest region, 64 GiB. For each page of a slot KVM takes some bytes of the host's, mapped or not: a terabyte would
    /// cost gigabytes.</summary>
    public const ulong MaxLength = 64UL << 30;

    private const ulong PageSize = 4096;
    private const int MostPieces = 3;   // that a new mapping makes of an orphan in whose middle it is: two rests, and itself

    private readonly Lock _lock = new();
    private readonly MemoryMapping _addresses;
    private readonly MappingBudget _budget;
    private readonly SortedList<ulong, Mapping> _mapped = [];   // by where they begin; no two overlap
    private bool _isDisposed;

    /// <summary>Keeps addresses free for a region.</summary>
    /// <param name="id">The region's number, which its driver knows.</param>
    /// <param name="length">Bytes; a multiple of the page size.</param>
    /// <exception cref="ErrnoException">There are not so many addresses.</exception>
    public SharedMemoryWindow(byte id, ulong length)
        : this(id, length, MappingBudget.Process)
    {
    }

    internal SharedMemoryWindow(byte id, ulong length, MappingBudget budget)
    {
        Id = id;
        _budget = budget;
        _addresses = MemoryMapping.Reserve(length);
    }

    /// <summary>The region's number.</summary>
    public byte Id { get; }

    /// <summary>Bytes.</summary>
    public ulong Length => _addresses.Length;

    /// <summary>Where the guest sees it; set before the guest runs.</summary>
    public GuestAddress Start { get; set; }

    /// <summary>Where it is in this process: for KVM only.</summary>
    public unsafe nint HostAddress => (nint)_addresses.Pointer;

    /// <summary>Maps a part of a file.</summary>
    /// <param name="offset">Where in the region.</param>
    /// <param name="length">Bytes.</param>
    /// <param name="file">The file; it may be closed afterwards.</param>
    /// <param name="fileOffset">Where in the file.</param>
    /// <param name="isWritable">Whether the guest may write to it.</param>
    /// <exception cref="VhostException">The range is not in the region, something is mapped there, or this process has as many mappings as its
    /// back-ends may have.</exception>
    /// <exception cref="ErrnoException">The file cannot be mapped so.</exception>
    public void Map(ulong offset, ulong length, FileDescriptor file, ulong fileOffset, bool isWritable)
    {
        if (length == 0 || (offset | length | fileOffset) % PageSize != 0 || offset > Length || length > Length - offset
            || fileOffset > long.MaxValue - length)
        {
            throw new VhostException($"0x{offset:x}+0x{length:x} of file offset 0x{fileOffset:x} cannot be mapped into region {Id} of 0x{Length:x} bytes");
        }
        lock (_lock)
        {
            for (int i = FirstFrom(offset); i < _mapped.Count && _mapped.GetKeyAtIndex(i) < offset + length; i++)
            {
                if (!_mapped.GetValueAtIndex(i).IsOrphan)
                    throw new VhostException($"0x{offset:x}+0x{length:x} in region {Id} is mapped already");
            }
            if (_isDisposed)
                throw new VhostException($"region {Id} is gone");
            if (!_budget.TryTake(MostPieces))
            {
                throw new VhostException($"0x{offset:x}+0x{length:x} cannot be mapped into region {Id}: the back-ends of all devices have mapped "
                    + $"{_budget.Limit} pieces of files, a quarter of the mappings that a process may have: raise vm.max_map_count (sysctl), or give a device a smaller window");
            }
            int before = _mapped.Count;
            try
            {
                _addresses.Insert(offset, length, file, fileOffset, isWritable ? MappingAccess.SharedReadWrite : MappingAccess.SharedReadOnly);
                CutOrphans(offset, length);
                _mapped.Add(offset, new Mapping(length, IsOrphan: false));
            }
            finally
            {
                _budget.Return(MostPieces - (_mapped.Count - before));
            }
        }
    }

    /// <summary>Takes away exactly what <see cref="Map"/> has mapped.</summary>
    /// <exception cref="VhostException">That is not mapped.</exception>
    public void Unmap(ulong offset, ulong length)
    {
        lock (_lock)
        {
            if (!_mapped.TryGetValue(offset, out Mapping mapping) || mapping.Length != length)
                throw new VhostException($"0x{offset:x}+0x{length:x} in region {Id} is not mapped");
            _addresses.Remove(offset, length);
            _mapped.Remove(offset);
            _budget.Return(1);
        }
    }

    /// <summary>Whoever has mapped what is there is gone, and its successor may map over it. Until then it stays: a guest that looks where
    /// nothing is mapped cannot go on, and this one does not know of the change.</summary>
    public void Orphan()
    {
        lock (_lock)
        {
            for (int i = 0; i < _mapped.Count; i++)
                _mapped.SetValueAtIndex(i, _mapped.GetValueAtIndex(i) with { IsOrphan = true });
        }
    }

    /// <summary>Takes away everything.</summary>
    public void Clear()
    {
        lock (_lock)
        {
            if (_mapped.Count > 0 && !_isDisposed)
                _addresses.Remove(0, Length);
            Forget();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        // From here on the addresses may belong to another mapping. The lock and the flag keep a back-end's late request away from them.
        lock (_lock)
        {
            _isDisposed = true;
            Forget();
            _addresses.Dispose();
        }
    }

    private void Forget()
    {
        _budget.Return(_mapped.Count);
        _mapped.Clear();
    }

    // A mapping has taken the place of orphans, or of parts of them.
    private void CutOrphans(ulong offset, ulong length)
    {
        ulong end = offset + length;
        int first = FirstFrom(offset);
        while (first < _mapped.Count && _mapped.GetKeyAtIndex(first) < end)
        {
            ulong start = _mapped.GetKeyAtIndex(first);
            Mapping orphan = _mapped.GetValueAtIndex(first);
            _mapped.RemoveAt(first);
            if (start < offset)
            {
                _mapped.Add(start, orphan with { Length = offset - start });
                first++;
            }
            if (start + orphan.Length > end)
            {
                _mapped.Add(end, orphan with { Length = start + orphan.Length - end });
                return;
            }
        }
    }

    // The first mapping that ends behind the offset.
    private int FirstFrom(ulong offset)
    {
        int low = 0, high = _mapped.Count;
        while (low < high)
        {
            int middle = (low + high) / 2;
            if (_mapped.GetKeyAtIndex(middle) + _mapped.GetValueAtIndex(middle).Length > offset)
                high = middle;
            else
                low = middle + 1;
        }
        return low;
    }

    private readonly record struct Mapping(ulong Length, bool IsOrphan);
}
