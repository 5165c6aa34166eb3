using System.Buffers.Binary;

namespace Vmm.Tests.Boot;

/// <summary>Makes a small ELF kernel shaped like Linux: text at 16 MiB, data behind it, a third segment that lies lower in memory than its
/// place in the file would say (as Linux's per-CPU data and init sections do) and has zeros behind it, and notes inside the text.</summary>
internal sealed class ElfBuilder
{
    public const ulong Text = 0x1000000;
    public const ulong Data = 0x1004000;
    public const ulong Init = 0x1006000;
    public const int TextOffset = 0x1000;
    public const int DataOffset = 0x5000;
    public const int InitOffset = 0x9000;
    public const int TextSize = 0x4000;
    public const int DataSize = 0x2000;
    public const int InitSize = 0x3000;
    public const int InitMemory = 0x5000;
    public const int NotesOffset = TextOffset + 0x100;
    public const int ProgramHeaders = 64;
    public const int TailSize = 0x800;
    public const int SectionHeaderSize = 64;

    public byte[]? Notes { get; set; } = Note("Xen\0", 18, 8, Text + 0x40);

    public ulong Entry { get; set; } = Text;

    public int Length => InitOffset + InitSize + TailSize;

    /// <summary>Words behind the ELF file, as a kernel with CONFIG_RANDOMIZE_BASE has them in its payload; the ELF file says then where it ends.</summary>
    public uint[]? Relocations { get; set; }

    /// <summary>One note with an integer of <paramref name="size"/> bytes, after one that must be passed over.</summary>
    public static byte[] Note(string name, uint type, int size, ulong value)
    {
        byte[] notes = new byte[24 + 12 + ((name.Length + 3) & ~3) + 8];
        BinaryPrimitives.WriteUInt32LittleEndian(notes, 4);
        BinaryPrimitives.WriteUInt32LittleEndian(notes.AsSpan(4), 5);   // padded to 8
        BinaryPrimitives.WriteUInt32LittleEndian(notes.AsSpan(8), 18);
        "GNU\0"u8.CopyTo(notes.AsSpan(12));
        Span<byte> note = notes.AsSpan(24);
        BinaryPrimitives.WriteUInt32LittleEndian(note, (uint)name.Length);
        BinaryPrimitives.WriteUInt32LittleEndian(note[4..], (uint)size);
        BinaryPrimitives.WriteUInt32LittleEndian(note[8..], type);
        System.Text.Encoding.ASCII.GetBytes(name, note[12..]);
        BinaryPrimitives.WriteUInt64LittleEndian(note[^8..], value);
        return notes[..(notes.Length - 8 + size)];
    }

    public byte[] Build()
    {
        byte[] elf = new byte[Length];
        new Random(1).NextBytes(elf.AsSpan(0x1000));   // not all alike, so that a byte in a wrong place shows
        elf.AsSpan(DataOffset, DataSize / 2).Clear();  // and something to compress
        new byte[] { 0x7F, (byte)'E', (byte)'L', (byte)'F', 2, 1, 1 }.CopyTo(elf, 0);
        U16(elf, 16, 2);
        U16(elf, 18, 62);
        U32(elf, 20, 1);
        U64(elf, 24, Entry);
        U64(elf, 32, ProgramHeaders);
        U16(elf, 52, 64);
        U16(elf, 54, 56);
        U16(elf, 56, 4);
        Segment(elf, 0, 1, TextOffset, Text, TextSize, TextSize);
        Segment(elf, 1, 1, DataOffset, Data, DataSize, DataSize);
        Segment(elf, 2, 1, InitOffset, Init, InitSize, InitMemory);
        Segment(elf, 3, 4, NotesOffset, Text + 0x100, Notes?.Length ?? 0, Notes?.Length ?? 0);
        Notes?.CopyTo(elf, NotesOffset);
        if (Relocations is null)
            return elf;
        U64(elf, 40, (ulong)(elf.Length - (2 * SectionHeaderSize)));
        U16(elf, 58, SectionHeaderSize);
        U16(elf, 60, 2);
        return [.. elf, .. System.Runtime.InteropServices.MemoryMarshal.AsBytes<uint>(Relocations)];
    }

    public static void U16(byte[] bytes, int offset, ushort value) => BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(offset), value);

    public static void U32(byte[] bytes, int offset, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(offset), value);

    public static void U64(byte[] bytes, int offset, ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(offset), value);

    /// <summary>Adds a program header to <paramref name="elf"/>.</summary>
    public static void AddSegment(byte[] elf, uint type, int offset, ulong address, int fileSize, int memorySize)
    {
        int count = elf[56];
        Segment(elf, count, type, offset, address, fileSize, memorySize);
        elf[56] = (byte)(count + 1);
    }

    private static void Segment(byte[] elf, int index, uint type, int offset, ulong address, int fileSize, int memorySize)
    {
        int at = ProgramHeaders + (index * 56);
        U32(elf, at, type);
        U32(elf, at + 4, 7);
        U64(elf, at + 8, (ulong)offset);
        U64(elf, at + 16, 0xFFFFFFFF80000000 + address);
        U64(elf, at + 24, address);
        U64(elf, at + 32, (ulong)fileSize);
        U64(elf, at + 40, (ulong)memorySize);
        U64(elf, at + 48, 4);
    }
}
