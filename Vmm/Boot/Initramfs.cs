using Vmm.Vhost;
using Vmm.Vhost.Memory;

namespace Vmm.Boot;

/// <summary>Places an initramfs as high in low RAM as the kernel allows, where it is least in the way (Linux
/// Documentation/arch/x86/boot.rst, "Loading The Rest of The Kernel"); where it does not fit, and the kernel can take it from there, above 4 GiB.</summary>
internal static class Initramfs
{
    private const ulong PageSize = 4096;
    private const ulong MiB = 1 << 20;
    private const ulong Piece = 1 << 30;   // a span has less than 2 GiB

    /// <summary>Reads <paramref name="file"/> into guest memory.</summary>
    /// <param name="memory">Guest memory.</param>
    /// <param name="file">The file.</param>
    /// <param name="kernel">The kernel, which is in its place.</param>
    /// <exception cref="VmmException">It does not fit, or cannot be read.</exception>
    public static InitramfsRange Load(GuestMemory memory, ImageFile file, in LoadedKernel kernel)
    {
        ulong highSize = memory.Regions.Length > 1 ? memory.Regions[1].Size : 0;
        ulong address = Place(file, file.Size, kernel, new LowRam(memory).End, highSize);
        for (ulong done = 0; done < file.Size; done += Piece)
        {
            int length = (int)Math.Min(Piece, file.Size - done);
            file.ReadExactly(memory.Slice(new GuestAddress(address + done), length), done);
        }
        return new InitramfsRange(address, file.Size);
    }

    /// <summary>Where <paramref name="size"/> bytes go.</summary>
    /// <param name="file">The file, for errors.</param>
    /// <param name="size">Its size in bytes, 1 or more.</param>
    /// <param name="kernel">The kernel.</param>
    /// <param name="lowEnd">Where the RAM below 4 GiB ends.</param>
    /// <param name="highSize">The RAM above 4 GiB, in bytes.</param>
    /// <exception cref="VmmException">Nowhere; the message says how much memory the guest needs.</exception>
    internal static ulong Place(ImageFile file, ulong size, in LoadedKernel kernel, ulong lowEnd, ulong highSize)
    {
        ulong bottom = Align.Up(kernel.End, PageSize);
        bool isAnywhere = kernel.Mode == BootMode.Long64 && kernel.Header.TakesAddressesAbove4G;
        // A kernel that takes any address names 2 GiB here for the sake of boot loaders that know no others.
        ulong limit = isAnywhere ? AddressMap.LowRamEnd : Math.Min((ulong)kernel.Header.InitrdLimit + 1, AddressMap.LowRamEnd);
        if (FitsBelow(Math.Min(lowEnd, (ulong)kernel.Header.InitrdLimit + 1)))
            return Align.Down(Math.Min(lowEnd, (ulong)kernel.Header.InitrdLimit + 1) - size, PageSize);
        if (FitsBelow(Math.Min(lowEnd, limit)))
            return Align.Down(Math.Min(lowEnd, limit) - size, PageSize);
        if (isAnywhere && size <= highSize)
            return Align.Down(AddressMap.HighRamStart + highSize - size, PageSize);
        if (FitsBelow(limit))
            throw file.Error($"needs at least {ToMiB(bottom + size)} MiB of guest memory, but the guest has {ToMiB(lowEnd + highSize)} MiB: raise --memory");
        if (isAnywhere)
        {
            throw file.Error($"its {ToMiB(size)} MiB need at least {ToMiB(AddressMap.LowRamEnd + size)} MiB of guest memory, as they do not fit below 3 GiB behind the kernel, "
                + $"but the guest has {ToMiB(lowEnd + highSize)} MiB: raise --memory");
        }
        throw file.Error($"its {size} bytes do not fit between the kernel's end 0x{kernel.End:x} and 0x{limit - 1:x}, the last address where this kernel takes it"
            + (kernel.Mode == BootMode.Pvh32 ? " by its PVH entry: give a smaller initramfs, or a bzImage of the kernel"
                : " (initrd_addr_max; xloadflags has no XLF_CAN_BE_LOADED_ABOVE_4G): give a smaller initramfs, or a newer kernel"));

        bool FitsBelow(ulong end) => bottom <= end && size <= end - bottom;
    }

    private static ulong ToMiB(ulong bytes) => (bytes + MiB - 1) / MiB;
}
