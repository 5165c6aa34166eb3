using Vmm.Boot;
using Vmm.Cpu;
using Vmm.Devices.Bus;
using Vmm.Devices.Platform;
using Vmm.Kvm;

namespace Vmm.Machine;

/// <summary>Decides which interrupt controllers the machine has: local APICs and an I/O APIC of ours, or all of a PC's in the kernel.</summary>
/// <remarks>Interrupts through KVM's I/O APIC are slower than messages (docs/adr/0005-interrupts-are-messages.md). But a kernel
/// without ACPI looks for a PC's 8259s and 8254, which KVM has only together with its I/O APIC, and so does one that may not use its APICs.</remarks>
internal sealed class InterruptControllers
{
    private readonly GsiRoutes? _routes;
    private readonly bool _longIds;

    /// <summary>Puts the I/O APIC, if it is ours, on the bus.</summary>
    /// <exception cref="VmmException">This host's KVM has not the controllers that the machine needs.</exception>
    public InterruptControllers(MachineConfig config, KvmSystem kvm, IoBus mmio)
    {
        string? whyPc = WhyPc(config);
        _longIds = CpuTopology.NeedsX2Apic(config.Cpus);
        bool hasSplit = kvm.Check(KvmCapability.SplitIrqchip) != 0;
        if (config.Interrupts == InterruptHardware.Apic && !hasSplit)
            throw new VmmException($"--interrupts apic: this host's KVM lacks {KvmCapability.SplitIrqchip.Name}: leave the option out, or use a current Linux kernel");
        if (_longIds && (whyPc is not null || !hasSplit))
        {
            throw new VmmException($"--cpus {config.Cpus}: the I/O APIC of a PC interrupts CPUs 0 to {CpuTopology.MaxXApicCpus - 1} only: "
                + (whyPc is not null ? $"leave out {whyPc}, or give the guest fewer CPUs" : $"use a Linux kernel whose KVM has {KvmCapability.SplitIrqchip.Name}, or give the guest fewer CPUs"));
        }
        if (_longIds && kvm.Check(KvmCapability.X2ApicApi) == 0)
            throw new VmmException($"--cpus {config.Cpus}: this host's KVM lacks {KvmCapability.X2ApicApi.Name}: give the guest at most {CpuTopology.MaxXApicCpus} CPUs");
        if (whyPc is not null || !hasSplit)
        {
            foreach (KvmCapability capability in KvmCapability.OfAPc)
            {
                if (kvm.Check(capability) == 0)
                {
                    throw new VmmException(whyPc is not null
                        ? $"{whyPc}: this host's KVM lacks {capability.Name}: leave it out, or use a host kernel with CONFIG_KVM_IOAPIC"
                        : $"this host's KVM lacks {KvmCapability.SplitIrqchip.Name} and {capability.Name}, and one of them is needed: use a current Linux kernel");
                }
            }
            return;
        }
        // No more inputs than there are lines: Linux goes through all of them when it starts and when it ends.
        int inputs = (int)AddressMap.VirtioMmioGsi(Math.Max(config.Devices.Count - 1, 0)) + 1;
        _routes = new GsiRoutes(inputs);
        mmio.Attach(AddressMap.IoApicAddress, IoApic.Size, new IoApic(inputs, _routes));
    }

    /// <summary>What of <paramref name="config"/> asks for a PC's controllers, in the user's words; null where nothing does.</summary>
    internal static string? WhyPc(MachineConfig config) => config.Interrupts switch
    {
        InterruptHardware.Apic => null,
        InterruptHardware.Pc => "--interrupts pc",
        _ when config.Discovery == VirtioDiscovery.CommandLine => "--virtio-discovery cmdline",
        _ => KernelParameters.NeedsPc(config.Kernel.CommandLine) is string word ? $"--cmdline: {word}" : null,
    };

    /// <summary>Whether there are two 8259s and an 8254 beside the APICs.</summary>
    public bool AreOfAPc => _routes is null;

    /// <summary>Gives them to a new VM, before its vCPUs and its interrupt lines.</summary>
    public void Create(KvmVm vm)
    {
        if (_routes is null)
        {
            vm.CreatePcInterruptControllers();
            return;
        }
        vm.CreateLocalApics();
        if (_longIds)
            vm.UseLongApicIds();
        _routes.Bind(vm);
    }
}
