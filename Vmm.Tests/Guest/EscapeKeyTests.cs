using NUnit.Framework;
using Vmm.Guest;

namespace Vmm.Tests.Guest;

public sealed class EscapeKeyTests
{
    [TestCase("\x1d\x1d\x1d", true, TestName = "{m}(three)")]
    [TestCase("a\x1d\x1d\x1d", true, TestName = "{m}(another key, three)")]
    [TestCase("\x1d\x1d\x1dz", true, TestName = "{m}(three, another key)")]
    [TestCase("\x1d\x1d", false, TestName = "{m}(two)")]
    [TestCase("\x1d\x1dz\x1d", false, TestName = "{m}(two, another key, one)")]
    [TestCase("", false)]
    public void Note_Keys_LeaveOnlyByThreeInARow(string typed, bool leaves)
    {
        var key = new EscapeKey();
        Assert.That(key.Note([.. typed.Select(character => (byte)character)]), Is.EqualTo(leaves));
    }

    [Test]
    public void Note_KeysThatComeOneByOne_AreCounted()
    {
        var key = new EscapeKey();
        Assert.That(key.Note([0x1D]), Is.False);
        Assert.That(key.Note([0x1D]), Is.False);
        Assert.That(key.Note([0x1D]), Is.True);
    }
}
