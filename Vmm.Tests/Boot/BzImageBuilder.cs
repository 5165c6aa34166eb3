using static Vmm.Tests.Boot.ElfBuilder;

namespace Vmm.Tests.Boot;

/// <summary>Makes a small valid bzImage around a payload.</summary>
internal sealed class BzImageBuilder
{
    public const int SetupSectors = 3;
    public const int KernelOffset = (SetupSectors + 1) * 512;
    public const int PayloadOffset = 0x400;
    public const uint InitSize = 0x40000;
    public const uint CommandLineSize = 100;

    public required byte[] Payload { get; init; }

    public bool Relocatable { get; init; } = true;

    public ulong PreferredAddress { get; init; } = 0x1000000;

    public uint InitrdLimit { get; init; } = 0x7FFFFFFF;

    public ushort ExtendedLoadFlags { get; init; } = 0x7F;

    /// <summary>Where the payload begins in the file.</summary>
    public static int PayloadStart => KernelOffset + PayloadOffset;

    public byte[] Build()
    {
        int kernelSize = (PayloadOffset + Payload.Length + 64 + 15) & ~15;
        byte[] image = new byte[KernelOffset + kernelSize];
        for (int i = KernelOffset; i < image.Length; i++)
            image[i] = (byte)(i * 7);
        "MZ"u8.CopyTo(image);
        image[0x1F1] = SetupSectors;
        U32(image, 0x1F4, (uint)kernelSize / 16);
        U16(image, 0x1FA, 0xFFFF);
        U16(image, 0x1FE, 0xAA55);
        U16(image, 0x200, 0x6AEB);
        "HdrS"u8.CopyTo(image.AsSpan(0x202));
        U16(image, 0x206, 0x020F);
        image[0x211] = 1;
        U32(image, 0x214, 0x100000);
        U32(image, 0x22C, InitrdLimit);
        U32(image, 0x230, 0x200000);
        image[0x234] = Relocatable ? (byte)1 : (byte)0;
        image[0x235] = 21;
        U16(image, 0x236, ExtendedLoadFlags);
        U32(image, 0x238, CommandLineSize);
        U32(image, 0x248, PayloadOffset);
        U32(image, 0x24C, (uint)Payload.Length);
        U64(image, 0x258, PreferredAddress);
        U32(image, 0x260, InitSize);
        Payload.CopyTo(image, PayloadStart);
        return image;
    }
}
