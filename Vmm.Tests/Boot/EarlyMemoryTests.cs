using NUnit.Framework;
using Vmm.Boot;
using Vmm.Vhost.Memory;

namespace Vmm.Tests.Boot;

/// <summary>Which memory is backed by huge pages before Linux asks for it.</summary>
public class EarlyMemoryTests
{
    private const ulong MiB = 1 << 20, GiB = 1 << 30;

    [Test]
    public void HugePagesOf_SmallGuest_AreTheEndDownwardsAndThenTheBeginning()
    {
        ulong[] pages = PagesOf((0, 256 * MiB));

        Assert.That(pages.Take(4), Is.EqualTo(new ulong[] { 254, 252, 250, 248 }));
        Assert.That(pages.Skip(4), Is.EqualTo(Enumerable.Range(0, 14).Select(i => (ulong)(16 + (2 * i)))));
    }

    [Test]
    public void HugePagesOf_LargeGuest_AreOfItsUpperMemory()
    {
        ulong[] pages = PagesOf((0, 3 * GiB), (4 * GiB, 5 * GiB));

        Assert.That(pages.Take(66), Is.EqualTo(Enumerable.Range(1, 66).Select(i => (9 * 1024) - (2 * (ulong)i))), "descriptors of 8 GiB, and 4 MiB");
        Assert.That(pages.Skip(66), Is.EqualTo(Enumerable.Range(0, 14).Select(i => 4096 + (2 * (ulong)i))));
    }

    [TestCase(1ul)]
    [TestCase(17ul)]
    [TestCase(24ul)]
    [TestCase(64ul)]
    [TestCase(129ul)]
    [TestCase(3072ul)]
    public void HugePagesOf_AnySize_AreInRamAndEachIsThereOnce(ulong mebibytes)
    {
        ulong[] pages = PagesOf((0, mebibytes * MiB));

        Assert.That(pages, Is.Unique);
        Assert.That(pages, Is.All.Matches<ulong>(page => page >= 16 && page + 2 <= mebibytes));
        Assert.That((ulong)pages.Length * 2, Is.LessThanOrEqualTo((mebibytes / 8) + (mebibytes / 64) + 8), "of a small guest only a part");
    }

    [Test]
    public void HugePagesOf_LittleMemoryAbove4GiB_DoNotLeaveIt()
    {
        ulong[] pages = PagesOf((0, 3 * GiB), (4 * GiB, 6 * MiB));

        Assert.That(pages, Is.EqualTo(new ulong[] { 4100, 4098, 4096 }));
    }

    private static ulong[] PagesOf(params (ulong Start, ulong Size)[] ranges) =>
        [.. EarlyMemory.HugePagesOf([.. ranges.Select(range => new GuestRegion(new GuestAddress(range.Start), range.Size, 0, 0))]).Select(page => page.Value / MiB)];
}
