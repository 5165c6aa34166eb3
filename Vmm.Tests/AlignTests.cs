using NUnit.Framework;
using Vmm.Vhost;

namespace Vmm.Tests;

public class AlignTests
{
    [TestCase(0UL, 4096UL, 0UL, 0UL)]
    [TestCase(1UL, 4096UL, 0UL, 4096UL)]
    [TestCase(4095UL, 4096UL, 0UL, 4096UL)]
    [TestCase(4096UL, 4096UL, 4096UL, 4096UL)]
    [TestCase(5UL, 1UL, 5UL, 5UL)]
    [TestCase(ulong.MaxValue, 2UL << 20, ulong.MaxValue - (2UL << 20) + 1, 0UL, Description = "up wraps")]
    public void UpAndDown_Number_GiveTheMultiplesAroundIt(ulong value, ulong unit, ulong down, ulong up)
    {
        Assert.That(Align.Down(value, unit), Is.EqualTo(down));
        Assert.That(Align.Up(value, unit), Is.EqualTo(up));
    }

    [Test]
    public void Up_OtherTypes_AreRoundedToo()
    {
        Assert.That(Align.Up(9, 8), Is.EqualTo(16));
        Assert.That(Align.Up(65u, 64u), Is.EqualTo(128u));
    }
}
