using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Backend;

/// <summary>The guest's memory as a front-end shows it: regions that are mapped here. Not to be changed; a change makes another one, which
/// may share mappings with it.</summary>
internal sealed class BackendMemory
{
    /// <summary>The most regions: so many slots KVM has at least.</summary>
    public const int MaxRegions = 509;

    private readonly MappedRegion[] _regions;

    private BackendMemory(MappedRegion[] regions)
    {
        _regions = regions;
        var guestRegions = new GuestRegion[regions.Length];
        for (int i = 0; i < regions.Length; i++)
            guestRegions[i] = regions[i].AsGuestRegion();
        AddressSpace = new GuestAddressSpace(guestRegions);
    }

    /// <summary>No memory at all.</summary>
    public static BackendMemory Empty { get; } = new([]);

    /// <summary>The way to its bytes, by guest-physical address.</summary>
    public GuestAddressSpace AddressSpace { get; }

    public ReadOnlySpan<MappedRegion> Regions => _regions;

    /// <summary>A table of <paramref name="regions"/>.</summary>
    /// <exception cref="RefusedException">Two overlap, or there are too many.</exception>
    public static BackendMemory Of(MappedRegion[] regions)
    {
        if (regions.Length > MaxRegions)
            throw new RefusedException($"there are {regions.Length} regions of memory, of {MaxRegions} at most");
        CheckApart(regions, region => region.Payload.GuestAddress, "guest-physical");
        CheckApart(regions, region => region.Payload.UserAddress, "user");
        return new BackendMemory(regions);
    }

    /// <summary>The guest-physical address of <paramref name="length"/> bytes at <paramref name="address"/> of the front-end's.</summary>
    /// <returns>False if they do not lie in one region.</returns>
    public bool TryTranslate(ulong address, ulong length, out GuestAddress guestAddress)
    {
        foreach (MappedRegion region in _regions)
        {
            // Unsigned, and compared by subtraction: nothing can wrap.
            ulong offset = address - region.Payload.UserAddress;
            if (offset < region.Payload.Size && length <= region.Payload.Size - offset)
            {
                guestAddress = new GuestAddress(region.Payload.GuestAddress + offset);
                return true;
            }
        }
        guestAddress = default;
        return false;
    }

    private static void CheckApart(MappedRegion[] regions, Func<MappedRegion, ulong> start, string what)
    {
        MappedRegion[] sorted = [.. regions.OrderBy(start)];
        for (int i = 1; i < sorted.Length; i++)
        {
            // No region wraps, so the difference is right.
            if (start(sorted[i]) - start(sorted[i - 1]) < sorted[i - 1].Payload.Size)
                throw new RefusedException($"regions of memory overlap at {what} address 0x{start(sorted[i]):x}");
        }
    }
}

/// <summary>A region of the guest's memory, mapped.</summary>
internal sealed class MappedRegion : IDisposable
{
    private readonly MemoryMapping _mapping;
    private readonly ulong _start;   // of the region in the mapping

    private MappedRegion(in MemoryRegionPayload payload, MemoryMapping mapping, ulong start)
    {
        Payload = payload;
        _mapping = mapping;
        _start = start;
    }

    public MemoryRegionPayload Payload { get; }

    /// <summary>Maps a region.</summary>
    /// <param name="payload">What the front-end says; checked here.</param>
    /// <param name="file">What it is mapped from; stays the caller's.</param>
    /// <exception cref="ViolationException">The region is empty or wraps.</exception>
    /// <exception cref="RefusedException">The file is none, is too short, or cannot be mapped.</exception>
    public static MappedRegion Map(in MemoryRegionPayload payload, FileDescriptor file)
    {
        string name = $"memory region 0x{payload.GuestAddress:x}+0x{payload.Size:x}";
        if (payload.Size == 0 || Wraps(payload.GuestAddress, payload.Size) || Wraps(payload.UserAddress, payload.Size))
            throw new ViolationException($"{name} is empty or wraps");
        SharedFile shared = SharedFile.Map(file, payload.MmapOffset, payload.Size, name);
        return new MappedRegion(in payload, shared.Mapping, shared.Start);
    }

    /// <summary>The region for an address space.</summary>
    // SAFETY: the start lies inside the mapping.
    public unsafe GuestRegion AsGuestRegion() =>
        new(new GuestAddress(Payload.GuestAddress), Payload.Size, Payload.MmapOffset, (nint)(_mapping.Pointer + _start));

    public void Dispose() => _mapping.Dispose();

    private static bool Wraps(ulong start, ulong size) => start + (size - 1) < start || start + size < start;
}
