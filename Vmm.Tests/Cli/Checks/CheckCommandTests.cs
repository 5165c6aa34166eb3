using NUnit.Framework;
using Vmm.Cli;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Cli.Checks;

public class CheckCommandTests
{
    private FakeHost _host = null!;

    [SetUp]
    public void SetUp() => _host = new FakeHost();

    [TearDown]
    public void TearDown() => _host.Dispose();

    [Test]
    public void Run_EverythingThere_SucceedsWithoutAMissingLine()
    {
        (int exit, string[] lines) = Run();
        Assert.That(exit, Is.EqualTo(ExitCode.Success));
        Assert.That(lines[..^1], Has.All.StartsWith("ok       "));
        Assert.That(lines[^1], Is.EqualTo("Linux guests can run on this host."));
    }

    [TestCase(Errnos.Enoent, "modprobe kvm_intel")]
    [TestCase(Errnos.Eacces, "group kvm")]
    [TestCase(Errnos.Ebusy, "errno 16")]
    public void Run_KvmCannotBeOpened_FailsAndSaysHowToFix(int errno, string fix)
    {
        _host.KvmError = errno;
        AssertMissing("missing  /dev/kvm: ", fix);
    }

    [Test]
    public void Run_KvmOfAnotherVersion_Fails()
    {
        _host.Kvm.ApiVersion = 11;
        AssertMissing("missing  /dev/kvm: ", "version 11");
    }

    [TestCase("KVM_CAP_USER_MEMORY")]
    [TestCase("KVM_CAP_SET_TSS_ADDR")]
    [TestCase("KVM_CAP_EXT_CPUID")]
    [TestCase("KVM_CAP_IRQFD")]
    [TestCase("KVM_CAP_IOEVENTFD")]
    [TestCase("KVM_CAP_SET_IDENTITY_MAP_ADDR")]
    [TestCase("KVM_CAP_IMMEDIATE_EXIT")]
    public void Run_CapabilityMissing_FailsAndNamesIt(string name)
    {
        _host.Kvm.Lacks.Add(name);
        AssertMissing($"missing  {name}: ", "use a current Linux kernel");
    }

    [TestCase("KVM_CAP_IRQCHIP")]
    [TestCase("KVM_CAP_PIT2")]
    public void Run_NoControllersOfAPc_FailsOnlyWithoutTheSplitOnes(string name)
    {
        _host.Kvm.Lacks.Add(name);
        AssertOptional($"missing  {name} (optional): ", "--virtio-discovery cmdline");

        _host.Kvm.Lacks.Add("KVM_CAP_SPLIT_IRQCHIP");
        AssertMissing($"missing  {name}: ", "use a current Linux kernel");
    }

    [TestCase("flags\t\t: fpu sse\n")]
    [TestCase("flags\t\t: fpu svm_lock\nvmx flags\t: vnmi\n")]
    public void Run_NoHardwareVirtualisation_FailsAndPointsToTheEmulatedHost(string cpuinfo)
    {
        _host.Write("proc/cpuinfo", cpuinfo);
        AssertMissing("missing  hardware virtualisation: ", "firmware/kvm-host/run");
    }

    [TestCase("proc/cpuinfo", "hardware virtualisation")]
    [TestCase("proc/meminfo", "memory")]
    public void Run_FileOfProcMissing_SucceedsAsARunWould(string path, string topic)
    {
        _host.Delete(path);
        AssertOptional($"missing  {topic} (optional): ", $"cannot tell without /{path}");
    }

    [Test]
    public void Run_HardlyAnyMemory_Fails()
    {
        _host.Write("proc/meminfo", "MemTotal: 65536 kB\nMemAvailable:   65535 kB\n");
        AssertMissing("missing  memory: ", "63 MiB available of 64 MiB");
    }

    [Test]
    public void Run_ControlGroupWithLessMemory_TellsOfTheGroup()
    {
        _host.Write("proc/self/cgroup", "0::/user/tests\n");
        _host.Write("sys/fs/cgroup/user/memory.max", $"{100 << 20}\n");
        _host.Write("sys/fs/cgroup/user/memory.current", $"{30 << 20}\n");
        AssertLine(ExitCode.Success, "ok       memory: 70 MiB available of 100 MiB", "control group /user ");

        _host.Write("sys/fs/cgroup/user/memory.current", $"{80 << 20}\n");
        AssertMissing("missing  memory: 20 MiB available of 100 MiB", "a guest needs 64 MiB");
    }

    [TestCase("dev/vhost-net", "missing  /dev/vhost-net (optional): ", "modprobe vhost_net")]
    [TestCase("dev/vhost-vsock", "missing  /dev/vhost-vsock (optional): ", "modprobe vhost_vsock")]
    [TestCase("dev/vhost-scsi", "missing  /dev/vhost-scsi (optional): ", "modprobe vhost_scsi")]
    [TestCase("dev/vhost-vdpa-0", "missing  /dev/vhost-vdpa-* (optional): ", "modprobe vhost_vdpa")]
    [TestCase("dev/net/tun", "missing  /dev/net/tun (optional): ", "modprobe tun")]
    public void Run_DeviceMissing_SucceedsAndSaysHowToFix(string path, string start, string fix)
    {
        _host.Delete(path);
        AssertOptional(start, fix);
    }

    [Test]
    public void Run_LowLimits_SucceedsAndSaysHowToRaiseThem()
    {
        _host.Write("proc/self/limits",
            "Max open files            256                  4096                 files     \n"
            + "Max locked memory         8388608              8388608              bytes     \n");
        AssertOptional("missing  open files (optional): 256", "ulimit -n 1024");
        AssertOptional("missing  locked memory (optional): 8388608", "ulimit -l unlimited");
    }

    [Test]
    public void Run_NoTransparentHugePages_SaysHowToAllowThem()
    {
        _host.Write("sys/kernel/mm/transparent_hugepage/shmem_enabled", "always within_size advise [never] deny force\n");
        AssertOptional(
            "missing  transparent huge pages for guests (optional): ", "echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled");
    }

    [Test]
    public void Run_NoHugePagesReserved_SucceedsAndSaysHowTo()
    {
        _host.Write("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "0\n");
        AssertOptional("missing  huge pages of 2M (optional): ", "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
    }

    [TestCase("5.10.0-30-amd64\n")]
    [TestCase("nonsense")]
    [TestCase("")]
    public void Run_OldOrUnknownKernel_Succeeds(string release)
    {
        _host.Write("proc/sys/kernel/osrelease", release);
        AssertOptional("missing  kernel (optional): ", "5.14");
    }

    [Test]
    public void Run_EmptyHost_FailsWithoutAnException()
    {
        Directory.Delete(_host.Root, recursive: true);
        Directory.CreateDirectory(_host.Root);
        _host.KvmError = Errnos.Enoent;
        Assert.That(Run().Exit, Is.EqualTo(ExitCode.Failure));
    }

    private void AssertMissing(string start, string contained) => AssertLine(ExitCode.Failure, start, contained);

    private void AssertOptional(string start, string contained) => AssertLine(ExitCode.Success, start, contained);

    private void AssertLine(int expectedExit, string start, string contained)
    {
        (int exit, string[] lines) = Run();
        Assert.That(exit, Is.EqualTo(expectedExit));
        Assert.That(lines, Has.One.StartsWith(start).And.Contain(contained));
    }

    private (int Exit, string[] Lines) Run()
    {
        using var output = new StringWriter { NewLine = "\n" };
        int exit = CheckCommand.Run(_host.View, output);
        return (exit, output.ToString().TrimEnd('\n').Split('\n'));
    }
}
