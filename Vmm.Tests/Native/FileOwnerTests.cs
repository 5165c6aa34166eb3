using NUnit.Framework;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Tests.Native;

public sealed class FileOwnerTests
{
    private const uint Stranger = 54321;

    [TestCase(0u, 0u, "100755", true)]
    [TestCase(0u, 0u, "100775", true)]
    [TestCase(0u, 100u, "100775", false)]
    [TestCase(0u, 100u, "100757", false)]
    [TestCase(0u, 0u, "100646", false)]
    [TestCase(0u, 100u, "41777", true)]
    [TestCase(0u, 100u, "40777", false)]
    [TestCase(0u, 100u, "101777", false)]
    [TestCase(Stranger, Stranger, "100600", false)]
    [TestCase(Stranger, Stranger, "41777", false)]
    public void IsTrusted_FileOrDirectory_IsSoIfNobodyElseCanChangeIt(uint user, uint group, string mode, bool isTrusted)
    {
        var status = new FileStatus { UserId = user, GroupId = group, Mode = Convert.ToUInt16(mode, 8) };

        Assert.That(FileOwner.IsTrusted(status, allowsSticky: true), Is.EqualTo(isTrusted));
    }

    [Test]
    public void IsTrusted_DirectoryOfAllWhereItIsNotAllowed_IsNot() =>
        Assert.That(FileOwner.IsTrusted(new FileStatus { Mode = Convert.ToUInt16("41777", 8) }), Is.False);
}
