using NUnit.Framework;
using Vmm.Boot;

namespace Vmm.Tests.Boot;

public sealed class KernelShiftTests
{
    private const ulong MiB = 1 << 20;

    [TestCase(0ul, 0ul)]
    [TestCase(1ul, 2 * MiB)]
    [TestCase(15ul, 30 * MiB)]
    public void Choose_Random_TakesTheSlotThatItNames(ulong random, ulong expected) =>
        Assert.That(Choose(end: 32 * MiB, roomEnd: 62 * MiB, () => random), Is.EqualTo(new KernelShift(expected, (uint)expected)));

    [Test]
    public void Choose_AnyRandom_StaysInTheRoom()
    {
        var seen = new HashSet<ulong>();
        ulong highest = 0;
        for (ulong random = 0; random < 5000; random++)
        {
            KernelShift shift = Choose(end: 33 * MiB, roomEnd: 64 * MiB, () => random);
            Assert.That(shift.Physical, Is.LessThanOrEqualTo(31 * MiB));
            Assert.That(shift.Virtual, Is.LessThanOrEqualTo((1024 - 33) * MiB));
            seen.Add(shift.Physical);
            highest = Math.Max(highest, shift.Virtual);
        }
        Assert.That(seen, Has.Count.EqualTo(16), "0 to 30 MiB in steps of 2");
        Assert.That(highest, Is.EqualTo(990 * MiB));
    }

    [Test]
    public void Choose_NoRoomInMemory_MovesInTheAddressSpaceOnly()
    {
        Assert.That(Choose(end: 32 * MiB, roomEnd: 0, () => 3), Is.EqualTo(new KernelShift(0, (uint)(6 * MiB))));
        Assert.That(Choose(end: 32 * MiB, roomEnd: 32 * MiB, () => 3), Is.EqualTo(new KernelShift(0, (uint)(6 * MiB))));
    }

    [TestCase(0x230, (byte)0x10)]    // alignment 0x200010: no power of two
    [TestCase(0x232, (byte)0)]       // alignment 0
    [TestCase(0x233, (byte)1)]       // alignment 0x1200000
    [TestCase(0x234, (byte)0)]       // not relocatable
    public void Choose_KernelThatCannotBeMoved_StaysWhereItIs(int offset, byte value) =>
        Assert.That(Choose(32 * MiB, 64 * MiB, () => 3, offset, value), Is.EqualTo(default(KernelShift)));

    [Test]
    public void Choose_KernelThatEndsAbove1GiB_StaysWhereItIs() =>
        Assert.That(Choose((1 << 30) + MiB, 2048 * MiB, () => 3), Is.EqualTo(default(KernelShift)));

    private static KernelShift Choose(ulong end, ulong roomEnd, Func<ulong> random, int offset = 0x234, byte value = 1)
    {
        byte[] image = new BzImageBuilder { Payload = [] }.Build();
        image[offset] = value;
        using var path = new TempFile(image);
        using ImageFile file = ImageFile.OpenKernel(path.Path);
        byte[] elf = new ElfBuilder().Build();
        return KernelShift.Choose(SetupHeader.Read(file, image), ElfKernel.Parse(file, elf, elf.Length), end, roomEnd, random);
    }
}
