namespace Vmm.Boot;

/// <summary>The part of the <see cref="AddressMap"/> below 1 MiB: where everything that a booting kernel is given lies in guest memory (guest-physical addresses).</summary>
internal static class BootLayout
{
    /// <summary>Where a PC's software tells the firmware what kind of start follows a reset, 16 bits: 0x1234 means a warm one (BIOS data area, 40:72).</summary>
    public const ulong ResetFlag = 0x472;

    /// <summary>The GDT that the first vCPU begins with; the kernel soon loads its own.</summary>
    public const ulong Gdt = 0x500;

    /// <summary>hvm_start_info of the PVH entry; the module list and the memory map follow it, all below <see cref="BootParams"/>.</summary>
    public const ulong StartInfo = 0x6000;

    /// <summary>boot_params, the "zero page" of the Linux boot protocol: one page.</summary>
    public const ulong BootParams = 0x7000;

    /// <summary>The top of the identity page tables.</summary>
    public const ulong Pml4 = 0x9000;

    /// <summary>The one page directory pointer table.</summary>
    public const ulong Pdpt = 0xA000;

    /// <summary>Four page directories: 4 GiB in pages of 2 MiB.</summary>
    public const ulong PageDirectories = 0xB000;

    /// <summary>The first address after the page directories.</summary>
    public const ulong PageDirectoriesEnd = 0xF000;

    /// <summary>The kernel's command line, null-terminated.</summary>
    public const ulong CommandLine = 0x20000;

    /// <summary>The most bytes a command line may take with its null: 32 times what Linux takes.</summary>
    public const ulong CommandLineRoom = 0x1_0000;

    /// <summary>What is written below 1 MiB (the BIOS data area and the GDT, parameters and page tables, the command line), as ranges of [start, end): a kernel's segments may lie between.</summary>
    public static ReadOnlySpan<(ulong Start, ulong End)> Occupied => s_occupied;

    private static readonly (ulong, ulong)[] s_occupied =
        [(0x400, 0x1000), (StartInfo, PageDirectoriesEnd), (CommandLine, CommandLine + CommandLineRoom)];

    /// <summary>The end of usable conventional memory, where a PC has its extended BIOS data area.</summary>
    public const ulong LowMemoryEnd = 0x9FC00;

    /// <summary>The end of conventional memory; between here and the ACPI tables a PC has its video memory.</summary>
    public const ulong VideoMemory = 0xA0000;

    /// <summary>The lowest address for kernels and initramfs: 1 MiB.</summary>
    public const ulong KernelStart = 0x100000;
}
