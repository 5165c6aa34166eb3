using System.Buffers.Binary;

namespace Vmm.Boot;

/// <summary>The setup header of a Linux kernel: the part of its first sectors that a boot loader reads, completes and hands on in
/// boot_params, at the same offsets (Linux 6.12 Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header").</summary>
internal sealed class SetupHeader
{
    /// <summary>Where the header begins, both in the file and in boot_params.</summary>
    public const int Start = 0x1F1;

    /// <summary>The most it can reach to in boot_params, where EDD data follows.</summary>
    public const int Limit = 0x290;

    private const ushort BootFlagValue = 0xAA55;
    private const uint HeaderMagic = 0x53726448;        // "HdrS"
    private const ushort OldestVersion = 0x020C;        // Linux 3.8: xloadflags
    private const ushort SynthesisedVersion = 0x020F;   // the newest, Linux 5.5
    private const ushort Kernel64 = 1 << 0;             // XLF_KERNEL_64
    private const ushort Above4G = 1 << 1;              // XLF_CAN_BE_LOADED_ABOVE_4G
    private const byte LoadedHigh = 1;                  // LOADED_HIGH: the kernel is at 1 MiB or above

    // Offsets in the file and in boot_params.
    private const int SetupSectorsOffset = 0x1F1;
    private const int SystemSizeOffset = 0x1F4;
    private const int BootFlagOffset = 0x1FE;
    private const int HeaderEndOffset = 0x201;          // the operand of the jump over the header
    private const int MagicOffset = 0x202;
    private const int VersionOffset = 0x206;
    private const int LoadFlagsOffset = 0x211;
    private const int InitrdLimitOffset = 0x22C;
    private const int AlignmentOffset = 0x230;
    private const int RelocatableOffset = 0x234;
    private const int ExtendedLoadFlagsOffset = 0x236;
    private const int CommandLineSizeOffset = 0x238;
    private const int PayloadOffsetOffset = 0x248;
    private const int PayloadLengthOffset = 0x24C;
    private const int PreferredAddressOffset = 0x258;
    private const int InitSizeOffset = 0x260;
    private const int OldestEnd = 0x268;                // the end of the header of protocol 2.12

    private readonly byte[] _bytes;   // from Start on

    private SetupHeader(byte[] bytes) => _bytes = bytes;

    /// <summary>The header's bytes from <see cref="Start"/> on, as they go into boot_params.</summary>
    public ReadOnlySpan<byte> Bytes => _bytes;

    /// <summary>Where the protected-mode kernel begins in the file: after the boot sector and the setup sectors.</summary>
    public int KernelOffset
    {
        get
        {
            int sectors = _bytes[SetupSectorsOffset - Start];
            return ((sectors == 0 ? 4 : sectors) + 1) * 512;   // 0 means 4, for very old kernels
        }
    }

    /// <summary>The size of the protected-mode kernel in bytes, rounded up to 16 (syssize).</summary>
    public ulong KernelSize => (ulong)U32(SystemSizeOffset) * 16;

    /// <summary>The highest address an initramfs may reach to: its last byte (initrd_addr_max).</summary>
    public uint InitrdLimit => U32(InitrdLimitOffset);

    /// <summary>Whether the kernel takes an initramfs from any address, also above <see cref="InitrdLimit"/> and 4 GiB (ext_ramdisk_image).</summary>
    public bool TakesAddressesAbove4G => (_bytes[ExtendedLoadFlagsOffset - Start] & Above4G) != 0;

    /// <summary>The alignment of the load address, in bytes (kernel_alignment).</summary>
    public uint Alignment => U32(AlignmentOffset);

    /// <summary>Whether the kernel may be loaded anywhere aligned (relocatable_kernel).</summary>
    public bool IsRelocatable => _bytes[RelocatableOffset - Start] != 0;

    /// <summary>The longest command line in bytes, without its null (cmdline_size).</summary>
    public uint CommandLineLimit => U32(CommandLineSizeOffset);

    /// <summary>Where the compressed kernel begins, from <see cref="KernelOffset"/> (payload_offset).</summary>
    public uint PayloadOffset => U32(PayloadOffsetOffset);

    /// <summary>Its length in bytes (payload_length).</summary>
    public uint PayloadLength => U32(PayloadLengthOffset);

    /// <summary>Where the kernel would like to be loaded (pref_address).</summary>
    public ulong PreferredAddress => BinaryPrimitives.ReadUInt64LittleEndian(_bytes.AsSpan(PreferredAddressOffset - Start));

    /// <summary>The memory it needs from its load address on before it reads the memory map (init_size).</summary>
    public uint InitSize => U32(InitSizeOffset);

    /// <summary>Whether a file that begins with <paramref name="head"/> has a setup header at all.</summary>
    public static bool IsPresent(ReadOnlySpan<byte> head) =>
        head.Length >= MagicOffset + 4 && BinaryPrimitives.ReadUInt32LittleEndian(head[MagicOffset..]) == HeaderMagic;

    /// <summary>Reads the header of a bzImage for the 64-bit boot protocol.</summary>
    /// <param name="file">The file, for errors.</param>
    /// <param name="head">Its first bytes.</param>
    /// <exception cref="VmmException">The header is not one of a 64-bit kernel; the message names the field.</exception>
    public static SetupHeader Read(ImageFile file, ReadOnlySpan<byte> head)
    {
        if (head.Length < Limit)
            throw file.Error($"truncated: {head.Length} bytes, but the setup header reaches to byte {Limit}");
        ushort flag = BinaryPrimitives.ReadUInt16LittleEndian(head[BootFlagOffset..]);
        if (flag != BootFlagValue)
            throw file.Error($"boot_flag is 0x{flag:x4} instead of 0x{BootFlagValue:x4}: not a valid bzImage");
        ushort version = BinaryPrimitives.ReadUInt16LittleEndian(head[VersionOffset..]);
        if (version < OldestVersion)
            throw file.Error($"version is {version >> 8}.{version & 0xFF:d2}: boot protocol 2.12 (Linux 3.8) or newer is needed");
        int end = MagicOffset + head[HeaderEndOffset];
        if (end < OldestEnd)
            throw file.Error($"the jump at 0x200 ends the setup header at 0x{end:x}, before the fields of boot protocol 2.12 (0x{OldestEnd:x})");

        var header = new SetupHeader(head[Start..Math.Min(end, Limit)].ToArray());
        if ((header._bytes[ExtendedLoadFlagsOffset - Start] & Kernel64) == 0)
            throw file.Error("xloadflags has no XLF_KERNEL_64: a 32-bit kernel; a 64-bit x86 kernel is needed");
        if ((header._bytes[LoadFlagsOffset - Start] & LoadedHigh) == 0)
            throw file.Error("loadflags has no LOADED_HIGH: a zImage; a bzImage is needed");
        return header;
    }

    /// <summary>The header to hand to a kernel that comes without one, a bare vmlinux. All that have this entry point can read an initramfs above 4 GiB.</summary>
    public static SetupHeader Synthesise()
    {
        byte[] bytes = new byte[OldestEnd - Start];
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(BootFlagOffset - Start), BootFlagValue);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(MagicOffset - Start), HeaderMagic);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(VersionOffset - Start), SynthesisedVersion);
        bytes[LoadFlagsOffset - Start] = LoadedHigh;
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(InitrdLimitOffset - Start), 0x7FFFFFFF);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(AlignmentOffset - Start), 0x200000);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(ExtendedLoadFlagsOffset - Start), Kernel64 | Above4G);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(CommandLineSizeOffset - Start), KernelCommandLine.DefaultLimit);
        return new SetupHeader(bytes);
    }

    private uint U32(int offset) => BinaryPrimitives.ReadUInt32LittleEndian(_bytes.AsSpan(offset - Start));
}
