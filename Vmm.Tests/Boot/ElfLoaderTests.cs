using System.Text;
using NUnit.Framework;
using Vmm.Boot;
using Vmm.Vhost.Memory;

namespace Vmm.Tests.Boot;

internal sealed class ElfLoaderTests
{
    private const ulong StartInfo = BootLayout.StartInfo;

    [TestCase(KernelEntry.Auto, BootMode.Pvh32, ElfBuilder.Text + 0x40, BootLayout.StartInfo)]
    [TestCase(KernelEntry.Pvh, BootMode.Pvh32, ElfBuilder.Text + 0x40, BootLayout.StartInfo)]
    [TestCase(KernelEntry.Linux64, BootMode.Long64, ElfBuilder.Text, BootLayout.BootParams)]
    public void Load_Vmlinux_EntersAsAsked(KernelEntry entry, BootMode mode, ulong address, ulong info)
    {
        byte[] elf = new ElfBuilder().Build();
        using var file = new TempFile(elf);
        using GuestMemory memory = Guest.Memory();

        Assert.That(Guest.Load(memory, file, entry), Is.EqualTo(new BootEntry(mode, address, info)));
        Guest.AssertKernelIsPlaced(memory, elf);
    }

    [Test]
    public void Load_VmlinuxWithoutPvhNote_EntersInLongMode()
    {
        using var file = new TempFile(new ElfBuilder { Notes = null }.Build());
        using GuestMemory memory = Guest.Memory();

        Assert.That(Guest.Load(memory, file).Mode, Is.EqualTo(BootMode.Long64));
        Assert.That(memory.Read<uint>(new(BootLayout.BootParams + 0x202)), Is.EqualTo(0x53726448), "a header is made up");
        Assert.That(() => Guest.Load(memory, file, KernelEntry.Pvh), Throws.TypeOf<VmmException>().With.Message.Contains("PVH"));
    }

    [TestCase(KernelEntry.Auto)]
    [TestCase(KernelEntry.Pvh)]
    public void Load_VirtualEntryBesideAPvhNote_IsNotLookedAt(KernelEntry entry)
    {
        using var file = new TempFile(new ElfBuilder { Entry = 0xFFFFFFFF80381000 }.Build());
        using GuestMemory memory = Guest.Memory();

        Assert.That(Guest.Load(memory, file, entry).InstructionPointer, Is.EqualTo(ElfBuilder.Text + 0x40));
        Assert.That(() => Guest.Load(memory, file, KernelEntry.Linux64), Throws.TypeOf<VmmException>().With.Message.Contains("e_entry 0xffffffff80381000"));
    }

    [TestCase(4)]
    [TestCase(8)]
    public void Load_PvhNoteOfEitherSize_IsRead(int size)
    {
        using var file = new TempFile(new ElfBuilder { Notes = ElfBuilder.Note("Xen\0", 18, size, ElfBuilder.Text + 0x80) }.Build());
        using GuestMemory memory = Guest.Memory();

        Assert.That(Guest.Load(memory, file).InstructionPointer, Is.EqualTo(ElfBuilder.Text + 0x80));
    }

    [TestCase("Xen\0", 18u, 2, "n_descsz is 2")]
    [TestCase("Xen\0", 18u, 4, "entry point 0x3", 3ul)]
    public void Load_BadPvhNote_IsRefused(string name, uint type, int size, string expected, ulong entry = ElfBuilder.Text)
    {
        using var file = new TempFile(new ElfBuilder { Notes = ElfBuilder.Note(name, type, size, entry) }.Build());
        using GuestMemory memory = Guest.Memory();

        Assert.That(() => Guest.Load(memory, file), Throws.TypeOf<VmmException>().With.Message.Contains(expected));
    }

    [Test]
    public void Load_PvhInsideBzImage_IsFoundOnRequest()
    {
        byte[] elf = new ElfBuilder().Build();
        using var file = new TempFile(new BzImageBuilder { Payload = Packer.Pack("gzip", elf) }.Build());
        using GuestMemory memory = Guest.Memory();

        BootEntry entry = Guest.Load(memory, file, KernelEntry.Pvh);

        Assert.That(entry, Is.EqualTo(new BootEntry(BootMode.Pvh32, ElfBuilder.Text + 0x40, BootLayout.StartInfo)));
        Guest.AssertKernelIsPlaced(memory, elf);
    }

    [Test]
    public void Load_Pvh_FillsStartInfo()
    {
        using var file = new TempFile(new ElfBuilder().Build());
        using var initramfs = new TempFile(new byte[5000]);
        using GuestMemory memory = GuestMemory.Create([(new(0), 64UL << 20), (new(4UL << 30), 1UL << 30)]);

        Guest.Load(
            memory, new KernelOptions { KernelPath = file.Path, InitramfsPath = initramfs.Path, CommandLine = "ro" });

        ulong modules = memory.Read<ulong>(new(StartInfo + 16));
        ulong map = memory.Read<ulong>(new(StartInfo + 40));
        Assert.Multiple(() =>
        {
            Assert.That(memory.Read<uint>(new(StartInfo)), Is.EqualTo(0x336EC578), "magic");
            Assert.That(memory.Read<uint>(new(StartInfo + 4)), Is.EqualTo(1), "version");
            Assert.That(memory.Read<uint>(new(StartInfo + 8)), Is.Zero, "flags");
            Assert.That(memory.Read<uint>(new(StartInfo + 12)), Is.EqualTo(1), "nr_modules");
            Assert.That(memory.Read<ulong>(new(modules)), Is.EqualTo(0x4000000 - 0x2000), "module paddr");
            Assert.That(memory.Read<ulong>(new(modules + 8)), Is.EqualTo(5000), "module size");
            Assert.That(memory.Read<ulong>(new(StartInfo + 24)), Is.EqualTo(0x20000), "cmdline_paddr");
            Assert.That(Encoding.ASCII.GetString(memory.Slice(new(0x20000), 3)), Is.EqualTo("ro\0"));
            Assert.That(memory.Read<ulong>(new(StartInfo + 32)), Is.EqualTo(0xE0000), "rsdp_paddr");
            Assert.That(memory.Read<uint>(new(StartInfo + 48)), Is.EqualTo(5), "memmap_entries");
            Assert.That(map + (5 * 24), Is.LessThanOrEqualTo(BootLayout.BootParams));
            Assert.That(memory.Read<ulong>(new(map + (4 * 24))), Is.EqualTo(4UL << 30), "the RAM above the hole");
            Assert.That(memory.Read<ulong>(new(map + (4 * 24) + 8)), Is.EqualTo(1UL << 30));
            Assert.That(memory.Read<uint>(new(map + (4 * 24) + 16)), Is.EqualTo(1));
        });
    }

    [Test]
    public void Load_GuestTooSmall_SaysHowMuchMemoryIsNeeded()
    {
        using var file = new TempFile(new ElfBuilder().Build());
        using GuestMemory memory = Guest.Memory(mebibytes: 16);

        Assert.That(() => Guest.Load(memory, file), Throws.TypeOf<VmmException>().With.Message.EqualTo(
            $"kernel {file.Path}: needs at least 17 MiB of guest memory, but the guest has 16 MiB: raise --memory"));
    }
}
