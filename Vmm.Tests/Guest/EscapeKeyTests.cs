using NUnit.Framework;
using Vmm.Guest;

namespace Vmm.Tests.Guest;

public sealed class EscapeKeyTests
{
    [TestCase("\x1d\x1d\x1d", true)]
    [TestCase("a\x1d\x1d\x1d", true)]
    [TestCase("\x1d\x1d\x1dz", true)]
    [TestCase("\x1d\x1d", false)]
    [TestCase("\x1d\x1dz\x1d", false)]
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
