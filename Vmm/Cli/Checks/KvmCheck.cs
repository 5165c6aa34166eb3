using Vmm.Kvm;
using Vmm.Vhost.Native;

namespace Vmm.Cli.Checks;

/// <summary>/dev/kvm, its version and its capabilities.</summary>
internal static class KvmCheck
{
    /// <summary>Looks.</summary>
    public static IEnumerable<Finding> Run(HostView host)
    {
        IKvmProbe kvm;
        try
        {
            kvm = host.OpenKvm();
        }
        catch (ErrnoException e)
        {
            return [Finding.Missing("/dev/kvm", e.Errno switch
            {
                Errnos.Enoent or Errnos.Enodev or Errnos.Enxio =>
                    "there is none: run modprobe kvm_intel or modprobe kvm_amd, and enable virtualisation in the firmware",
                Errnos.Eacces or Errnos.Eperm => "permission denied: add your user to group kvm (usermod -aG kvm $USER) and log in again",
                _ => e.Message,
            })];
        }
        using (kvm)
        {
            try
            {
                return Ask(kvm);
            }
            catch (ErrnoException e)
            {
                return [Finding.Missing("/dev/kvm", $"{e.Message}: this is not KVM's device")];
            }
        }
    }

    private static List<Finding> Ask(IKvmProbe kvm)
    {
        int version = kvm.ApiVersion;
        if (version != KvmDevice.RequiredApiVersion)
            return [Finding.Missing("/dev/kvm", $"KVM API version {version}, and {KvmDevice.RequiredApiVersion} is needed: use a current Linux kernel")];

        var findings = new List<Finding> { Finding.Ok("/dev/kvm", $"KVM API version {version}") };
        foreach (KvmCapability capability in KvmCapability.Required)
        {
            findings.Add(kvm.Check(capability) > 0
                ? Finding.Ok(capability.Name, "present")
                : Finding.Missing(capability.Name, "this kernel's KVM lacks it: use a current Linux kernel"));
        }
        bool isSplit = kvm.Check(KvmCapability.SplitIrqchip) > 0;
        findings.Add(isSplit ? Finding.Ok(KvmCapability.SplitIrqchip.Name, "present")
            : Finding.MissingOptional(KvmCapability.SplitIrqchip.Name, "interrupts of devices are slower, and --interrupts apic does not work: use a current Linux kernel"));
        findings.Add(kvm.Check(KvmCapability.ReadonlyMem) > 0 ? Finding.Ok(KvmCapability.ReadonlyMem.Name, "present")
            : Finding.MissingOptional(KvmCapability.ReadonlyMem.Name, "reads of devices' registers are slower: use a current Linux kernel"));
        foreach (KvmCapability capability in KvmCapability.OfAPc)
        {
            findings.Add(kvm.Check(capability) > 0 ? Finding.Ok(capability.Name, "present")
                : isSplit ? Finding.MissingOptional(capability.Name, "--interrupts pc and --virtio-discovery cmdline do not work: use a kernel with CONFIG_KVM_IOAPIC")
                : Finding.Missing(capability.Name, "this kernel's KVM lacks it: use a current Linux kernel"));
        }
        findings.Add(Finding.Ok("vCPUs", $"{kvm.Check(KvmCapability.NrVcpus)} recommended, {kvm.Check(KvmCapability.MaxVcpus)} at most"));
        if (findings.TrueForAll(finding => finding.State != FindingState.Missing))
            findings.Add(TryMachine(kvm));
        return findings;
    }

    // Only now the processor's virtualisation is used, and what the process may do with it (memory, descriptors, seccomp).
    private static Finding TryMachine(IKvmProbe kvm)
    {
        const string topic = "a virtual machine with a vCPU";
        try
        {
            kvm.TryMachine();
            return Finding.Ok(topic, "can be made");
        }
        catch (ErrnoException e)
        {
            return Finding.Missing(topic, KvmDevice.Explain(e));
        }
    }
}
