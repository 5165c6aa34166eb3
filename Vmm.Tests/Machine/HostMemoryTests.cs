using NUnit.Framework;
using Vmm.Machine;

namespace Vmm.Tests.Machine;

public class HostMemoryTests
{
    private const ulong Mib = 1 << 20;

    private string _root = "";

    [SetUp]
    public void SetUp()
    {
        _root = Directory.CreateTempSubdirectory("vmm-test-").FullName;
        Write("proc/meminfo", "MemTotal:  8388608 kB\nMemAvailable:  4194304 kB\n");
    }

    [TearDown]
    public void TearDown() => Directory.Delete(_root, recursive: true);

    [Test]
    public void Read_NoGroup_IsTheHosts() => Assert.That(HostMemory.Read(_root), Is.EqualTo(new HostMemory(4096 * Mib, 8192 * Mib, null)));

    [Test]
    public void Read_NoProc_IsUnknown()
    {
        Directory.Delete(Path.Combine(_root, "proc"), recursive: true);

        Assert.That(HostMemory.Read(_root), Is.Null);
    }

    [Test]
    public void Read_GroupsOfVersion2_TakesTheTightest()
    {
        Write("proc/self/cgroup", "0::/a/b/c\n");
        Write("sys/fs/cgroup/a/memory.max", $"{200 * Mib}\n");
        Write("sys/fs/cgroup/a/memory.current", $"{150 * Mib}\n");
        Write("sys/fs/cgroup/a/memory.stat", $"anon 1\ninactive_file {30 * Mib}\nactive_file {15 * Mib}\nslab_reclaimable {5 * Mib}\n");
        Write("sys/fs/cgroup/a/b/memory.max", "max\n");
        Write("sys/fs/cgroup/a/b/memory.high", $"{300 * Mib}\n");
        Write("sys/fs/cgroup/a/b/memory.current", $"{10 * Mib}\n");

        Assert.That(HostMemory.Read(_root), Is.EqualTo(new HostMemory(100 * Mib, 200 * Mib, "/a")));
    }

    [TestCase(2UL << 20, "2MB")]
    [TestCase(1UL << 30, "1GB")]
    [TestCase(64UL << 10, "64KB")]
    public void ReadHugePages_Groups_TakesTheTightestOfThatSize(ulong size, string name)
    {
        Write("proc/self/cgroup", "5:net_cls,hugetlb:/old\n0::/a/b\n");
        Assert.That(HostMemory.ReadHugePages(size, _root), Is.EqualTo(new HostMemory(ulong.MaxValue, ulong.MaxValue, null)), "no limit");

        Write($"sys/fs/cgroup/a/b/hugetlb.{name}.max", "max\n");
        Write($"sys/fs/cgroup/a/hugetlb.{name}.max", $"{600 * Mib}\n");
        Write($"sys/fs/cgroup/a/hugetlb.{name}.current", $"{100 * Mib}\n");
        Assert.That(HostMemory.ReadHugePages(size, _root), Is.EqualTo(new HostMemory(500 * Mib, 600 * Mib, "/a")));

        Write($"sys/fs/cgroup/hugetlb/old/hugetlb.{name}.limit_in_bytes", $"{400 * Mib}\n");
        Assert.That(HostMemory.ReadHugePages(size, _root), Is.EqualTo(new HostMemory(400 * Mib, 400 * Mib, "/old")));
        Assert.That(HostMemory.ReadHugePages(size == 2 * Mib ? 1UL << 30 : 2 * Mib, _root).Available, Is.EqualTo(ulong.MaxValue), "another size");
    }

    [Test]
    public void Read_GroupAboveWithMoreButFull_TakesWhatItLeaves()
    {
        Write("proc/self/cgroup", "0::/a/b\n");
        Write("sys/fs/cgroup/a/b/memory.max", $"{2048 * Mib}\n");
        Write("sys/fs/cgroup/a/b/memory.current", "0\n");
        Write("sys/fs/cgroup/a/memory.max", $"{3072 * Mib}\n");
        Write("sys/fs/cgroup/a/memory.current", $"{2560 * Mib}\n");

        Assert.That(HostMemory.Read(_root), Is.EqualTo(new HostMemory(512 * Mib, 2048 * Mib, "/a")));
    }

    [Test]
    public void Read_GroupOfVersion1_IsHeeded()
    {
        Write("proc/self/cgroup", "4:cpu:/x\n3:hugetlb,memory:/job\n0::/\n");
        Write("sys/fs/cgroup/memory/job/memory.limit_in_bytes", $"{100 * Mib}\n");
        Write("sys/fs/cgroup/memory/job/memory.usage_in_bytes", $"{20 * Mib}\n");
        Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");

        Assert.That(HostMemory.Read(_root), Is.EqualTo(new HostMemory(80 * Mib, 100 * Mib, "/job")));
    }

    [Test]
    public void Read_PathOfAnotherNamespace_TakesTheGroupsThatAreThere()
    {
        Write("proc/self/cgroup", "3:memory:/of/the/host\n");
        Write("sys/fs/cgroup/memory/memory.limit_in_bytes", $"{64 * Mib}\n");
        Write("sys/fs/cgroup/memory/memory.usage_in_bytes", $"{65 * Mib}\n");

        Assert.That(HostMemory.Read(_root), Is.EqualTo(new HostMemory(0, 64 * Mib, "/")));
    }

    private void Write(string path, string text)
    {
        string full = Path.Combine(_root, path);
        Directory.CreateDirectory(Path.GetDirectoryName(full)!);
        File.WriteAllText(full, text);
    }
}
