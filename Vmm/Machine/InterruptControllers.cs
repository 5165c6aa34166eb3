using Vmm.Devices.Bus;
using Vmm.Devices.Platform;
using Vmm.Kvm;

namespace Vmm.Machine;

/// <summary>Decides which interrupt controllers the machine has: local APICs and an I/O APIC of ours, or all of a PC's in the kernel.</summary>
/// <remarks>Interrupts through KVM's I/O APIC are slower than messages (docs/adr/0005-interrupts-are-messages.md). But a kernel
/// without ACPI looks for a PC's 8259s and 8254, which KVM has only together with its I/O APIC.</remarks>
internal sealed class InterruptControllers
{
    private readonly GsiRoutes? _routes;

    /// <summary>Puts the I/O APIC, if it is ours, on the bus.</summary>
    /// <exception cref="VmmException">This host's KVM has not the controllers that the machine needs.</exception>
    public InterruptControllers(MachineConfig config, KvmSystem kvm, IoBus mmio)
    {
        if (config.Discovery == VirtioDiscovery.CommandLine || kvm.Check(KvmCapability.SplitIrqchip) == 0)
        {
            foreach (KvmCapability capability in KvmCapability.OfAPc)
            {
                if (kvm.Check(capability) == 0)
                {
                    throw new VmmException(config.Discovery == VirtioDiscovery.CommandLine
                        ? $"--virtio-discovery cmdline: this host's KVM lacks {capability.Name}: leave the option out, or use a kernel with CONFIG_KVM_IOAPIC"
                        : $"this host's KVM lacks {KvmCapability.SplitIrqchip.Name} and {capability.Name}, and one of them is needed: use a current Linux kernel");
                }
            }
            return;
        }
        // No more inputs than there are lines: Linux goes through all of them when it starts and when it ends.
        int inputs = (int)AddressMap.VirtioMmioFirstGsi + config.Devices.Count;
        _routes = new GsiRoutes(inputs);
        mmio.Attach(AddressMap.IoApicAddress, IoApic.Size, new IoApic(inputs, _routes));
    }

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
        _routes.Bind(vm);
    }
}
