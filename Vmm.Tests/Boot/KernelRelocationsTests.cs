using NUnit.Framework;
using Vmm.Boot;
using Vmm.Vhost.Memory;

namespace Vmm.Tests.Boot;

/// <summary>A kernel whose payload has a list of relocations is put at a random place; a hostile list is refused.</summary>
public sealed class KernelRelocationsTests
{
    private const uint Virtual = 0x8000_0000;
    private const uint First = Virtual + (uint)ElfBuilder.Text;
    private const uint Last = Virtual + (uint)ElfBuilder.Init + ElfBuilder.InitSize;   // the end of what comes from the file
    private const uint LongPlace = First + 0x1001, NegatedPlace = First + 0x2002, Place = Last - 4;

    private static readonly uint[] s_threeLists = [0, LongPlace, LongPlace + 8, 0, NegatedPlace, 0, Place, First];
    private static readonly uint[] s_twoLists = [0, LongPlace, LongPlace + 8, 0, NegatedPlace, Place, First];   // from Linux 6.15 on nothing is negated

    private GuestMemory _memory = null!;

    [SetUp]
    public void SetUp() => _memory = Guest.Memory();

    [TearDown]
    public void TearDown() => _memory.Dispose();

    [TestCase(true)]
    [TestCase(false)]
    public void Load_WithList_MovesTheKernelAndChangesEveryPlace(bool hasNegated)
    {
        byte[] elf = new ElfBuilder { Relocations = hasNegated ? s_threeLists : s_twoLists }.Build();
        var physicals = new HashSet<ulong>();
        var virtuals = new HashSet<uint>();
        for (int i = 0; i < 20; i++)
        {
            using GuestMemory memory = Guest.Memory();
            ulong physical = Load(memory, elf, "quiet").InstructionPointer - ElfBuilder.Text;
            uint shift = Change(memory, elf, Place, physical);

            Assert.That(shift % (2 << 20), Is.Zero);
            Assert.That(Change(memory, elf, First, physical), Is.EqualTo(shift));
            Assert.That(Change(memory, elf, NegatedPlace, physical), Is.EqualTo(hasNegated ? 0 - shift : shift));
            foreach (uint place in new[] { LongPlace, LongPlace + 8 })
                Assert.That(memory.Read<ulong>(Address(place, physical)) - BitConverter.ToUInt64(elf, Offset(place)), Is.EqualTo(shift));
            physicals.Add(physical);
            virtuals.Add(shift);

            byte[] moved = [.. elf];
            foreach ((uint place, int size) in new[] { (Place, 4), (First, 4), (NegatedPlace, 4), (LongPlace, 16) })
                memory.Slice(Address(place, physical), size).CopyTo(moved.AsSpan(Offset(place)));
            AssertPlaced(memory, moved, physical);
        }
        Assert.That(physicals, Has.Count.GreaterThan(5));
        Assert.That(virtuals, Has.Count.GreaterThan(5));
    }

    [TestCase("nokaslr")]
    [TestCase("quiet nokaslr x")]
    public void Load_Nokaslr_StaysWhereItWasLinked(string commandLine)
    {
        byte[] elf = new ElfBuilder { Relocations = s_threeLists }.Build();

        Assert.That(Load(_memory, elf, commandLine).InstructionPointer, Is.EqualTo(ElfBuilder.Text));
        Guest.AssertKernelIsPlaced(_memory, elf);
        Assert.That(_memory.Read<byte>(new(BootLayout.BootParams + 0x211)), Is.EqualTo(1), "no KASLR_FLAG");
    }

    [TestCase("quiet")]
    [TestCase("nokaslrx xnokaslr -- nokaslr")]
    public void Load_WithoutNokaslr_TellsTheKernelThatItMayRandomise(string commandLine)
    {
        Load(_memory, new ElfBuilder().Build(), commandLine);

        Assert.That(_memory.Read<byte>(new(BootLayout.BootParams + 0x211)), Is.EqualTo(3), "LOADED_HIGH, KASLR_FLAG");
    }

    [Test]
    public void Load_GuestDecompression_LeavesTheFlagToTheGuest()
    {
        using var file = new TempFile(new BzImageBuilder { Payload = Packer.Pack("lz4", new ElfBuilder().Build()) }.Build());

        Guest.Load(_memory, file, guestDecompression: true);

        Assert.That(_memory.Read<byte>(new(BootLayout.BootParams + 0x211)), Is.EqualTo(1));
    }

    // The decompressor of the kernel keeps away from what these say; the VMM does not read their values.
    [TestCase("mem=40M")]
    [TestCase("memmap=4M@32M")]
    [TestCase("hugepagesz=1G hugepages=1")]
    public void Load_MemoryIsLimited_MovesInTheAddressSpaceOnly(string commandLine)
    {
        byte[] elf = new ElfBuilder { Relocations = s_threeLists }.Build();
        for (int i = 0; i < 10; i++)
        {
            using GuestMemory memory = Guest.Memory();
            Assert.That(Load(memory, elf, commandLine).InstructionPointer, Is.EqualTo(ElfBuilder.Text));
        }
    }

    [Test]
    public void Load_WithInitramfs_LeavesRoomForItAtTheTop()
    {
        using var initramfs = new TempFile(new byte[40 << 20]);
        using var file = new TempFile(Image(new ElfBuilder { Relocations = s_threeLists }.Build()));
        for (int i = 0; i < 10; i++)
        {
            using GuestMemory memory = Guest.Memory();
            BootEntry entry = Guest.Load(memory, new KernelOptions { KernelPath = file.Path, InitramfsPath = initramfs.Path });

            Assert.That(entry.InstructionPointer, Is.LessThan(24u << 20));
            Assert.That(memory.Read<uint>(new(BootLayout.BootParams + 0x218)), Is.EqualTo(24 << 20), "ramdisk_image");
        }
    }

    [TestCase(First - 1)]
    [TestCase(Last - 3)]
    [TestCase(Last)]
    [TestCase(1u)]
    [TestCase(0x7FFF_FFFFu)]
    [TestCase(0xFFFF_FFFFu)]
    public void Load_PlaceOutsideTheKernel_IsRefused(uint place)
    {
        foreach (uint[] words in new uint[][] { [0, 0, 0, place], [0, 0, place, 0], [0, place, 0, 0], [0, 0, place], [0, place, 0] })
            Assert.That(LoadSure(words), Does.Contain($"list of relocations has 0x{unchecked((ulong)(int)place):x}, which is not in the kernel: corrupt"), string.Join(' ', words));
    }

    [TestCase(Last - 7)]
    [TestCase(Last - 4)]
    public void Load_LongPlaceThatReachesOut_IsRefused(uint place) =>
        Assert.That(LoadSure([0, place, 0, 0, First]), Does.Contain("which is not in the kernel: corrupt"));

    // Nobody knows what such words mean: the kernel runs at its virtual addresses.
    [TestCase(new[] { First, 0u, 0u, 0u, First })]
    [TestCase(new[] { 0u, 0u, 0u, 0u, First })]
    [TestCase(new[] { 0u, First, First + 4, First + 8 })]
    public void Load_ListOfAnotherForm_IsNotUsed(uint[] words)
    {
        byte[] elf = new ElfBuilder { Relocations = words }.Build();

        ulong physical = Load(_memory, elf, "quiet").InstructionPointer - ElfBuilder.Text;

        AssertPlaced(_memory, elf, physical);
    }

    [Test]
    public void Load_EachWordOfTheListExtreme_LoadsOrNamesTheFile()
    {
        for (int i = 0; i < s_threeLists.Length; i++)
        {
            foreach (uint value in new uint[] { 0, 1, First - 1, Last - 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF })
            {
                uint[] words = [.. s_threeLists];
                words[i] = value;
                using var file = new TempFile(Image(new ElfBuilder { Relocations = words }.Build()));
                try
                {
                    Guest.Load(_memory, file);
                }
                catch (VmmException e)
                {
                    Assert.That(e.Message, Does.Contain($"{file.Path}: ").And.Not.Contain("\n"));
                }
            }
        }
    }

    // One boot of 500 gets a shift of 0 and does not look at the list.
    private string? LoadSure(uint[] words)
    {
        byte[] elf = new ElfBuilder { Relocations = words }.Build();
        for (int i = 0; i < 5; i++)
        {
            try
            {
                Load(_memory, elf, "quiet");
            }
            catch (VmmException e)
            {
                return e.Message;
            }
        }
        return null;
    }

    private static BootEntry Load(GuestMemory memory, byte[] elf, string commandLine)
    {
        using var file = new TempFile(Image(elf));
        return Guest.Load(memory, file, commandLine: commandLine);
    }

    private static byte[] Image(byte[] elf) => new BzImageBuilder { Payload = Packer.Pack("lz4", elf) }.Build();

    private static int Offset(uint place) => (int)(place - First) switch
    {
        < ElfBuilder.TextSize and int text => ElfBuilder.TextOffset + text,
        int rest => ElfBuilder.InitOffset + rest - (int)(ElfBuilder.Init - ElfBuilder.Text),
    };

    private static GuestAddress Address(uint place, ulong physical) => new(place - Virtual + physical);

    private static uint Change(GuestMemory memory, byte[] elf, uint place, ulong physical) =>
        memory.Read<uint>(Address(place, physical)) - BitConverter.ToUInt32(elf, Offset(place));

    private static void AssertPlaced(GuestMemory memory, byte[] elf, ulong physical)
    {
        Guest.AssertEqual(memory, ElfBuilder.Text + physical, elf.AsSpan(ElfBuilder.TextOffset, ElfBuilder.TextSize), "text");
        Guest.AssertEqual(memory, ElfBuilder.Data + physical, elf.AsSpan(ElfBuilder.DataOffset, ElfBuilder.DataSize), "data");
        Guest.AssertEqual(memory, ElfBuilder.Init + physical, elf.AsSpan(ElfBuilder.InitOffset, ElfBuilder.InitSize), "init");
        byte[] zeros = new byte[ElfBuilder.InitMemory - ElfBuilder.InitSize];
        Guest.AssertEqual(memory, ElfBuilder.Init + ElfBuilder.InitSize + physical, zeros, "zeros behind init");
    }
}
