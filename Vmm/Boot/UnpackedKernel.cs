using System.Diagnostics;
using Vmm.Boot.Payload;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Boot;

/// <summary>Loads the ELF kernel inside a bzImage, each byte straight to its place in guest memory.</summary>
internal static class UnpackedKernel
{
    private static readonly BoundedLog Log = new("Vmm.Boot");

    private const ulong PageSize = 4096;

    /// <summary>Loads <paramref name="payload"/>, to a random place where the kernel can run at any and nothing says no.</summary>
    /// <param name="memory">Guest memory, zero where the kernel goes to.</param>
    /// <param name="file">The bzImage.</param>
    /// <param name="header">Its setup header.</param>
    /// <param name="payload">Its payload.</param>
    /// <param name="options">How the kernel is booted.</param>
    /// <param name="initramfsSize">The bytes for which there must be room above the kernel.</param>
    /// <exception cref="VmmException">It is corrupt or not a kernel for this machine, or the guest is too small for it.</exception>
    public static LoadedKernel Load(
        GuestMemory memory, ImageFile file, SetupHeader header, IKernelPayload payload, KernelOptions options, ulong initramfsSize)
    {
        long begin = Stopwatch.GetTimestamp();
        var ram = new LowRam(memory);
        Span<byte> head = stackalloc byte[Math.Min(payload.Length, ElfKernel.HeadSize)];
        payload.CopyHead(head);
        ElfKernel elf = ElfKernel.Parse(file, head, payload.Length);
        bool isPvh = options.Entry == KernelEntry.Pvh;   // until Linux 6.12 a kernel that is entered so runs at its link-time addresses only
        bool mayRandomise = !isPvh && !KernelParameters.HasNoKaslr(options.CommandLine);
        KernelRelocations? relocations = mayRandomise ? KernelRelocations.Find(elf, payload.Length) : null;
        KernelShift shift = relocations is null ? default : ChooseShift(header, elf, ram, options, initramfsSize);
        uint linkedAt = (uint)elf.Segments[0].Address;
        elf = elf.MovedUp(shift.Physical);
        ram.CheckFits(file, elf);
        using var writer = new SegmentWriter(ram, file, elf, relocations);
        payload.CopyTo(writer);

        ulong address = isPvh ? FindPvhEntry(ram, file, elf) : elf.Require64BitEntry(file);
        long unpacked = Stopwatch.GetTimestamp();
        if (shift.Virtual != 0 && !KernelRelocations.Apply(file, writer.Relocations, LoadedBytes(ram, file, elf), linkedAt, shift.Virtual))
        {
            Log.Info("The kernel's list of relocations is of a form that is not known here: the kernel keeps its virtual addresses");
            shift = shift with { Virtual = 0 };
        }
        if (Log.IsDebugEnabled)
        {
            long relocated = Stopwatch.GetTimestamp();
            Log.Debug($"The {payload.Name} kernel was unpacked in {Microseconds(begin, unpacked)} us");
            Log.Debug($"It lies 0x{shift.Physical:x} higher in memory and 0x{shift.Virtual:x} in its address space than it was linked for: {Microseconds(unpacked, relocated)} us");
        }
        return new LoadedKernel(isPvh ? BootMode.Pvh32 : BootMode.Long64, address, Math.Max(elf.End, BootLayout.KernelStart), header)
        {
            MayRandomise = mayRandomise,
        };
    }

    private static long Microseconds(long from, long to) => (long)Stopwatch.GetElapsedTime(from, to).TotalMicroseconds;

    private static KernelShift ChooseShift(SetupHeader header, ElfKernel elf, LowRam ram, KernelOptions options, ulong initramfsSize)
    {
        ulong end = Math.Max(elf.End, elf.Segments[0].Address + header.InitSize);
        ulong room = Math.Min(ram.End, (ulong)header.InitrdLimit + 1);   // the initramfs goes to its end
        ulong taken = Align.Up(initramfsSize, PageSize);
        // A kernel that is told which memory to use does not use what the VMM knows of.
        bool mayMove = taken < room && !KernelParameters.LimitsMemory(options.CommandLine);
        return KernelShift.Choose(header, elf, end, mayMove ? room - taken : 0, SystemRandom.NextUInt64);
    }

    // From the lowest segment to the last byte that comes from the file.
    private static Span<byte> LoadedBytes(LowRam ram, ImageFile file, ElfKernel elf)
    {
        ulong start = elf.Segments[0].Address;
        return ram.Slice(file, start, elf.Segments.Max(segment => segment.Address + segment.FileSize) - start);
    }

    // Linux has its notes in a segment, as it reads them itself.
    private static ulong FindPvhEntry(LowRam ram, ImageFile file, ElfKernel elf)
    {
        foreach ((int offset, int size, int alignment) in elf.Notes)
        {
            if (elf.AddressOf(offset, size) is ulong address
                && ElfNotes.FindPvhEntry(file, ram.Slice(file, address, (ulong)Math.Min(size, ElfNotes.MaxSize)), alignment) is ulong entry)
            {
                ElfLoader.CheckPvhEntry(file, elf, entry);
                return entry;
            }
        }
        throw ElfLoader.NoPvhNote(file);
    }
}
