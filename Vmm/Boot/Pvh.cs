using System.Buffers.Binary;
using Vmm.Vhost.Memory;

namespace Vmm.Boot;

/// <summary>Writes what the PVH entry is given: hvm_start_info version 1, the module list and the memory map
/// (Xen public/arch-x86/hvm/start_info.h).</summary>
internal static class Pvh
{
    private const uint Magic = 0x336EC578;
    private const uint Version = 1;   // the first with a memory map
    private const int StartInfoSize = 56;
    private const int ModuleSize = 32;
    private const int MapEntrySize = 24;

    private const ulong ModuleList = BootLayout.StartInfo + 0x40;
    private const ulong MemoryMap = BootLayout.StartInfo + 0x60;

    /// <summary>Fills the page at <see cref="BootLayout.StartInfo"/>.</summary>
    public static void Write(GuestMemory memory, in InitramfsRange initramfs, ReadOnlySpan<E820Entry> map, GuestAddress rsdp)
    {
        Span<byte> info = memory.Slice(new(BootLayout.StartInfo), StartInfoSize);
        info.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(info, Magic);
        BinaryPrimitives.WriteUInt32LittleEndian(info[4..], Version);
        if (initramfs.Size != 0)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(info[12..], 1);   // nr_modules
            BinaryPrimitives.WriteUInt64LittleEndian(info[16..], ModuleList);
            Span<byte> module = memory.Slice(new(ModuleList), ModuleSize);
            module.Clear();
            BinaryPrimitives.WriteUInt64LittleEndian(module, initramfs.Address);
            BinaryPrimitives.WriteUInt64LittleEndian(module[8..], initramfs.Size);
        }
        BinaryPrimitives.WriteUInt64LittleEndian(info[24..], BootLayout.CommandLine);
        BinaryPrimitives.WriteUInt64LittleEndian(info[32..], rsdp.Value);
        BinaryPrimitives.WriteUInt64LittleEndian(info[40..], MemoryMap);
        BinaryPrimitives.WriteUInt32LittleEndian(info[48..], (uint)map.Length);

        Span<byte> table = memory.Slice(new(MemoryMap), map.Length * MapEntrySize);
        table.Clear();
        for (int i = 0; i < map.Length; i++)
        {
            Span<byte> entry = table.Slice(i * MapEntrySize, MapEntrySize);
            BinaryPrimitives.WriteUInt64LittleEndian(entry, map[i].Start);
            BinaryPrimitives.WriteUInt64LittleEndian(entry[8..], map[i].Size);
            BinaryPrimitives.WriteUInt32LittleEndian(entry[16..], (uint)map[i].Type);
        }
    }
}
