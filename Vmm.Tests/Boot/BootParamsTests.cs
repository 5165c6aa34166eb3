using System.Text;
using NUnit.Framework;
using Vmm.Boot;
using Vmm.Vhost.Memory;

namespace Vmm.Tests.Boot;

public sealed class BootParamsTests
{
    private const ulong ZeroPage = BootLayout.BootParams;

    [Test]
    public void Load_BzImageWithInitramfs_FillsBootParams()
    {
        byte[] cpio = new byte[10_000];
        new Random(2).NextBytes(cpio);
        byte[] image = new BzImageBuilder { Payload = Packer.Pack("lz4", new ElfBuilder().Build()) }.Build();
        using var kernel = new TempFile(image);
        using var initramfs = new TempFile(cpio);
        using GuestMemory memory = Guest.Memory();

        Guest.Load(
            memory,
            new KernelOptions { KernelPath = kernel.Path, InitramfsPath = initramfs.Path, CommandLine = "console=ttyS0 quiet" });

        const uint place = 0x4000000 - 0x3000;   // the last three pages of 64 MiB
        Assert.Multiple(() =>
        {
            Assert.That(memory.Read<byte>(new(ZeroPage + 0x210)), Is.EqualTo(0xFF), "type_of_loader");
            Assert.That(memory.Read<byte>(new(ZeroPage + 0x211)), Is.EqualTo(0x03), "loadflags");
            Assert.That(memory.Read<uint>(new(ZeroPage + 0x202)), Is.EqualTo(0x53726448), "header");
            Assert.That(memory.Read<ushort>(new(ZeroPage + 0x206)), Is.EqualTo(0x020F), "version");
            Assert.That(memory.Read<ulong>(new(ZeroPage + 0x070)), Is.EqualTo(0xE0000), "acpi_rsdp_addr");
            Assert.That(memory.Read<uint>(new(ZeroPage + 0x218)), Is.EqualTo(place), "ramdisk_image");
            Assert.That(memory.Read<uint>(new(ZeroPage + 0x21C)), Is.EqualTo(10_000), "ramdisk_size");
            Assert.That(memory.Read<ulong>(new(ZeroPage + 0x0C0)), Is.Zero, "ext_ramdisk_image, ext_ramdisk_size");
            Assert.That(memory.Read<uint>(new(ZeroPage + 0x228)), Is.EqualTo(0x20000), "cmd_line_ptr");
            Assert.That(memory.Read<byte>(new(ZeroPage + 0x1EF)), Is.Zero, "sentinel");
            Assert.That(memory.Slice(new(ZeroPage), 0x40).ContainsAnyExcept((byte)0), Is.False, "screen_info");
            Assert.That(memory.Slice(new(ZeroPage + 0x212), 6).SequenceEqual(image.AsSpan(0x212, 6)), "the header's own fields");
            Assert.That(Encoding.ASCII.GetString(memory.Slice(new(0x20000), 20)), Is.EqualTo("console=ttyS0 quiet\0"));
            Guest.AssertEqual(memory, place, cpio, "initramfs");
        });
    }

    [Test]
    public void Load_RamOnBothSidesOfTheHole_GivesItAllAsE820()
    {
        byte[] image = new BzImageBuilder { Payload = Packer.Pack("lz4", new ElfBuilder().Build()) }.Build();
        using var kernel = new TempFile(image);
        using GuestMemory memory = GuestMemory.Create([(new(0), 3UL << 30), (new(4UL << 30), 2UL << 30)]);

        Guest.Load(memory, kernel);

        (ulong Start, ulong Size, uint Type)[] expected =
        [
            (0, 0x9FC00, 1), (0x9FC00, 0x400, 2), (0xE0000, 0x20000, 2), (0x100000, 0xBFF00000, 1), (0x100000000, 0x80000000, 1),
        ];
        Assert.That(memory.Read<byte>(new(ZeroPage + 0x1E8)), Is.EqualTo(expected.Length));
        for (int i = 0; i < expected.Length; i++)
        {
            ulong entry = ZeroPage + 0x2D0 + (20 * (ulong)i);
            Assert.That(
                (memory.Read<ulong>(new(entry)), memory.Read<ulong>(new(entry + 8)), memory.Read<uint>(new(entry + 16))),
                Is.EqualTo(expected[i]), $"entry {i}");
        }
    }

    [Test]
    public void Load_InitramfsLimitBelowEndOfRam_IsHonoured()
    {
        byte[] image = new BzImageBuilder { Payload = Packer.Pack("lz4", new ElfBuilder().Build()), InitrdLimit = 0x2FFFFFF }.Build();
        using var kernel = new TempFile(image);
        using var initramfs = new TempFile(new byte[4096]);
        using GuestMemory memory = Guest.Memory();

        Guest.Load(memory, new KernelOptions { KernelPath = kernel.Path, InitramfsPath = initramfs.Path });

        Assert.That(memory.Read<uint>(new(ZeroPage + 0x218)), Is.EqualTo(0x2FFF000));
    }

    [Test]
    public void Load_InitramfsTooLargeForTheGuest_SaysHowMuchMemoryIsNeeded()
    {
        using var kernel = new TempFile(new BzImageBuilder { Payload = Packer.Pack("lz4", new ElfBuilder().Build()) }.Build());
        using var initramfs = new TempFile(new byte[50 << 20]);
        using GuestMemory memory = Guest.Memory();
        var options = new KernelOptions { KernelPath = kernel.Path, InitramfsPath = initramfs.Path };

        VmmException? error = Assert.Throws<VmmException>(() => Guest.Load(memory, options));

        Assert.That(error!.Message, Is.EqualTo(
            $"initramfs {initramfs.Path}: needs at least 67 MiB of guest memory, but the guest has 64 MiB: raise --memory"));
    }

    [TestCase(100, true)]
    [TestCase(101, false)]
    public void Load_CommandLineAtTheLimit_IsTakenAndBeyondRefused(int length, bool fits)
    {
        using var kernel = new TempFile(new BzImageBuilder { Payload = Packer.Pack("lz4", new ElfBuilder().Build()) }.Build());
        using GuestMemory memory = Guest.Memory();
        var options = new KernelOptions { KernelPath = kernel.Path, CommandLine = new string('x', length) };

        if (fits)
            Assert.That(Guest.Load(memory, options).Mode, Is.EqualTo(BootMode.Long64));
        else
        {
            Assert.That(() => Guest.Load(memory, options), Throws.TypeOf<VmmException>().With.Message.EqualTo(
                "--cmdline: 101 characters with what vmm adds, but this kernel takes at most 100 (cmdline_size): shorten it"));
        }
    }

    [TestCase("a\0b", "U+0000 after 'a'")]
    [TestCase("root=é", "U+00E9 after 'root='")]
    public void Check_CharacterThatIsNoPrintableAscii_IsRefused(string text, string expected) =>
        Assert.That(() => KernelCommandLine.Check(text, 2047), Throws.TypeOf<VmmException>().With.Message.Contains(expected));
}
