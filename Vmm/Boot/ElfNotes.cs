using System.Buffers.Binary;
using Vmm.Vhost;

namespace Vmm.Boot;

/// <summary>Finds the PVH entry point among ELF notes.</summary>
internal static class ElfNotes
{
    /// <summary>No section of notes is read beyond this; a kernel has a few hundred bytes of them.</summary>
    public const int MaxSize = 1 << 20;

    private const int HeaderSize = 12;   // n_namesz, n_descsz, n_type
    private const uint Phys32Entry = 18;   // XEN_ELFNOTE_PHYS32_ENTRY, Xen public/elfnote.h

    /// <summary>Searches <paramref name="notes"/> for the note "Xen" of type 18.</summary>
    /// <param name="file">The file, for errors.</param>
    /// <param name="notes">The contents of a PT_NOTE segment.</param>
    /// <param name="alignment">Of names and descriptors, as the segment has it: 4 or 8.</param>
    /// <returns>The guest-physical address of the 32-bit entry point, or null if there is no such note.</returns>
    /// <exception cref="VmmException">A note is malformed; the message names the field.</exception>
    public static ulong? FindPvhEntry(ImageFile file, ReadOnlySpan<byte> notes, int alignment)
    {
        // A segment has the largest alignment of its sections, and a section of 4 may follow one of 8. And some tools align the notes by 4 whatever they say.
        if (alignment == 8)
        {
            try
            {
                if (Search(file, notes, 8) is ulong entry)
                    return entry;
            }
            catch (VmmException)
            {
            }
        }
        return Search(file, notes, 4);
    }

    private static ulong? Search(ImageFile file, ReadOnlySpan<byte> notes, int alignment)
    {
        ulong position = 0;
        while (position + HeaderSize <= (ulong)notes.Length)   // moves on by 12 or more each time
        {
            ReadOnlySpan<byte> header = notes.Slice((int)position, HeaderSize);
            ulong nameSize = BinaryPrimitives.ReadUInt32LittleEndian(header);
            ulong size = BinaryPrimitives.ReadUInt32LittleEndian(header[4..]);
            uint type = BinaryPrimitives.ReadUInt32LittleEndian(header[8..]);
            ulong name = position + HeaderSize;
            ulong content = Align.Up(name + nameSize, (ulong)alignment);
            if (content > (ulong)notes.Length || size > (ulong)notes.Length - content)
                throw file.Error($"ELF note at 0x{position:x}: n_namesz 0x{nameSize:x} and n_descsz 0x{size:x} reach beyond the notes");

            if (type == Phys32Entry && notes.Slice((int)name, (int)nameSize).SequenceEqual("Xen\0"u8))
            {
                ReadOnlySpan<byte> entry = notes.Slice((int)content, (int)size);
                return size switch
                {
                    4 => BinaryPrimitives.ReadUInt32LittleEndian(entry),
                    8 => BinaryPrimitives.ReadUInt64LittleEndian(entry),
                    _ => throw file.Error($"PVH note: n_descsz is {size} instead of 4 or 8"),
                };
            }
            position = Align.Up(content + size, (ulong)alignment);
        }
        return null;
    }
}
