using Vmm.Vhost.Memory;

namespace Vmm.Boot;

/// <summary>The RAM from 1 MiB to the hole below 4 GiB, where a kernel and its initramfs go, and the conventional memory of a PC, where a few
/// kernels have a segment, too.</summary>
internal readonly struct LowRam
{
    private const ulong MiB = 1 << 20;

    private readonly GuestMemory _memory;

    /// <summary>The low RAM of <paramref name="memory"/>.</summary>
    public LowRam(GuestMemory memory)
    {
        _memory = memory;
        GuestRegion first = memory.Regions[0];
        End = first.Start.Value == 0 ? Math.Min(first.Size, AddressMap.LowRamEnd) : 0;
    }

    /// <summary>The first address after it.</summary>
    public ulong End { get; }

    /// <summary>The bytes at <paramref name="address"/>.</summary>
    /// <exception cref="VmmException">They do not fit in; the message says how much memory the guest needs at least.</exception>
    public Span<byte> Slice(ImageFile file, ulong address, ulong length)
    {
        if (!Has(address, length))
            throw OutOfPlace(file, address, length);
        if (address + length > End)
            throw NeedsMore(file, address + length);
        return _memory.TrySlice(new(address), length, out Span<byte> span)
            ? span
            : throw file.Error($"the {length >> 20} MiB at 0x{address:x} are more than can be loaded in one piece (2 GiB): give a smaller kernel");
    }

    /// <summary>As <see cref="Slice"/>, for a kernel: what is written as a whole and used all along is better backed by huge pages.</summary>
    /// <exception cref="VmmException">They do not fit in; the message says how much memory the guest needs at least.</exception>
    public Span<byte> SliceForKernel(ImageFile file, ulong address, ulong length)
    {
        Span<byte> span = Slice(file, address, length);
        _memory.TryUseHugePages(new(address), length);
        return span;
    }

    /// <summary>Has the host back the huge page around <paramref name="address"/>, which was sliced, by one of its own, as far as it can.</summary>
    public void UseHugePage(ulong address) => _memory.TryUseHugePages(new(address), 1);

    /// <summary>Whether a machine with enough memory has RAM for a kernel at all of <paramref name="length"/> bytes from <paramref name="address"/> on.</summary>
    public static bool Has(ulong address, ulong length) =>
        (address >= BootLayout.KernelStart && address <= AddressMap.LowRamEnd && length <= AddressMap.LowRamEnd - address)
        || (address <= BootLayout.LowMemoryEnd && length <= BootLayout.LowMemoryEnd - address);

    /// <summary>Refuses a kernel in one piece that is not between 1 MiB and the end.</summary>
    /// <exception cref="VmmException">It is not; the message says how much memory the guest needs at least.</exception>
    public void CheckFits(ImageFile file, ulong address, ulong length)
    {
        if (address < BootLayout.KernelStart || !Has(address, length))
            throw OutOfPlace(file, address, length);
        if (address + length > End)
            throw NeedsMore(file, address + length);
    }

    /// <summary>Refuses a kernel that reaches beyond.</summary>
    /// <exception cref="VmmException">It does; the message says how much memory the guest needs at least.</exception>
    public void CheckFits(ImageFile file, ElfKernel kernel)
    {
        if (kernel.End > End)
            throw NeedsMore(file, kernel.End);
    }

    private static VmmException OutOfPlace(ImageFile file, ulong address, ulong length) =>
        file.Error($"it wants 0x{length:x} bytes at 0x{address:x}, which is not between 1 MiB and 3 GiB: check --kernel, or give a kernel that is linked for addresses in there");

    /// <summary>The failure to throw when all of <paramref name="file"/> would fit if the low RAM reached to <paramref name="end"/>.</summary>
    public VmmException NeedsMore(ImageFile file, ulong end) =>
        file.Error($"needs at least {(end + MiB - 1) / MiB} MiB of guest memory, but the guest has {_memory.Size / MiB} MiB: raise --memory");
}
