using System.Numerics;

namespace Vmm.Boot;

/// <summary>How many bytes higher than at its link-time addresses a kernel is put, at random (KASLR): in guest memory, and in its own address space. The kernel's own
/// decompressor, which does not run, would choose so, too (Linux 6.1 arch/x86/boot/compressed/kaslr.c, choose_random_location).</summary>
/// <param name="Physical">In guest memory; a multiple of the kernel's alignment.</param>
/// <param name="Virtual">In its address space; a multiple of the kernel's alignment, less than 1 GiB.</param>
internal readonly record struct KernelShift(ulong Physical, uint Virtual)
{
    private const ulong KernelImageSize = 1 << 30;      // KERNEL_IMAGE_SIZE of a kernel with CONFIG_RANDOMIZE_BASE: its part of the address space
    private const ulong MinAlignment = 2 << 20;         // MIN_KERNEL_ALIGN: it is mapped by pages of that size

    /// <summary>Chooses at random among all places where the kernel fits.</summary>
    /// <param name="header">Its setup header.</param>
    /// <param name="elf">The kernel.</param>
    /// <param name="end">The first address that it does not need at its link-time address, before it reads the memory map.</param>
    /// <param name="roomEnd">The first address of guest memory that it may not have.</param>
    /// <param name="random">64 random bits each time.</param>
    /// <returns>None at all where the kernel cannot be moved.</returns>
    public static KernelShift Choose(SetupHeader header, ElfKernel elf, ulong end, ulong roomEnd, Func<ulong> random)
    {
        ulong alignment = header.Alignment;
        ulong start = elf.Segments[0].Address;
        bool canMove = header.IsRelocatable && BitOperations.IsPow2(alignment) && alignment >= MinAlignment
            && start >= BootLayout.KernelStart && start % alignment == 0 && end <= KernelImageSize;
        return canMove ? new KernelShift(Slot(roomEnd), (uint)Slot(KernelImageSize)) : default;

        ulong Slot(ulong limit) => end >= limit ? 0 : random() % ((limit - end) / alignment + 1) * alignment;
    }
}
