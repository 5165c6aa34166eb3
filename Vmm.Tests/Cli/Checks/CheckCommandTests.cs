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

    [Test]
    public void Run_NoLandlock_SaysWhatConfinesBackEnds()
    {
        _host.LandlockVersion = 0;
        AssertOptional("missing  Landlock (optional): ", "seccomp alone");
    }

    [Test]
    public void Run_Landlock_SaysWhatItsVersionKeepsAway()
    {
        _host.LandlockVersion = 6;
        Assert.That(Run().Lines, Has.Member("ok       Landlock: version 6 keeps vmm run, vmm exec and back-ends from files, TCP, abstract sockets"));
    }

    [Test]
    public void Run_NoSeccomp_SaysWhatNeedsTheSandboxOff()
    {
        _host.SeccompError = Errnos.Einval;
        AssertOptional("missing  seccomp (optional): seccomp: Invalid argument (errno 22)", "--sandbox off");
    }

    [Test]
    public void Run_NoIoUring_SaysWhoDoesTheIo()
    {
        _host.IoUringError = Errnos.Eperm;
        AssertOptional("missing  io_uring (optional): io_uring_setup: Operation not permitted (errno 1)", "threads do the I/O");
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

    [TestCase(Errnos.Ebusy, "another hypervisor uses the processor's virtualisation")]
    [TestCase(Errnos.Enomem, "ioctl(KVM_CREATE_VM)")]
    public void Run_NoMachineCanBeMade_FailsAndSaysWhy(int errno, string expected)
    {
        _host.Kvm.MachineError = errno;
        AssertMissing("missing  a virtual machine with a vCPU: ", expected);
    }

    [TestCase("KVM_CAP_READONLY_MEM", "registers are slower")]
    [TestCase("KVM_CAP_SPLIT_IRQCHIP", "--interrupts apic")]
    public void Run_CapabilityThatIsNotNeededMissing_SaysWhatItCosts(string name, string cost)
    {
        _host.Kvm.Lacks.Add(name);
        AssertOptional($"missing  {name} (optional): ", cost);
    }

    // The patch level of a distribution's kernel stands in other files, or nowhere.
    [TestCase("proc/version", "Linux version 6.1.0-26-amd64 (x) #1 SMP Debian 6.1.112-1 (2024-09-30)\n", "Linux 6.1.117 closes it, and this kernel is 6.1.112")]
    [TestCase("proc/version_signature", "Ubuntu 5.15.0-130.140-generic 5.15.167\n", "Linux 5.15.172 closes it, and this kernel is 5.15.167")]
    [TestCase("proc/sys/kernel/osrelease", "6.7.12\n", "Linux 6.12.0 closes it, and this kernel is 6.7.12")]
    [TestCase("proc/sys/kernel/osrelease", "6.11.7+deb12-amd64\n", "Linux 6.11.8 closes it, and this kernel is 6.11.7")]
    public void Run_KernelWithAHole_NamesItAndItsFix(string path, string text, string expected)
    {
        if (path != "proc/version")
            _host.Delete("proc/version");
        _host.Write(path, text);
        AssertOptional("missing  fix of CVE-2024-50264 (optional): --vsock has this hole", expected);
    }

    [TestCase("4.4.302\n", false)]
    [TestCase("6.12.90\n", false)]
    [TestCase("6.19.0-rc3\n", false)]
    [TestCase("7.0.1\n", false)]
    [TestCase("5.14.0-503.el9.x86_64\n", true)]
    public void Run_KernelWithoutThatHoleOrThatDoesNotTell_DoesNotNameIt(string release, bool isUnknown)
    {
        _host.Delete("proc/version");
        _host.Write("proc/sys/kernel/osrelease", release);
        string[] lines = Run().Lines;
        Assert.That(lines, Has.None.Contain("CVE-2024-50264"));
        Assert.That(lines.Any(line => line.Contains("known holes in vhost and vsock (optional): cannot tell", StringComparison.Ordinal)), Is.EqualTo(isUnknown));
    }

    // Linux 6.8 has ended, and Ubuntu and Proxmox go on with it.
    [TestCase("proc/version_signature", "Ubuntu 6.8.0-52.53-generic 6.8.12\n")]
    [TestCase("proc/sys/kernel/osrelease", "6.8.12-4-pve\n")]
    public void Run_BranchThatADistributionGoesOnWith_CannotTell(string file, string text)
    {
        _host.Delete("proc/version");
        _host.Write(file, text);
        string[] lines = Run().Lines;
        Assert.That(lines, Has.None.Contain("has this hole"));
        Assert.That(lines, Has.One.Contain("known holes in vhost and vsock (optional): cannot tell for CVE-").And.Contain("CVE-2024-50264"));
    }

    [Test]
    public void Run_HugePagesThatOthersReserved_DoNotCount()
    {
        _host.Write("sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "3\n");
        AssertOptional("missing  huge pages of 2M (optional): none free of 8", "nr_hugepages");
    }

    [TestCase("0::/a/b\n", "sys/fs/cgroup/a/hugetlb.2MB.max", "sys/fs/cgroup/a/hugetlb.2MB.current")]
    [TestCase("5:hugetlb:/a/b\n", "sys/fs/cgroup/hugetlb/a/hugetlb.2MB.limit_in_bytes", "sys/fs/cgroup/hugetlb/a/hugetlb.2MB.usage_in_bytes")]
    public void Run_ControlGroupWithFewerHugePages_TellsOfTheGroup(string groups, string limit, string usage)
    {
        _host.Write("proc/self/cgroup", groups);
        _host.Write(limit, $"{4 << 20}\n");
        _host.Write(usage, $"{2 << 20}\n");
        AssertLine(ExitCode.Success, "ok       huge pages of 2M: 1 of the 3 that are free", "control group /a ");
    }

    [TestCase("0::/a/b\n", "sys/fs/cgroup/a/")]
    [TestCase("5:pids:/a/b\n", "sys/fs/cgroup/pids/a/")]
    public void Run_ControlGroupWithFewThreads_SaysSo(string groups, string directory)
    {
        _host.Write("proc/self/cgroup", groups);
        _host.Write(directory + "pids.max", "30\n");
        _host.Write(directory + "pids.current", "20\n");
        AssertOptional("missing  threads (optional): 10 more in the control group /a, ", "pids.max");
        _host.Write(directory + "pids.max", "max\n");
        Assert.That(Run().Lines, Has.None.Contain("threads"));
    }

    [TestCase("flags\t\t: fpu sse\n")]
    [TestCase("flags\t\t: fpu svm_lock\nvmx flags\t: vnmi\n")]
    public void Run_NoHardwareVirtualisation_FailsAndPointsToTheEmulatedHost(string cpuinfo)
    {
        _host.Write("proc/cpuinfo", cpuinfo);
        AssertMissing("missing  hardware virtualisation: ", "in a checkout of vmm's sources: firmware/kvm-host/run");
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
            "Max file size             1024000              1024000              bytes     \n"
            + "Max open files            256                  4096                 files     \n"
            + "Max address space         1073741824           unlimited            bytes     \n"
            + "Max locked memory         8388608              8388608              bytes     \n");
        AssertOptional("missing  open files (optional): 256", "ulimit -n 1024");
        AssertOptional("missing  locked memory (optional): 8388608", "ulimit -l unlimited");
        AssertOptional("missing  file size (optional): 1024000", "ulimit -f unlimited");
        AssertOptional("missing  address space (optional): 1073741824", "ulimit -v unlimited");
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
