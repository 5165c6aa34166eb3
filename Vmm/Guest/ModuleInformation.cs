using System.Buffers.Binary;
using System.Text;

namespace Vmm.Guest;

/// <summary>What a module says of itself: the section .modinfo of its ELF file, texts such as <c>depends=fuse,virtio</c> with a zero behind each.</summary>
internal sealed class ModuleInformation
{
    private const int HeaderSize = 64;              // Elf64_Ehdr
    private const int SectionSize = 64;             // Elf64_Shdr
    private const int TableOffset = 40, CountOffset = 60, NamesOffset = 62;         // e_shoff, e_shnum, e_shstrndx
    private const int NameField = 0, FileOffsetField = 24, LengthField = 32;        // sh_name, sh_offset, sh_size
    private const int MaxLength = 1 << 20;

    private static ReadOnlySpan<byte> SectionName => ".modinfo\0"u8;

    private readonly byte[] _section;

    /// <summary>Looks into <paramref name="module"/>, an unpacked module. One that is no ELF file, or damaged, says nothing.</summary>
    public ModuleInformation(ReadOnlySpan<byte> module) => _section = FindSection(module).ToArray();

    /// <summary>The values of <paramref name="key"/>.</summary>
    public List<string> Values(string key)
    {
        List<string> values = [];
        byte[] prefix = Encoding.ASCII.GetBytes(key + "=");
        for (ReadOnlySpan<byte> rest = _section; !rest.IsEmpty;)
        {
            int end = rest.IndexOf((byte)0);
            ReadOnlySpan<byte> text = end < 0 ? rest : rest[..end];
            rest = end < 0 ? [] : rest[(end + 1)..];
            if (text.StartsWith(prefix))
                values.Add(Encoding.UTF8.GetString(text[prefix.Length..]));
        }
        return values;
    }

    private static ReadOnlySpan<byte> FindSection(ReadOnlySpan<byte> module)
    {
        if (module.Length < HeaderSize || !module.StartsWith("\x7F"u8) || !module[1..].StartsWith("ELF\x02\x01"u8))
            return [];
        ulong table = BinaryPrimitives.ReadUInt64LittleEndian(module[TableOffset..]);
        int count = BinaryPrimitives.ReadUInt16LittleEndian(module[CountOffset..]);
        int names = BinaryPrimitives.ReadUInt16LittleEndian(module[NamesOffset..]);
        ReadOnlySpan<byte> sections = Slice(module, table, (ulong)count * SectionSize);
        if (sections.IsEmpty || names >= count)
            return [];
        ReadOnlySpan<byte> texts = Content(module, sections.Slice(names * SectionSize, SectionSize));
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> section = sections.Slice(i * SectionSize, SectionSize);
            uint name = BinaryPrimitives.ReadUInt32LittleEndian(section[NameField..]);
            if (name < (uint)texts.Length && texts[(int)name..].StartsWith(SectionName))
            {
                ReadOnlySpan<byte> content = Content(module, section);
                return content[..Math.Min(content.Length, MaxLength)];
            }
        }
        return [];
    }

    private static ReadOnlySpan<byte> Content(ReadOnlySpan<byte> module, ReadOnlySpan<byte> section) => Slice(
        module, BinaryPrimitives.ReadUInt64LittleEndian(section[FileOffsetField..]), BinaryPrimitives.ReadUInt64LittleEndian(section[LengthField..]));

    private static ReadOnlySpan<byte> Slice(ReadOnlySpan<byte> module, ulong offset, ulong length) =>
        offset <= (ulong)module.Length && length <= (ulong)module.Length - offset ? module.Slice((int)offset, (int)length) : [];
}
