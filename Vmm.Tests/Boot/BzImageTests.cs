using NUnit.Framework;
using Vmm.Boot;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Tests.Boot;

public sealed class BzImageTests
{
    [TestCaseSource(typeof(Packer), nameof(Packer.Formats))]
    public void Load_EachFormat_PlacesEverySegment(string format)
    {
        byte[] elf = new ElfBuilder().Build();
        using var file = new TempFile(new BzImageBuilder { Payload = Packer.Pack(format, elf) }.Build());
        using GuestMemory memory = Guest.Memory();

        BootEntry entry = Guest.Load(memory, file);

        Assert.That(entry, Is.EqualTo(new BootEntry(BootMode.Long64, ElfBuilder.Text, BootLayout.BootParams)));
        Guest.AssertKernelIsPlaced(memory, elf);
    }

    [TestCase("xz", "--check=crc32 --x86 --lzma2=preset=0,dict=128MiB -c")]
    [TestCase("xz", "--check=sha256 -c")]
    [TestCase("xz", "--check=crc64 -T2 -c")]
    [TestCase("xz", "--check=none --block-size=5000 -c")]
    [TestCase("xz", "--check=sha256 --x86 --lzma2=preset=0 --block-size=500 -c")]
    [TestCase("zstd", "-1 --long=27 -c")]
    [TestCase("zstd", "-1 --ultra --long=31 -c")]
    [TestCase("zstd", "-19 --no-check -c")]
    [TestCase("lz4", "-l -1 -c")]
    [TestCase("gzip", "-1 -c")]
    [TestCase("bzip2", "-1 -c")]
    [TestCase("xz", "--format=lzma --lzma1=preset=0,dict=128MiB -c")]
    public void Load_PackedInAnotherWay_PlacesEverySegment(string tool, string arguments)
    {
        byte[] elf = new ElfBuilder().Build();
        byte[] payload = Packer.Run(tool, arguments, elf);
        using var file = new TempFile(new BzImageBuilder { Payload = tool == "gzip" ? payload : [.. payload, .. BitConverter.GetBytes(elf.Length)] }.Build());
        using GuestMemory memory = Guest.Memory();

        Guest.Load(memory, file);

        Guest.AssertKernelIsPlaced(memory, elf);
    }

    [TestCase(true, 0x1000000ul, 0x1000000ul)]
    [TestCase(true, 0x1000001ul, 0x1200000ul)]
    [TestCase(true, 0ul, 0x200000ul)]
    [TestCase(false, 0x123000ul, 0x123000ul)]
    public void Load_GuestDecompression_LoadsThePackedKernelAsTheHeaderWants(bool relocatable, ulong preferred, ulong expected)
    {
        byte[] image = new BzImageBuilder
        {
            Payload = Packer.Pack("lz4", new ElfBuilder().Build()),
            Relocatable = relocatable,
            PreferredAddress = preferred,
        }.Build();
        using var file = new TempFile(image);
        using GuestMemory memory = Guest.Memory();

        BootEntry entry = Guest.Load(memory, file, guestDecompression: true);

        Assert.That(entry, Is.EqualTo(new BootEntry(BootMode.Long64, expected + 0x200, BootLayout.BootParams)));
        Guest.AssertEqual(memory, expected, image.AsSpan(BzImageBuilder.KernelOffset), "the packed kernel");
    }

    // The host need not find memory for zeros, nor clear it.
    [Test]
    public void Load_SegmentOfZeros_TakesNoMemory()
    {
        const int zeros = 24 << 20;
        byte[] elf = new ElfBuilder().Build();
        byte[] padded = [.. elf, .. new byte[zeros]];
        ElfBuilder.AddSegment(padded, 1, elf.Length, ElfBuilder.Text + 0x10_0000 + ((ulong)elf.Length & 0xFFF), zeros, zeros);
        using var file = new TempFile(new BzImageBuilder { Payload = Packer.Pack("lz4", padded) }.Build());
        using GuestMemory memory = Guest.Memory();

        Guest.Load(memory, file);

        Guest.AssertKernelIsPlaced(memory, elf.AsSpan().ToArray());
        using HeldDescriptor held = memory.File.Hold();
        Assert.That(FileTree.GetStatus(held, out FileStatus status), Is.Zero);
        Assert.That(status.Blocks * 512, Is.LessThan(zeros / 2));
    }

    // In conventional memory it would lie under what the VMM writes there: the command line, page tables.
    [TestCase(0x1000ul)]
    [TestCase(0xFF000ul)]
    public void Load_PackedKernelThatWantsToLieBelow1MiB_IsRefused(ulong preferred)
    {
        using var file = new TempFile(new BzImageBuilder
        {
            Payload = Packer.Pack("lz4", new ElfBuilder().Build()),
            Relocatable = false,
            PreferredAddress = preferred,
        }.Build());
        using GuestMemory memory = Guest.Memory();

        Assert.That(() => Guest.Load(memory, file, guestDecompression: true), Throws.TypeOf<VmmException>().With.Message.Contains("not between 1 MiB and 3 GiB: check --kernel"));
    }

    [Test]
    public void Load_FormatThatIsNotUnpackedHere_IsLeftToTheGuest()
    {
        using var file = new TempFile(new BzImageBuilder { Payload = [0x89, (byte)'L', (byte)'Z', (byte)'O', .. new byte[100]] }.Build());
        using GuestMemory memory = Guest.Memory();

        Assert.That(Guest.Load(memory, file).InstructionPointer, Is.EqualTo(0x1000200));
    }

    [Test]
    public void Load_NoPayload_RunsTheImageAsItIs()
    {
        byte[] image = new BzImageBuilder { Payload = [] }.Build();
        using var file = new TempFile(image);
        using GuestMemory memory = Guest.Memory();

        Assert.That(Guest.Load(memory, file).InstructionPointer, Is.EqualTo(0x1000200));
        Guest.AssertEqual(memory, 0x1000000, image.AsSpan(BzImageBuilder.KernelOffset), "the image");
        Assert.That(KernelLoader.IsLinux(file.Path), Is.False, "a Linux kernel has a payload");
    }

    [TestCase(0x1FE, (byte)0, "boot_flag is 0xaa00")]
    [TestCase(0x206, (byte)0x0B, "version is 2.11")]
    [TestCase(0x207, (byte)0x01, "version is 1.15")]
    [TestCase(0x236, (byte)0x7E, "xloadflags has no XLF_KERNEL_64")]
    [TestCase(0x211, (byte)0, "loadflags has no LOADED_HIGH")]
    [TestCase(0x201, (byte)0x10, "the jump at 0x200")]
    [TestCase(0x24B, (byte)0xFF, "payload_offset")]
    [TestCase(0x24F, (byte)0xFF, "payload_length")]
    public void Load_BadHeaderField_IsNamed(int offset, byte value, string expected)
    {
        byte[] image = new BzImageBuilder { Payload = Packer.Pack("lz4", new ElfBuilder().Build()) }.Build();
        image[offset] = value;
        using var file = new TempFile(image);
        using GuestMemory memory = Guest.Memory();

        Assert.That(() => Guest.Load(memory, file), Throws.TypeOf<VmmException>().With.Message.Contains($"{file.Path}: ").And.Message.Contains(expected));
    }
}
