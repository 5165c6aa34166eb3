using System.Buffers.Binary;
using Vmm.Vhost.Memory;

namespace Vmm.Boot;

/// <summary>An initramfs in guest memory; a size of 0 is none.</summary>
internal readonly record struct InitramfsRange(ulong Address, ulong Size);

/// <summary>Writes boot_params, the "zero page" (Linux 6.12 Documentation/arch/x86/zero-page.rst; asm/bootparam.h).</summary>
internal static class BootParams
{
    private const int Size = 4096;
    private const byte UnknownLoader = 0xFF;   // type_of_loader for one without an assigned number
    private const byte KaslrFlag = 1 << 1;     // KASLR_FLAG of loadflags: from the decompressor to the kernel proper
    private const int E820EntrySize = 20;

    private const int AcpiRsdpAddress = 0x070;
    private const int ExtendedRamdiskImage = 0x0C0;
    private const int ExtendedRamdiskSize = 0x0C4;
    private const int E820Entries = 0x1E8;
    private const int TypeOfLoader = 0x210;
    private const int LoadFlags = 0x211;
    private const int RamdiskImage = 0x218;
    private const int RamdiskSize = 0x21C;
    private const int CommandLinePointer = 0x228;
    private const int E820Table = 0x2D0;

    /// <summary>Fills the page at <see cref="BootLayout.BootParams"/>.</summary>
    public static void Write(
        GuestMemory memory, in LoadedKernel kernel, in InitramfsRange initramfs, ReadOnlySpan<E820Entry> map, GuestAddress rsdp)
    {
        Span<byte> page = memory.Slice(new(BootLayout.BootParams), Size);
        page.Clear();   // the protocol wants zeros in all that is not set, screen_info among it: there is no screen
        kernel.Header.Bytes.CopyTo(page[SetupHeader.Start..]);
        if (kernel.MayRandomise)
            page[LoadFlags] |= KaslrFlag;
        page[TypeOfLoader] = UnknownLoader;
        BinaryPrimitives.WriteUInt32LittleEndian(page[CommandLinePointer..], (uint)BootLayout.CommandLine);
        BinaryPrimitives.WriteUInt64LittleEndian(page[AcpiRsdpAddress..], rsdp.Value);

        BinaryPrimitives.WriteUInt32LittleEndian(page[RamdiskImage..], (uint)initramfs.Address);
        BinaryPrimitives.WriteUInt32LittleEndian(page[RamdiskSize..], (uint)initramfs.Size);
        BinaryPrimitives.WriteUInt32LittleEndian(page[ExtendedRamdiskImage..], (uint)(initramfs.Address >> 32));
        BinaryPrimitives.WriteUInt32LittleEndian(page[ExtendedRamdiskSize..], (uint)(initramfs.Size >> 32));

        page[E820Entries] = (byte)map.Length;
        for (int i = 0; i < map.Length; i++)
        {
            Span<byte> entry = page.Slice(E820Table + (i * E820EntrySize), E820EntrySize);
            BinaryPrimitives.WriteUInt64LittleEndian(entry, map[i].Start);
            BinaryPrimitives.WriteUInt64LittleEndian(entry[8..], map[i].Size);
            BinaryPrimitives.WriteUInt32LittleEndian(entry[16..], (uint)map[i].Type);
        }
    }
}
