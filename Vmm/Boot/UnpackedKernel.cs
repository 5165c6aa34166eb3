using System.Buffers.Binary;
using System.Diagnostics;
using Vmm.Boot.Payload;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Boot;

/// <summary>Unpacks the ELF kernel inside a bzImage straight into guest memory, such that most of it lands where it belongs.</summary>
/// <remarks>The whole ELF file is decoded to the base B = max(address of segment - its offset in the file). So every segment is decoded
/// to its own address or above it, and is then moved down, lowest address first: a segment ends where the next begins or before, and the
/// next one's bytes were decoded there or above, so no move overwrites what is still to be moved.</remarks>
internal static class UnpackedKernel
{
    private static readonly BoundedLog Log = new("Vmm.Boot");

    // Ten times any kernel's: what a corrupt image can make the host set aside before its payload is looked at.
    private const uint MaxLength = 512 << 20;
    private const ulong PageMask = 4095;

    /// <summary>Unpacks <paramref name="packed"/>, to a random place where the kernel can run at any and nothing says no.</summary>
    /// <param name="memory">Guest memory.</param>
    /// <param name="file">The bzImage.</param>
    /// <param name="header">Its setup header.</param>
    /// <param name="packed">Its payload.</param>
    /// <param name="decoder">What unpacks it.</param>
    /// <param name="options">How the kernel is booted.</param>
    /// <param name="initramfsSize">The bytes for which there must be room above the kernel.</param>
    /// <exception cref="VmmException">It is corrupt or not a kernel for this machine, or the guest is too small for it.</exception>
    public static LoadedKernel Load(
        GuestMemory memory, ImageFile file, SetupHeader header, MappedRange packed, PayloadDecoder decoder, KernelOptions options, ulong initramfsSize)
    {
        long begin = Stopwatch.GetTimestamp();
        var ram = new LowRam(memory);
        uint length = BinaryPrimitives.ReadUInt32LittleEndian(packed.Bytes[^4..]);   // every format has its unpacked size at the end
        if (length is 0 or > MaxLength)
            throw file.Error($"the payload's last four bytes say that it unpacks to {length} bytes: corrupt");

        Span<byte> head = stackalloc byte[(int)Math.Min(length, ElfKernel.HeadSize)];
        Decode(file, decoder, packed, head, isHead: true);
        ElfKernel elf = ElfKernel.Parse(file, head, (int)length);
        bool isPvh = options.Entry == KernelEntry.Pvh;   // until Linux 6.12 a kernel that is entered so runs at its link-time addresses only
        bool mayRandomise = !isPvh && !KernelParameters.HasNoKaslr(options.CommandLine);
        KernelRelocations? relocations = mayRandomise ? KernelRelocations.Find(elf, (int)length) : null;
        KernelShift shift = relocations is null ? default : ChooseShift(header, elf, length, ram, options, initramfsSize);
        uint linkedAt = (uint)elf.Segments[0].Address;
        elf = elf.MovedUp(shift.Physical);
        ulong start = Base(elf);
        ram.CheckFits(file, elf);
        Span<byte> window = ram.SliceForKernel(file, start, length);
        Decode(file, decoder, packed, window, isHead: false);

        ulong address = isPvh ? FindPvhEntry(file, elf, window) : elf.Require64BitEntry(file);
        foreach (ElfSegment segment in elf.Segments)
            Place(ram, file, segment, start, window);
        long unpacked = Stopwatch.GetTimestamp();
        if (shift.Virtual != 0 && !relocations!.Value.Apply(file, window, LoadedBytes(ram, file, elf), linkedAt, shift.Virtual))
        {
            Log.Info("The kernel's list of relocations is of a form that is not known here: the kernel keeps its virtual addresses");
            shift = shift with { Virtual = 0 };
        }
        long relocated = Stopwatch.GetTimestamp();
        ClearRest(elf, start, window);
        if (Log.IsDebugEnabled)
        {
            Log.Debug($"The {decoder.Format} kernel was unpacked in {Microseconds(begin, unpacked)} us");
            Log.Debug($"It lies 0x{shift.Physical:x} higher in memory and 0x{shift.Virtual:x} in its address space than it was linked for: {Microseconds(unpacked, relocated)} us");
        }
        return new LoadedKernel(isPvh ? BootMode.Pvh32 : BootMode.Long64, address, Math.Max(elf.End, BootLayout.KernelStart), header)
        {
            MayRandomise = mayRandomise,
        };
    }

    private static long Microseconds(long from, long to) => (long)Stopwatch.GetElapsedTime(from, to).TotalMicroseconds;

    private static KernelShift ChooseShift(SetupHeader header, ElfKernel elf, uint length, LowRam ram, KernelOptions options, ulong initramfsSize)
    {
        ulong end = Math.Max(Math.Max(elf.End, Base(elf) + length), elf.Segments[0].Address + header.InitSize);
        ulong room = Math.Min(ram.End, (ulong)header.InitrdLimit + 1);   // the initramfs goes to its end
        ulong taken = (initramfsSize + PageMask) & ~PageMask;
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

    private static void Decode(ImageFile file, PayloadDecoder decoder, MappedRange packed, Span<byte> target, bool isHead)
    {
        try
        {
            if (isHead)
                decoder.DecodeHead(packed, target);
            else
                decoder.Decode(packed, target);
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            // Whatever a decoder trips over in a damaged file, it is the file's fault: several libraries, each with exceptions of its own.
            throw file.Error($"the {decoder.Format} payload is corrupt: {e.Message.ReplaceLineEndings(" ")}", e);
        }
    }

    private static ulong Base(ElfKernel elf)
    {
        ulong start = BootLayout.KernelStart;
        foreach (ElfSegment segment in elf.Segments)
        {
            if (segment.FileSize != 0)
                start = Math.Max(start, segment.Address - Math.Min(segment.Address, segment.FileOffset));
        }
        return start;
    }

    private static void Place(LowRam ram, ImageFile file, in ElfSegment segment, ulong start, Span<byte> window)
    {
        if (segment.FileSize != 0 && segment.Address != start + segment.FileOffset)
        {
            MemoryMove.Down(
                window.Slice((int)segment.FileOffset, (int)segment.FileSize), ram.Slice(file, segment.Address, segment.FileSize));
        }
    }

    // The segments' zeros, and what is between segments: memory is zero already, but for where other parts of the file were decoded to.
    private static void ClearRest(ElfKernel elf, ulong start, Span<byte> window)
    {
        ulong from = start;
        ulong end = Math.Min(elf.End, start + (ulong)window.Length);
        foreach (ElfSegment segment in elf.Segments)
        {
            if (segment.FileSize == 0)
                continue;
            Clear(window, Math.Min(segment.Address, end));
            from = Math.Max(from, segment.Address + segment.FileSize);
        }
        Clear(window, end);

        void Clear(Span<byte> window, ulong to)
        {
            if (from < to)
                window[(int)(from - start)..(int)(to - start)].Clear();
        }
    }

    private static ulong FindPvhEntry(ImageFile file, ElfKernel elf, ReadOnlySpan<byte> window)
    {
        foreach ((int offset, int size, int alignment) in elf.Notes)
        {
            ReadOnlySpan<byte> notes = window.Slice(offset, Math.Min(size, ElfNotes.MaxSize));
            if (ElfNotes.FindPvhEntry(file, notes, alignment) is ulong entry)
            {
                ElfLoader.CheckPvhEntry(file, elf, entry);
                return entry;
            }
        }
        throw ElfLoader.NoPvhNote(file);
    }
}
