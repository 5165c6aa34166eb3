using Vmm.Boot.Payload;
using Vmm.Vhost.Native;

namespace Vmm.Boot;

/// <summary>Puts the segments of a kernel into guest memory, which is zero, and keeps the list of relocations. Pages of zeros are not written: they would only take
/// memory of the host's, which has to be cleared.</summary>
internal sealed class SegmentWriter : IPayloadSink, IDisposable
{
    private const int PageSize = 4096;
    private const int HugePageSize = 2 << 20;
    private const int PagesInHugePage = HugePageSize / PageSize;

    // A huge page is cleared as a whole, twice on a host with init_on_alloc: with fewer pages in use, single ones cost less (docs/measurements.md).
    private const int WorthAHugePage = 64;

    private readonly LowRam _ram;
    private readonly ImageFile _file;
    private readonly ElfKernel _elf;
    private readonly ulong _firstHugePage;
    private readonly int[] _pagesUsed;      // of each huge page
    private readonly int _listStart;
    private readonly NativeBuffer? _list;

    /// <summary>A writer for one kernel.</summary>
    /// <param name="ram">Where it goes.</param>
    /// <param name="file">Its file, for errors.</param>
    /// <param name="elf">Its segments, which fit.</param>
    /// <param name="relocations">Its list, if it has one that is wanted.</param>
    public SegmentWriter(LowRam ram, ImageFile file, ElfKernel elf, KernelRelocations? relocations)
    {
        (_ram, _file, _elf) = (ram, file, elf);
        _firstHugePage = elf.Segments[0].Address / HugePageSize;
        _pagesUsed = new int[(elf.End / HugePageSize) - _firstHugePage + 1];
        if (relocations is { } list)
        {
            _listStart = list.Start;
            _list = new NativeBuffer(list.Length);
        }
    }

    /// <summary>The list of relocations; valid until disposed.</summary>
    public ReadOnlySpan<byte> Relocations => _list is null ? default : _list.AsSpan<byte>();

    /// <inheritdoc/>
    public void Write(int position, ReadOnlySpan<byte> bytes)
    {
        foreach (ElfSegment segment in _elf.Segments)
        {
            ReadOnlySpan<byte> part = Overlap(position, bytes, segment.FileOffset, segment.FileSize, out ulong skipped);
            if (!part.IsEmpty)
                Place(segment.Address + skipped, part);
        }
        if (_list is not null)
        {
            ReadOnlySpan<byte> part = Overlap(position, bytes, (ulong)_listStart, (ulong)_list.Size, out ulong skipped);
            part.CopyTo(_list.AsSpan<byte>()[(int)skipped..]);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _list?.Dispose();

    // What of the piece is in a range of the payload, and how far behind that range's beginning.
    private static ReadOnlySpan<byte> Overlap(int position, ReadOnlySpan<byte> bytes, ulong start, ulong length, out ulong skipped)
    {
        ulong from = Math.Max((ulong)position, start);
        ulong to = Math.Min((ulong)position + (ulong)bytes.Length, start + length);
        skipped = 0;
        if (from >= to)
            return default;
        skipped = from - start;
        return bytes[(int)(from - (ulong)position)..(int)(to - (ulong)position)];
    }

    private void Place(ulong address, ReadOnlySpan<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            int length = (int)Math.Min((ulong)bytes.Length, HugePageSize - (address % HugePageSize));
            PlaceInHugePage(address, bytes[..length]);
            bytes = bytes[length..];
            address += (ulong)length;
        }
    }

    private void PlaceInHugePage(ulong address, ReadOnlySpan<byte> bytes)
    {
        Span<byte> target = _ram.Slice(_file, address, (ulong)bytes.Length);
        Span<(int Start, int End)> runs = stackalloc (int, int)[(PagesInHugePage / 2) + 1];
        int count = FindUsed(bytes, PageSize - (int)(address % PageSize), runs, out int pages);
        ref int used = ref _pagesUsed[(address / HugePageSize) - _firstHugePage];
        if (used < WorthAHugePage && used + pages >= WorthAHugePage)
            _ram.UseHugePage(address);
        used += pages;
        foreach ((int start, int end) in runs[..count])
            MemoryMove.Down(bytes[start..end], target[start..end]);
    }

    // The runs of pages that are not zero. The first page has firstLength bytes.
    private static int FindUsed(ReadOnlySpan<byte> bytes, int firstLength, Span<(int Start, int End)> runs, out int pages)
    {
        int count = 0;
        pages = 0;
        for (int at = 0, end = Math.Min(firstLength, bytes.Length); at < bytes.Length; at = end, end = Math.Min(at + PageSize, bytes.Length))
        {
            if (!bytes[at..end].ContainsAnyExcept((byte)0))
                continue;
            pages++;
            if (count > 0 && runs[count - 1].End == at)
                runs[count - 1].End = end;
            else
                runs[count++] = (at, end);
        }
        return count;
    }
}
