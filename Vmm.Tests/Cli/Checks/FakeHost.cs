using Vmm.Cli.Checks;
using Vmm.Kvm;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Cli.Checks;

/// <summary>A host made of files in a temporary directory: to begin with, one that has everything.</summary>
internal sealed class FakeHost : IDisposable
{
    public FakeHost()
    {
        Root = Directory.CreateTempSubdirectory("vmm-check-").FullName;
        Write("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu vme svm sse\n");
        Write("proc/meminfo", "MemTotal:       24684084 kB\nMemFree:        24398028 kB\nMemAvailable:   24353136 kB\n");
        Write("proc/sys/kernel/osrelease", "6.1.0-40-cloud-amd64\n");
        Write("proc/version", "Linux version 6.1.0-40-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)\n");
        Write("proc/self/limits",
            "Limit                     Soft Limit           Hard Limit           Units     \n"
            + "Max file size             unlimited            unlimited            bytes     \n"
            + "Max address space         unlimited            unlimited            bytes     \n"
            + "Max open files            20000                20000                files     \n"
            + "Max locked memory         unlimited            unlimited            bytes     \n");
        Write("sys/kernel/mm/transparent_hugepage/shmem_enabled", "always within_size [advise] never deny force\n");
        Write("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "3\n");
        Write("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "8\n");
        foreach (string device in (string[])["vhost-net", "vhost-vsock", "vhost-scsi", "vhost-vdpa-0", "net/tun"])
            Write("dev/" + device, "");
    }

    public string Root { get; }

    public FakeKvm Kvm { get; } = new();

    public int KvmError { get; set; }

    public int LandlockVersion { get; set; } = 10;

    public int SeccompError { get; set; }

    public int IoUringError { get; set; }

    public HostView View => new(Root, path => KvmError == 0 ? Kvm : throw new ErrnoException($"cannot open {path}", KvmError))
    {
        LandlockVersion = () => LandlockVersion,
        SeccompError = () => SeccompError,
        IoUringError = () => IoUringError,
    };

    public void Write(string path, string text)
    {
        string full = Path.Combine(Root, path);
        Directory.CreateDirectory(Path.GetDirectoryName(full)!);
        File.WriteAllText(full, text);
    }

    public void Delete(string path) => File.Delete(Path.Combine(Root, path));

    public void Dispose() => Directory.Delete(Root, recursive: true);
}

/// <summary>A KVM with every capability but those that a test takes away.</summary>
internal sealed class FakeKvm : IKvmProbe
{
    public HashSet<string> Lacks { get; } = [];

    public int ApiVersion { get; set; } = 12;

    public int MachineError { get; set; }

    public void TryMachine()
    {
        if (MachineError != 0)
            throw new ErrnoException("ioctl(KVM_CREATE_VM)", MachineError);
    }

    public int Check(KvmCapability capability) => Lacks.Contains(capability.Name) ? 0 : 1;

    public void Dispose()
    {
    }
}
