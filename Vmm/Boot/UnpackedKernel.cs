using System.Buffers.Binary;
using System.Diagnostics;
using Vmm.Boot.Payload;
using Vmm.Vhost;
using Vmm.Vhost.Memory;

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

    /// <summary>Unpacks <paramref name="packed"/>.</summary>
    /// <exception cref="VmmException">It is corrupt or not a kernel for this machine, or the guest is too small for it.</exception>
    public static LoadedKernel Load(
        GuestMemory memory, ImageFile file, SetupHeader header, MappedRange packed, PayloadDecoder decoder, KernelEntry entry)
    {
        long begin = Stopwatch.GetTimestamp();
        var ram = new LowRam(memory);
        uint length = BinaryPrimitives.ReadUInt32LittleEndian(packed.Bytes[^4..]);   // every format has its unpacked size at the end
        if (length is 0 or > MaxLength)
            throw file.Error($"the payload's last four bytes say that it unpacks to {length} bytes: corrupt");

        Span<byte> head = stackalloc byte[(int)Math.Min(length, ElfKernel.HeadSize)];
        Decode(file, decoder, packed, head, isHead: true);
        ElfKernel elf = ElfKernel.Parse(file, head, (int)length);
        ulong start = Base(elf);
        ram.CheckFits(file, elf);
        Span<byte> window = ram.SliceForKernel(file, start, length);
        Decode(file, decoder, packed, window, isHead: false);

        ulong? pvh = entry == KernelEntry.Pvh ? FindPvhEntry(file, elf, window) : null;
        ulong address = pvh ?? elf.Require64BitEntry(file);
        foreach (ElfSegment segment in elf.Segments)
            Place(ram, file, segment, start, window);
        ClearRest(elf, start, window);
        if (Log.IsDebugEnabled)
            Log.Debug($"The {decoder.Format} kernel was unpacked in {(long)Stopwatch.GetElapsedTime(begin).TotalMicroseconds} us");
        return new LoadedKernel(pvh is null ? BootMode.Long64 : BootMode.Pvh32, address, Math.Max(elf.End, BootLayout.KernelStart), header);
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
