using Vmm.Vhost;
using Vmm.Vhost.Memory;

namespace Vmm.Boot;

/// <summary>The memory that Linux fills before its init, beside the kernel itself. Backed by huge pages it costs one fault for 512, and a quarter of the time at the guest's end
/// (docs/measurements.md).</summary>
internal static class EarlyMemory
{
    private const ulong HugePageSize = 2 << 20;
    private const ulong PageSize = 4096, DescriptorSize = 64;   // struct page

    // Linux allocates from the end of RAM downwards until its own allocator is there: descriptors of all pages, and besides them hash tables, page tables and the like.
    private const ulong Besides = 4 << 20;

    // Later it begins at the lower end, but for the first 16 MiB (ZONE_DMA). It has used that much when its init begins.
    private const ulong LowEnd = 16 << 20, Later = 28 << 20;

    /// <summary>The huge pages, by their first addresses, in the order in which they are best backed.</summary>
    /// <param name="regions">The guest's memory.</param>
    public static IEnumerable<GuestAddress> HugePagesOf(ReadOnlySpan<GuestRegion> regions)
    {
        GuestRegion last = regions[^1];
        ulong size = 0;
        foreach (GuestRegion region in regions)
            size += region.Size;
        // Linux goes upwards through its descriptors: from their other end one stays ahead of it.
        ulong end = Align.Down(last.End.Value, HugePageSize);
        ulong start = Align.Up(Math.Max(last.End.Value - Math.Min((size / PageSize * DescriptorSize) + Besides, last.Size), LowEnd), HugePageSize);
        ulong later = Align.Up(Math.Max(last.Start.Value, LowEnd), HugePageSize);
        ulong laterEnd = Math.Min(later + Align.Up(Math.Min(Later, size / 8), HugePageSize), start);
        return Range(start, end, later, laterEnd);
    }

    private static IEnumerable<GuestAddress> Range(ulong start, ulong end, ulong later, ulong laterEnd)
    {
        for (ulong address = end; address > start; address -= HugePageSize)
            yield return new GuestAddress(address - HugePageSize);
        for (ulong address = later; address + HugePageSize <= laterEnd; address += HugePageSize)
            yield return new GuestAddress(address);
    }
}
