using Vmm.Vhost.Memory;

namespace Vmm.Boot;

/// <summary>What a kernel loader has put into memory.</summary>
/// <param name="Mode">How it is entered.</param>
/// <param name="Entry">Where.</param>
/// <param name="End">The first address that it does not need.</param>
/// <param name="Header">The setup header to hand to it.</param>
internal readonly record struct LoadedKernel(BootMode Mode, ulong Entry, ulong End, SetupHeader Header)
{
    /// <summary>Whether the kernel is told that it may place its memory regions and its modules at random (KASLR_FLAG of the setup header's loadflags). Its own
    /// decompressor would say so.</summary>
    public bool MayRandomise { get; init; }
}

/// <summary>Puts a kernel, its initramfs, its command line and the description of the machine into guest memory.</summary>
internal static class KernelLoader
{
    /// <summary>Whether a file is a Linux kernel: a bzImage with a kernel in it, or an ELF file with a note of the owner "Linux".</summary>
    /// <exception cref="VmmException">It cannot be read, or is a malformed ELF file.</exception>
    public static bool IsLinux(string path)
    {
        using ImageFile file = ImageFile.OpenKernel(path);
        return IsLinux(file);
    }

    /// <inheritdoc cref="IsLinux(string)"/>
    public static bool IsLinux(ImageFile file)
    {
        Span<byte> head = stackalloc byte[ElfKernel.HeadSize];
        head = head[..file.Read(head, 0)];
        if (!ElfKernel.IsElf(head))
            return SetupHeader.IsPresent(head) && SetupHeader.Read(file, head).PayloadLength != 0;
        foreach ((int offset, int size, _) in ElfKernel.Parse(file, head, file.Length).Notes)
        {
            byte[] notes = new byte[Math.Min(size, ElfNotes.MaxSize)];
            if (notes.AsSpan(0, file.Read(notes, (ulong)offset)).IndexOf("Linux\0"u8) >= 0)
                return true;
        }
        return false;
    }

    /// <summary>Loads everything, by the content of the files and not by their names.</summary>
    /// <param name="memory">Guest memory, all zero: new, or cleared.</param>
    /// <param name="files">What to boot.</param>
    /// <param name="options">How.</param>
    /// <param name="rsdp">Where the ACPI RSDP is.</param>
    /// <returns>Where and how the first vCPU begins.</returns>
    /// <exception cref="VmmException">A file is foreign, truncated, corrupt or too large for this guest; one line that names
    /// the file and the field.</exception>
    public static BootEntry Load(GuestMemory memory, KernelFiles files, KernelOptions options, GuestAddress rsdp)
    {
        ImageFile file = files.Kernel;
        Span<byte> head = stackalloc byte[ElfKernel.HeadSize];
        head = head[..file.Read(head, 0)];
        LoadedKernel kernel;
        if (ElfKernel.IsElf(head))
            kernel = ElfLoader.Load(memory, file, head, options);
        else if (SetupHeader.IsPresent(head))
            kernel = BzImage.Load(memory, file, head, options, files.Initramfs?.Size ?? 0, files.Kept);
        else
        {
            throw file.Error(
                $"{(ForeignFile.Describe(head) is string kind ? "is " + kind : "is of an unknown kind")}; a 64-bit x86 bzImage or ELF vmlinux is needed for --kernel");
        }

        KernelCommandLine.Write(memory, options.CommandLine);
        InitramfsRange range = files.Initramfs is not { } initramfs ? default : Initramfs.Load(memory, initramfs, kernel);
        E820Entry[] map = E820Entry.MapOf(memory);
        if (kernel.Mode == BootMode.Pvh32)
        {
            Pvh.Write(memory, range, map, rsdp);
            return new BootEntry(BootMode.Pvh32, kernel.Entry, BootLayout.StartInfo);
        }
        BootParams.Write(memory, kernel, range, map, rsdp);
        return new BootEntry(BootMode.Long64, kernel.Entry, BootLayout.BootParams);
    }
}
