using NUnit.Framework;
using Vmm.Machine;

namespace Vmm.Tests.Machine;

public class HostHugePagesTests
{
    private string _root = null!;

    [SetUp]
    public void SetUp() => _root = Directory.CreateTempSubdirectory("vmm-hugepages-").FullName;

    [TearDown]
    public void TearDown() => Directory.Delete(_root, recursive: true);

    [Test]
    public void Require_SizeOfTheHost_IsFine()
    {
        Offer("hugepages-1048576kB", "hugepages-2048kB", "other", "hugepages-xkB");
        Assert.That(HostHugePages.Sizes(_root), Is.EqualTo((ulong[])[2UL << 20, 1UL << 30]));
        Assert.DoesNotThrow(() => HostHugePages.Require(2UL << 20, _root));
    }

    [Test]
    public void Require_OtherSize_NamesThoseOfTheHost()
    {
        Offer("hugepages-1048576kB", "hugepages-2048kB");
        Assert.That(() => HostHugePages.Require(16UL << 20, _root),
            Throws.TypeOf<VmmException>().With.Message.EqualTo("--memory: this host has no huge pages of 16M: it has 2M, 1G"));
    }

    [Test]
    public void Require_HostWithoutHugePages_SaysSo() =>
        Assert.That(() => HostHugePages.Require(2UL << 20, _root), Throws.TypeOf<VmmException>().With.Message.Contains("leave hugepages off"));

    private void Offer(params string[] names)
    {
        foreach (string name in names)
            Directory.CreateDirectory(Path.Combine(_root, "sys/kernel/mm/hugepages", name));
    }
}
