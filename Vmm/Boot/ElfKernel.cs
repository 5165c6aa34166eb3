using System.Buffers.Binary;

namespace Vmm.Boot;

/// <summary>A PT_LOAD segment that occupies memory.</summary>
/// <param name="FileOffset">Where its bytes begin in the file.</param>
/// <param name="Address">The guest-physical address for them.</param>
/// <param name="FileSize">How many bytes there are; the rest of the memory is zero.</param>
/// <param name="MemorySize">The memory it takes in bytes.</param>
internal readonly record struct ElfSegment(ulong FileOffset, ulong Address, ulong FileSize, ulong MemorySize)
{
    /// <summary>The first address after it.</summary>
    public ulong End => Address + MemorySize;
}

/// <summary>The headers of an x86-64 ELF kernel, checked (System V ABI 4.1, "Object Files"; AMD64 supplement 1.0).</summary>
internal sealed class ElfKernel
{
    /// <summary>The headers must lie within so many bytes; every linker puts them first.</summary>
    public const int HeadSize = 4096;

    private const int HeaderSize = 64;
    private const int ProgramHeaderSize = 56;
    private const byte Class64 = 2;
    private const byte LittleEndian = 1;
    private const ushort TypeExecutable = 2;
    private const ushort TypeShared = 3;
    private const ushort MachineX64 = 62;
    private const uint SegmentLoad = 1;
    private const uint SegmentNote = 4;

    private ElfKernel(ulong entry, ElfSegment[] segments, (int Offset, int Size, int Alignment)[] notes, int? fileEnd)
    {
        Entry = entry;
        Segments = segments;
        Notes = notes;
        FileEnd = fileEnd;
        End = segments.Max(segment => segment.End);
    }

    /// <summary>The guest-physical address of the 64-bit entry point (e_entry), as the file says: see <see cref="Require64BitEntry"/>.</summary>
    public ulong Entry { get; }

    /// <summary>What to load, by rising address. The bytes from the file do not overlap, nor anything else that is put into memory; the zeros behind
    /// one segment's bytes may lie where another one's bytes are, which count then.</summary>
    public IReadOnlyList<ElfSegment> Segments { get; }

    /// <summary>Where notes are in the file.</summary>
    public IReadOnlyList<(int Offset, int Size, int Alignment)> Notes { get; }

    /// <summary>The first address after the last segment.</summary>
    public ulong End { get; }

    /// <summary>Where the ELF file ends: behind its section headers, which every linker puts last. Null where there are none, or not within the file.</summary>
    public int? FileEnd { get; }

    /// <summary>The same kernel, to be loaded <paramref name="bytes"/> higher.</summary>
    public ElfKernel MovedUp(ulong bytes) =>
        new(Entry + bytes, [.. Segments.Select(segment => segment with { Address = segment.Address + bytes })], [.. Notes], FileEnd);

    /// <summary>Whether a file that begins with <paramref name="head"/> is an ELF file.</summary>
    public static bool IsElf(ReadOnlySpan<byte> head) => head is [0x7F, (byte)'E', (byte)'L', (byte)'F', ..];

    /// <summary>Reads and checks the headers.</summary>
    /// <param name="file">The file, for errors.</param>
    /// <param name="head">The first bytes of the ELF file, or of the one inside a bzImage; <see cref="HeadSize"/>, or all there are.</param>
    /// <param name="length">The length of the ELF file in bytes.</param>
    /// <exception cref="VmmException">Not a kernel for this machine; the message names the field.</exception>
    public static ElfKernel Parse(ImageFile file, ReadOnlySpan<byte> head, int length)
    {
        if (!IsElf(head))
            throw file.Error("the unpacked kernel is not an ELF file");
        if (head.Length < HeaderSize)
            throw file.Error($"truncated: {head.Length} bytes, but an ELF header has {HeaderSize}");
        ushort machine = U16(head, 18);
        if (head[4] != Class64 || head[5] != LittleEndian || machine != MachineX64)
        {
            throw file.Error(
                $"an ELF file for {MachineName(machine)} ({(head[4] == Class64 ? "64" : "32")}-bit); a 64-bit x86 kernel is needed");
        }
        ushort type = U16(head, 16);
        if (type is not TypeExecutable and not TypeShared)
            throw file.Error($"e_type is {type}: not an executable; a vmlinux is needed");
        ushort size = U16(head, 54);
        if (size != ProgramHeaderSize)
            throw file.Error($"e_phentsize is {size} instead of {ProgramHeaderSize}");
        ulong table = U64(head, 32);
        int count = U16(head, 56);
        if (table > (ulong)head.Length || (ulong)(count * ProgramHeaderSize) > (ulong)head.Length - table)
            throw file.Error($"e_phoff 0x{table:x} and e_phnum {count}: the program headers are not within the first {head.Length} bytes");
        return ParseSegments(file, head.Slice((int)table, count * ProgramHeaderSize), U64(head, 24), FindEnd(head, (ulong)length), length);
    }

    private static int? FindEnd(ReadOnlySpan<byte> head, ulong length)
    {
        ulong sections = U64(head, 40);
        ulong size = (ulong)U16(head, 58) * U16(head, 60);
        return size != 0 && sections >= HeaderSize && sections <= length && size <= length - sections ? (int)(sections + size) : null;
    }

    private static ElfKernel ParseSegments(ImageFile file, ReadOnlySpan<byte> table, ulong entry, int? fileEnd, int length)
    {
        var segments = new List<ElfSegment>();
        var notes = new List<(int, int, int)>();
        for (int i = 0; i * ProgramHeaderSize < table.Length; i++)
        {
            ReadOnlySpan<byte> header = table.Slice(i * ProgramHeaderSize, ProgramHeaderSize);
            uint type = U32(header, 0);
            if (type is not SegmentLoad and not SegmentNote)
                continue;
            var segment = new ElfSegment(U64(header, 8), U64(header, 24), U64(header, 32), U64(header, 40));
            // A segment without bytes in the file, such as a .bss of its own, is at no place in it.
            if (segment.FileSize != 0 && (segment.FileOffset > (ulong)length || segment.FileSize > (ulong)length - segment.FileOffset))
            {
                throw file.Error(
                    $"truncated: program header {i} has p_offset 0x{segment.FileOffset:x} and p_filesz 0x{segment.FileSize:x}, but the ELF file ends at 0x{length:x}");
            }
            if (type == SegmentNote)
            {
                if (segment.FileSize == 0)
                    continue;
                notes.Add(((int)segment.FileOffset, (int)segment.FileSize, U64(header, 48) == 8 ? 8 : 4));
                continue;
            }
            if (segment.FileSize > segment.MemorySize)
                throw file.Error($"program header {i}: p_filesz 0x{segment.FileSize:x} is more than p_memsz 0x{segment.MemorySize:x}");
            if (segment.MemorySize == 0)
                continue;
            CheckPlace(file, segment, i);
            segments.Add(segment);
        }
        if (segments.Count == 0)
            throw file.Error("e_phnum: no PT_LOAD segment, nothing to load");
        return new ElfKernel(entry, WithoutOverlap(file, segments), notes.ToArray(), fileEnd);
    }

    private static void CheckPlace(ImageFile file, in ElfSegment segment, int index)
    {
        if (!LowRam.Has(segment.Address, segment.MemorySize))
        {
            throw file.Error($"program header {index}: p_paddr 0x{segment.Address:x} and p_memsz 0x{segment.MemorySize:x} are neither between 1 MiB and 3 GiB "
                + $"nor below 0x{BootLayout.LowMemoryEnd:x}");
        }
        foreach ((ulong start, ulong end) in BootLayout.Occupied)
        {
            if (segment.Address < end && start < segment.End)
            {
                throw file.Error($"program header {index}: p_paddr 0x{segment.Address:x} and p_memsz 0x{segment.MemorySize:x} reach into 0x{start:x} to 0x{end - 1:x}, "
                    + "where the kernel is given its parameters");
            }
        }
    }

    // Two segments may have the same bytes of the file at the same place: they are loaded once.
    private static ElfSegment[] WithoutOverlap(ImageFile file, List<ElfSegment> segments)
    {
        segments.Sort(static (a, b) => (a.Address, a.FileSize).CompareTo((b.Address, b.FileSize)));
        ElfSegment? last = null;   // the last one with bytes in the file
        for (int i = 0; i < segments.Count; i++)
        {
            ElfSegment segment = segments[i];
            if (segment.FileSize == 0)
                continue;
            if (last is { } before && segment.Address < before.Address + before.FileSize)
            {
                if (segment.FileOffset - segment.Address != before.FileOffset - before.Address)
                    throw file.Error($"two PT_LOAD segments have different bytes for p_paddr 0x{segment.Address:x}");
                ulong same = Math.Min(before.Address + before.FileSize - segment.Address, segment.FileSize);
                segment = new ElfSegment(segment.FileOffset + same, segment.Address + same, segment.FileSize - same, segment.MemorySize - same);
                segments[i] = segment;
            }
            if (segment.FileSize != 0)
                last = segment;
        }
        segments.RemoveAll(static segment => segment.MemorySize == 0);
        segments.Sort(static (a, b) => a.Address.CompareTo(b.Address));
        return segments.ToArray();
    }

    /// <summary>The physical address at which the kernel is entered in 64-bit mode. Only this way in uses e_entry: FreeBSD, for example, has a virtual
    /// address there, and is entered by its PVH note.</summary>
    /// <exception cref="VmmException">e_entry is not the physical address of a loaded byte.</exception>
    public ulong Require64BitEntry(ImageFile file) => Contains(Entry) ? Entry : throw file.Error(
        $"e_entry 0x{Entry:x} is not the physical address of a loaded byte, and the kernel has no PVH entry point that is used instead");

    /// <summary>Whether <paramref name="address"/> holds a byte of the file once it is loaded.</summary>
    public bool Contains(ulong address)
    {
        for (int i = 0; i < Segments.Count; i++)
        {
            if (address >= Segments[i].Address && address - Segments[i].Address < Segments[i].FileSize)
                return true;
        }
        return false;
    }

    /// <summary>Where <paramref name="size"/> bytes of the file from <paramref name="offset"/> on are loaded to; null: not all of them are, in one segment.</summary>
    public ulong? AddressOf(int offset, int size)
    {
        foreach (ElfSegment segment in Segments)
        {
            if ((ulong)offset >= segment.FileOffset && (ulong)offset + (ulong)size <= segment.FileOffset + segment.FileSize)
                return segment.Address + ((ulong)offset - segment.FileOffset);
        }
        return null;
    }

    private static string MachineName(ushort machine) => machine switch
    {
        3 => "i386",
        8 => "MIPS",
        20 or 21 => "PowerPC",
        22 => "s390",
        40 => "arm",
        MachineX64 => "x86-64",
        183 => "arm64",
        243 => "RISC-V",
        258 => "LoongArch",
        _ => $"another machine (e_machine {machine})",
    };

    private static ushort U16(ReadOnlySpan<byte> bytes, int offset) => BinaryPrimitives.ReadUInt16LittleEndian(bytes[offset..]);

    private static uint U32(ReadOnlySpan<byte> bytes, int offset) => BinaryPrimitives.ReadUInt32LittleEndian(bytes[offset..]);

    private static ulong U64(ReadOnlySpan<byte> bytes, int offset) => BinaryPrimitives.ReadUInt64LittleEndian(bytes[offset..]);
}
