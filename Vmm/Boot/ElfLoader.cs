using Vmm.Vhost.Memory;

namespace Vmm.Boot;

/// <summary>Loads a bare ELF kernel: its segments are read straight to their places.</summary>
internal static class ElfLoader
{
    /// <summary>Loads the file that begins with <paramref name="head"/>.</summary>
    /// <exception cref="VmmException">The file is not a kernel for this machine, or the guest is too small for it.</exception>
    public static LoadedKernel Load(GuestMemory memory, ImageFile file, ReadOnlySpan<byte> head, KernelOptions options)
    {
        SetupHeader header = SetupHeader.Synthesise();
        KernelCommandLine.Check(options.CommandLine, header.CommandLineLimit);
        ElfKernel elf = ElfKernel.Parse(file, head, file.Length);
        var ram = new LowRam(memory);
        ram.CheckFits(file, elf);

        ulong? pvh = options.Entry == KernelEntry.Linux64 ? null : FindPvhEntry(file, elf);
        if (pvh is null && options.Entry == KernelEntry.Pvh)
            throw NoPvhNote(file);
        ulong entry = pvh ?? elf.Require64BitEntry(file);
        foreach (ElfSegment segment in elf.Segments)
            file.ReadExactly(ram.SliceForKernel(file, segment.Address, segment.FileSize), segment.FileOffset);
        return new LoadedKernel(pvh is null ? BootMode.Long64 : BootMode.Pvh32, entry, Math.Max(elf.End, BootLayout.KernelStart), header)
        {
            MayRandomise = !KernelParameters.HasNoKaslr(options.CommandLine),
        };
    }

    /// <summary>The failure to throw when the PVH entry is asked for and <paramref name="file"/> has none.</summary>
    public static VmmException NoPvhNote(ImageFile file) =>
        file.Error("has no PVH entry point (ELF note \"Xen\" of type 18; CONFIG_PVH): boot it by its 64-bit entry");

    /// <summary>Refuses a PVH entry point that is not in the kernel.</summary>
    public static void CheckPvhEntry(ImageFile file, ElfKernel elf, ulong entry)
    {
        if (!elf.Contains(entry))
            throw file.Error($"PVH note: the entry point 0x{entry:x} is not the physical address of a loaded byte");
    }

    private static ulong? FindPvhEntry(ImageFile file, ElfKernel elf)
    {
        foreach ((int offset, int size, int alignment) in elf.Notes)
        {
            byte[] notes = new byte[Math.Min(size, ElfNotes.MaxSize)];
            file.ReadExactly(notes, (ulong)offset);
            if (ElfNotes.FindPvhEntry(file, notes, alignment) is ulong entry)
            {
                CheckPvhEntry(file, elf, entry);
                return entry;
            }
        }
        return null;
    }
}
