using Vmm.Machine;
using Vmm.Vhost.Memory;

namespace Vmm.Boot;

/// <summary>Places an initramfs as high in low RAM as the kernel allows, where it is least in the way (Linux
/// Documentation/arch/x86/boot.rst, "Loading The Rest of The Kernel").</summary>
internal static class Initramfs
{
    private const ulong PageMask = 4095;

    /// <summary>Reads <paramref name="file"/> into guest memory.</summary>
    /// <param name="memory">Guest memory.</param>
    /// <param name="file">The file.</param>
    /// <param name="kernelEnd">The first address after the kernel and what it needs behind it.</param>
    /// <param name="limit">The last address it may occupy (initrd_addr_max).</param>
    /// <exception cref="VmmException">It does not fit, or cannot be read.</exception>
    public static InitramfsRange Load(GuestMemory memory, ImageFile file, ulong kernelEnd, uint limit)
    {
        var ram = new LowRam(memory);
        ulong size = (ulong)file.Length;
        ulong bottom = (kernelEnd + PageMask) & ~PageMask;
        ulong needed = bottom + ((size + PageMask) & ~PageMask);
        if (needed > Math.Min((ulong)limit + 1, AddressMap.LowRamEnd))
            throw file.Error($"its {size} bytes do not fit between the kernel's end 0x{kernelEnd:x} and 0x{limit:x} (initrd_addr_max)");
        if (needed > ram.End)
            throw ram.NeedsMore(file, needed);

        ulong address = (Math.Min(ram.End, (ulong)limit + 1) - size) & ~PageMask;
        file.ReadExactly(ram.Slice(file, address, size), 0);
        return new InitramfsRange(address, size);
    }
}
