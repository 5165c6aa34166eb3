using Vmm.Boot.Cache;

namespace Vmm.Boot;

/// <summary>What to boot, and how.</summary>
internal sealed record KernelOptions
{
    /// <summary>A Linux bzImage or an x86-64 ELF file (vmlinux, or any kernel with a PVH note).</summary>
    public required string KernelPath { get; init; }

    /// <summary>An initramfs (cpio, compressed or not: the kernel unpacks it), or null.</summary>
    public string? InitramfsPath { get; init; }

    /// <summary>The kernel's command line: ASCII, no longer than the kernel takes.</summary>
    public string CommandLine { get; init; } = "";

    /// <summary>Let a bzImage unpack itself in the guest. Slower.</summary>
    public bool GuestDecompression { get; init; }

    /// <summary>Where is kept what a bzImage unpacks to; null: nowhere.</summary>
    public KernelCacheOptions? Cache { get; init; }

    /// <summary>Which entry point to use where there is a choice.</summary>
    public KernelEntry Entry { get; init; }
}

/// <summary>The entry point of an ELF kernel, alone or inside a bzImage.</summary>
internal enum KernelEntry
{
    /// <summary>An ELF file: PVH if it has the note, else the 64-bit entry. A bzImage: the 64-bit entry.</summary>
    Auto,

    /// <summary>The 64-bit entry of the Linux boot protocol (Linux Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").</summary>
    Linux64,

    /// <summary>The 32-bit entry that an ELF note names (Xen docs/misc/pvh.pandoc).</summary>
    Pvh,
}
