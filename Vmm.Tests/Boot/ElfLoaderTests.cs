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

    // As Xen's and FreeBSD's linkers make them: a section of its own for each, and sections of 8 before sections of 4.
    [TestCase(8, 8)]
    [TestCase(8, 4)]
    [TestCase(4, 4)]
    public void Load_PvhNoteInTheSecondSegmentOfNotes_IsFoundAtEitherAlignment(int declared, int alignment)
    {
        byte[] elf = new ElfBuilder { Notes = null }.Build();
        byte[] notes = new byte[64];
        int next = 0;
        AddNote("GNU\0", 5, [1, 2, 3, 4]);
        AddNote("Xen\0", 18, BitConverter.GetBytes(ElfBuilder.Text + 0x80));
        notes.CopyTo(elf, ElfBuilder.TextOffset + 0x200);
        ElfBuilder.AddSegment(elf, 4, ElfBuilder.TextOffset + 0x200, ElfBuilder.Text + 0x200, next, next);
        ElfBuilder.U64(elf, ElfBuilder.ProgramHeaders + (4 * 56) + 48, (ulong)declared);
        using var file = new TempFile(elf);
        using GuestMemory memory = Guest.Memory();

        Assert.That(Guest.Load(memory, file), Is.EqualTo(new BootEntry(BootMode.Pvh32, ElfBuilder.Text + 0x80, BootLayout.StartInfo)));

        void AddNote(string name, uint type, byte[] content)
        {
            BitConverter.TryWriteBytes(notes.AsSpan(next), name.Length);
            BitConverter.TryWriteBytes(notes.AsSpan(next + 4), content.Length);
            BitConverter.TryWriteBytes(notes.AsSpan(next + 8), type);
            Encoding.ASCII.GetBytes(name, notes.AsSpan(next + 12));
            content.CopyTo(notes, next + 16);
            next = (next + 16 + content.Length + alignment - 1) & ~(alignment - 1);
        }
    }

    [TestCase(false)]
    [TestCase(true)]
    public void Load_SegmentBelow1MiB_IsPlaced(bool packed)
    {
        byte[] elf = new ElfBuilder().Build();
        ElfBuilder.AddSegment(elf, 1, ElfBuilder.InitOffset + ElfBuilder.InitSize, 0x2000, ElfBuilder.TailSize, 0x3000);
        using GuestMemory memory = LoadEither(elf, packed);

        Guest.AssertKernelIsPlaced(memory, elf);
        Guest.AssertEqual(memory, 0x2000, elf.AsSpan(ElfBuilder.InitOffset + ElfBuilder.InitSize, ElfBuilder.TailSize), "the low segment");
    }

    [TestCase(0x6800ul, "reach into 0x6000 to 0xefff")]
    [TestCase(0ul, "reach into 0x400 to 0xfff")]
    [TestCase(0x2F900ul, "reach into 0x20000 to 0x2ffff")]
    [TestCase(0x9F800ul, "neither between 1 MiB and 3 GiB nor below 0x9fc00")]
    [TestCase(0xE0000ul, "neither between 1 MiB and 3 GiB nor below 0x9fc00")]
    [TestCase(ulong.MaxValue, "neither between 1 MiB and 3 GiB nor below 0x9fc00")]
    public void Load_SegmentWhereSomethingElseIs_IsRefused(ulong address, string expected)
    {
        byte[] elf = new ElfBuilder().Build();
        ElfBuilder.AddSegment(elf, 1, ElfBuilder.InitOffset, address, 0x800, 0x800);
        using var file = new TempFile(elf);
        using GuestMemory memory = Guest.Memory();

        Assert.That(() => Guest.Load(memory, file), Throws.TypeOf<VmmException>().With.Message.Contains("program header 4: ").And.Message.Contains(expected));
    }

    // Behind .text are zeros that reach over .data; a .bss of its own and an empty segment are at no place in the file.
    [TestCase(false)]
    [TestCase(true)]
    public void Load_ZerosThatOverlapAndSegmentsWithoutBytes_LeaveTheOthersWhole(bool packed)
    {
        byte[] elf = new ElfBuilder().Build();
        ElfBuilder.U64(elf, ElfBuilder.ProgramHeaders + 40, ElfBuilder.TextSize + 0x1800);
        ElfBuilder.AddSegment(elf, 1, 0x7000_0000, ElfBuilder.Init + ElfBuilder.InitSize, 0, 0x4000);
        ElfBuilder.AddSegment(elf, 1, 0x7000_0000, 0, 0, 0);
        ElfBuilder.AddSegment(elf, 4, 0x7000_0000, 0, 0, 0);
        using GuestMemory memory = LoadEither(elf, packed);

        Guest.AssertKernelIsPlaced(memory, elf);
        Guest.AssertEqual(memory, ElfBuilder.Init + ElfBuilder.InitSize, new byte[0x4000], ".bss");
    }

    [TestCase(false)]
    [TestCase(true)]
    public void Load_SegmentInsideAnother_IsLoadedOnce(bool packed)
    {
        byte[] elf = new ElfBuilder().Build();
        ElfBuilder.AddSegment(elf, 1, ElfBuilder.TextOffset + 0x100, ElfBuilder.Text + 0x100, 0x200, 0x200);
        ElfBuilder.AddSegment(elf, 1, ElfBuilder.TextOffset, ElfBuilder.Text, 0x1000, 0x1000);
        using GuestMemory memory = LoadEither(elf, packed);

        Guest.AssertKernelIsPlaced(memory, elf);
    }

    private static GuestMemory LoadEither(byte[] elf, bool packed)
    {
        using var file = new TempFile(packed ? new BzImageBuilder { Payload = Packer.Pack("gzip", elf) }.Build() : elf);
        GuestMemory memory = Guest.Memory();
        Guest.Load(memory, file, KernelEntry.Linux64);
        return memory;
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
