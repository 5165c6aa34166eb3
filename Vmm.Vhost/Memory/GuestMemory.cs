using Vmm.Vhost.Native;

namespace Vmm.Vhost.Memory;

/// <summary>A guest's RAM: one sealed memfd, mapped once and shared, seen by the guest as a few large regions.</summary>
/// <remarks>Dispose of it after whatever uses it. Afterwards every access to its bytes throws <see cref="ObjectDisposedException"/>. The memory is given
/// back at once, but its addresses in this process stay reserved until nothing refers to this object, its address space or a queue in it. A thread
/// that still reads there, by a span for example, finds zeros and harms nobody.</remarks>
public sealed class GuestMemory : IDisposable
{
    /// <summary>At most this many regions, so that any vhost-user back-end takes them in one SET_MEM_TABLE
    /// (vhost-user.rst, "Memory region description").</summary>
    public const int MaxRegions = 8;

    private const ulong PageSize = 4096;
    private const ulong HugePageSize = 2 << 20;   // what a page directory entry maps
    private const ulong PopulatedPiece = 64 << 20;   // some tenths of a second on a slow host: so late a cancellation is heard

    private readonly MemoryMapping _mapping;
    private readonly GuestMemoryOptions _options;
    private bool _isDisposed;

    private GuestMemory(FileDescriptor file, MemoryMapping mapping, GuestRegion[] regions, GuestMemoryOptions options)
    {
        _options = options;
        File = file;
        _mapping = mapping;
        AddressSpace = new GuestAddressSpace(mapping, regions);
    }

    /// <summary>The memfd that holds all of it, region after region; handed to back-ends.</summary>
    public FileDescriptor File { get; }

    /// <summary>The regions, by rising guest-physical address.</summary>
    public ReadOnlySpan<GuestRegion> Regions => AddressSpace.Regions;

    /// <summary>The way to its bytes.</summary>
    public GuestAddressSpace AddressSpace { get; }

    /// <summary>All regions together, in bytes.</summary>
    public ulong Size => _mapping.Length;

    /// <summary>Makes memory for the given <paramref name="ranges"/> of guest-physical addresses.</summary>
    /// <param name="ranges">1 to 8 ranges, rising and apart; starts and sizes are multiples of the page size (4 KiB, or the huge page size).</param>
    /// <param name="options">How the memory is backed; normal pages on demand when null.</param>
    /// <param name="cancellation">Ends the wait for <see cref="GuestMemoryOptions.Prefault"/>.</param>
    /// <exception cref="OperationCanceledException">It was cancelled; nothing is left.</exception>
    /// <exception cref="GuestMemoryException">The host cannot give this memory; the message says why and what to do.</exception>
    /// <exception cref="ArgumentException">The ranges overlap, are unaligned, too many, or reach to the end of all addresses or beyond it (2^64): a
    /// mistake of the caller.</exception>
    public static GuestMemory Create(
        ReadOnlySpan<(GuestAddress Start, ulong Size)> ranges, GuestMemoryOptions? options = null, CancellationToken cancellation = default)
    {
        options ??= new GuestMemoryOptions();
        ulong total = CheckRanges(ranges, Math.Max(options.HugePageSize, PageSize));
        FileDescriptor? file = null;
        MemoryMapping? mapping = null;
        try
        {
            file = MemFd.Create("guest-memory", total, options.HugePageSize);
            // Huge pages are reserved by mmap, so that a host with too few of them says so here and not by SIGBUS later.
            mapping = MemoryMapping.MapAligned(
                file,
                total,
                options.HugePageSize == 0 ? MappingAccess.SharedReadWriteLazy : MappingAccess.SharedReadWrite,
                Math.Max(options.HugePageSize, HugePageSize));
            mapping.LeaveOutOfCoreDumps();
            if (options.HugePageSize == 0)
                mapping.PreferHugePages();
            if (options.Prefault)
                Populate(mapping, options, cancellation);
            return new GuestMemory(file, mapping, Lay(ranges, mapping), options);
        }
        catch (Exception e)
        {
            mapping?.Dispose();
            file?.Dispose();
            if (e is ErrnoException error)
                throw new GuestMemoryException(Explain(total, options, error), error);
            throw;
        }
    }

    /// <inheritdoc cref="GuestAddressSpace.Slice"/>
    public Span<byte> Slice(GuestAddress address, int length) => AddressSpace.Slice(address, length);

    /// <inheritdoc cref="GuestAddressSpace.TrySlice"/>
    public bool TrySlice(GuestAddress address, ulong length, out Span<byte> span) => AddressSpace.TrySlice(address, length, out span);

    /// <inheritdoc cref="GuestAddressSpace.HostAddress"/>
    public nint HostAddress(GuestAddress address, int length) => AddressSpace.HostAddress(address, length);

    /// <inheritdoc cref="GuestAddressSpace.Read"/>
    public T Read<T>(GuestAddress address)
        where T : unmanaged => AddressSpace.Read<T>(address);

    /// <inheritdoc cref="GuestAddressSpace.Write"/>
    public void Write<T>(GuestAddress address, in T value)
        where T : unmanaged => AddressSpace.Write(address, in value);

    /// <summary>Has the host back a range by huge pages, as far as it can: worth it for what is about to be filled in full, such as a
    /// kernel. One page fault instead of 512, for the host and for the guest.</summary>
    /// <param name="start">Where the range begins; it is widened to whole huge pages inside the region.</param>
    /// <param name="length">Bytes; the range must lie in one region.</param>
    /// <returns>Whether all of the range is in huge pages. A host older than Linux 6.1 has none of it there, one that runs out of huge pages
    /// leaves the rest as it was, and pages that somebody holds at the moment stay where they are.</returns>
    /// <exception cref="GuestMemoryException">Some of the range is not guest RAM.</exception>
    public unsafe bool TryUseHugePages(GuestAddress start, ulong length)
    {
        AddressSpace.ThrowIfGone();
        foreach (ref readonly GuestRegion region in Regions)
        {
            ulong offset = start.Value - region.Start.Value;
            if (offset >= region.Size || length > region.Size - offset)
                continue;
            ulong first = Align.Down(offset, HugePageSize);
            bool complete = true;
            ulong last = Math.Min(Align.Up(offset + length, HugePageSize), Align.Down(region.Size, HugePageSize));
            for (ulong page = region.FileOffset + first; page < region.FileOffset + last; page += HugePageSize)
            {
                // The kernel makes a huge page of the small pages that are there. It makes none where there is no page at all: touch one.
                // SAFETY: inside the mapping.
                _ = Volatile.Read(ref *(_mapping.Pointer + page));
                int result = _mapping.TryCollapse(page, HugePageSize);
                if (result is < 0 and not -Errnos.Eagain)
                    return false;
                complete &= result == 0;   // EAGAIN: the kernel, or a device, holds some of these pages; that says nothing of the next
            }
            return complete;
        }
        throw GuestAddressSpace.OutOfRange(start, length);
    }

    /// <summary>Zeroes all of it: what a guest finds after a cold start. Huge pages are reserved again, and with
    /// <see cref="GuestMemoryOptions.Prefault"/> all of it is backed again, when this returns.</summary>
    /// <exception cref="ErrnoException">The host does not take the pages back.</exception>
    /// <param name="cancellation">Ends the wait for <see cref="GuestMemoryOptions.Prefault"/>.</param>
    /// <exception cref="GuestMemoryException">The host has not so much memory any more.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled.</exception>
    public void Clear(CancellationToken cancellation = default)
    {
        Discard();
        try
        {
            if (_options.HugePageSize != 0)
            {
                // Whoever gives huge pages back gives up what was reserved, and only mmap reserves them.
                _mapping.Replace(File, 0);
                _mapping.LeaveOutOfCoreDumps();
            }
            if (_options.Prefault)
                Populate(_mapping, _options, cancellation);
        }
        catch (ErrnoException e)
        {
            throw new GuestMemoryException(Explain(Size, _options, e), e);
        }
    }

    /// <summary>Gives its pages back to the host. It reads as zeros, and takes new pages when it is written to.</summary>
    public void Discard()
    {
        AddressSpace.ThrowIfGone();
        _mapping.Discard();
    }

    /// <summary>Gives the memory back.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _isDisposed, true))
            return;
        AddressSpace.End();
        _mapping.Retire();
        File.Dispose();
    }

    private static void Populate(MemoryMapping mapping, GuestMemoryOptions options, CancellationToken cancellation)
    {
        ulong piece = Math.Max(PopulatedPiece, options.HugePageSize);
        for (ulong offset = 0; offset < mapping.Length; offset += piece)
        {
            cancellation.ThrowIfCancellationRequested();
            mapping.Populate(offset, Math.Min(piece, mapping.Length - offset));
        }
    }

    private static ulong CheckRanges(ReadOnlySpan<(GuestAddress Start, ulong Size)> ranges, ulong alignment)
    {
        if (ranges.Length is 0 or > MaxRegions)
            throw new ArgumentException($"guest memory takes 1 to {MaxRegions} ranges, not {ranges.Length}", nameof(ranges));
        ulong total = 0;
        var next = new GuestAddress(0);
        foreach ((GuestAddress start, ulong size) in ranges)
        {
            // What ends at 2^64 has no end that a GuestAddress could say. So the sum of all sizes does not wrap, either.
            if (size == 0 || size % alignment != 0 || start.Value % alignment != 0 || start < next || size > ulong.MaxValue - start.Value)
                throw new ArgumentException($"bad range of guest memory {start}+0x{size:x} (alignment 0x{alignment:x})", nameof(ranges));
            next = start + size;
            total += size;
        }
        return total;
    }

    private static unsafe GuestRegion[] Lay(ReadOnlySpan<(GuestAddress Start, ulong Size)> ranges, MemoryMapping mapping)
    {
        var regions = new GuestRegion[ranges.Length];
        ulong offset = 0;
        for (int i = 0; i < ranges.Length; i++)
        {
            regions[i] = new GuestRegion(ranges[i].Start, ranges[i].Size, offset, (nint)(mapping.Pointer + offset));
            offset += ranges[i].Size;
        }
        return regions;
    }

    private static string Explain(ulong total, GuestMemoryOptions options, ErrnoException error)
    {
        string what = $"cannot allocate {total >> 20} MiB of guest memory";
        if (options.HugePageSize != 0)
        {
            ulong kib = options.HugePageSize >> 10;
            string reason = error.Errno == Errnos.Enomem ? "the host has not so many that are free" : error.Message;
            return $"{what} in huge pages of {kib} KiB: {reason}: reserve them with "
                + $"echo {(total + options.HugePageSize - 1) / options.HugePageSize} > /sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages, or use normal pages";
        }
        if (error.Errno == Errnos.Efbig)
            return $"{what}: {error.Message}: the limit of file sizes holds for memory, too: ulimit -f unlimited";
        if (error.Errno == Errnos.Enomem && ResourceLimit.Addresses.Current is { } addresses and not ResourceLimit.Infinity)
            return $"{what}: this process may use {addresses >> 20} MiB of addresses in all: ulimit -v unlimited, or give the guest less memory";
        return options.Prefault
            ? $"{what} at once: {error.Message}: give the guest less memory, or leave prefault off"
            : $"{what}: {error.Message}: give the guest less memory";
    }
}
