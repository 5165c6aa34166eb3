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
    private const int MaxMappings = 65536;   // bounds what a back-end makes us remember; the kernel's limit is about the same

    private readonly Lock _lock = new();
    private readonly MemoryMapping _addresses;
    private readonly SortedDictionary<ulong, ulong> _mapped = [];   // lengths by where they begin
    private bool _isDisposed;

    /// <summary>Keeps addresses free for a region.</summary>
    /// <param name="id">The region's number, which its driver knows.</param>
    /// <param name="length">Bytes; a multiple of the page size.</param>
    /// <exception cref="ErrnoException">There are not so many addresses.</exception>
    public SharedMemoryWindow(byte id, ulong length)
    {
        Id = id;
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
    /// <exception cref="VhostException">The range is not in the region, or something is mapped there.</exception>
    public void Map(ulong offset, ulong length, FileDescriptor file, ulong fileOffset, bool isWritable)
    {
        if (length == 0 || (offset | length | fileOffset) % PageSize != 0 || offset > Length || length > Length - offset
            || fileOffset > long.MaxValue - length)
        {
            throw new VhostException($"0x{offset:x}+0x{length:x} of file offset 0x{fileOffset:x} cannot be mapped into region {Id} of 0x{Length:x} bytes");
        }
        lock (_lock)
        {
            foreach ((ulong start, ulong size) in _mapped)
            {
                if (offset < start + size && start < offset + length)
                    throw new VhostException($"0x{offset:x}+0x{length:x} in region {Id} is mapped already");
            }
            if (_isDisposed)
                throw new VhostException($"region {Id} is gone");
            if (_mapped.Count == MaxMappings)
                throw new VhostException($"region {Id} has {MaxMappings} mappings, and no room for more");
            _addresses.Insert(offset, length, file, fileOffset, isWritable ? MappingAccess.SharedReadWrite : MappingAccess.SharedReadOnly);
            _mapped.Add(offset, length);
        }
    }

    /// <summary>Takes away exactly what <see cref="Map"/> has mapped.</summary>
    /// <exception cref="VhostException">That is not mapped.</exception>
    public void Unmap(ulong offset, ulong length)
    {
        lock (_lock)
        {
            if (!_mapped.TryGetValue(offset, out ulong size) || size != length)
                throw new VhostException($"0x{offset:x}+0x{length:x} in region {Id} is not mapped");
            _addresses.Remove(offset, length);
            _mapped.Remove(offset);
        }
    }

    /// <summary>Takes away everything.</summary>
    public void Clear()
    {
        lock (_lock)
        {
            if (_mapped.Count > 0 && !_isDisposed)
                _addresses.Remove(0, Length);
            _mapped.Clear();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        // Its addresses may be somebody else's from here on, and a back-end may be about to map.
        lock (_lock)
        {
            _isDisposed = true;
            _mapped.Clear();
            _addresses.Dispose();
        }
    }
}
