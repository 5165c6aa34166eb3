using Vmm.Acpi;
using Vmm.Boot;
using Vmm.Cpu;
using Vmm.Kvm;
using Vmm.Serial;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Machine;

/// <summary>The machine between power-on and power-off: KVM's VM with its vCPUs and their threads. A reset makes a new one,
/// so that no state of processors, interrupt controllers or timers is ever left over.</summary>
internal sealed class PowerCycle : IDisposable
{
    private readonly KvmVm _vm;
    private readonly List<VcpuThread> _vcpus = [];

    private PowerCycle(KvmVm vm) => _vm = vm;

    /// <summary>The vCPUs; the first is the boot processor.</summary>
    public IReadOnlyList<VcpuThread> Vcpus => _vcpus;

    /// <summary>Makes the VM, loads the kernel and sets the boot processor at its entry. Nothing runs yet.</summary>
    /// <exception cref="VmmException">The kernel or the host cannot do it.</exception>
    public static PowerCycle Prepare(
        KvmSystem kvm, MachineConfig config, KernelFiles kernel, GuestMemory memory, PlatformDevices platform, VirtioSlots slots, IVcpuEvents events,
        Action? confineVcpu)
    {
        PowerCycle? cycle = null;
        try
        {
            cycle = new PowerCycle(kvm.CreateVm());
            KvmVm vm = cycle._vm;
            vm.SetReservedPages(new GuestAddress(AddressMap.KvmTssAddress), new GuestAddress(AddressMap.KvmIdentityMapAddress));
            if (!config.Cpu.Pmu)
                vm.HideCounters(kvm.Check(KvmCapability.PmuCapability));
            platform.Interrupts.Create(vm);
            vm.MapMemory(memory);
            foreach (IrqFd line in platform.Lines)
                line.Bind(vm);
            slots.Bind(vm);

            GuestAddress rsdp = AcpiTables.Write(memory, new AcpiConfig
            {
                Cpus = config.Cpus,
                HasPcInterruptControllers = platform.Interrupts.AreOfAPc,
                HasSerial = config.Serial.Kind != SerialKind.Off,
                VirtioSlots = config.Discovery == VirtioDiscovery.Acpi ? slots.Occupied : [],
            });
            ResetVector.Write(memory);
            KvmVcpu boot = vm.CreateVcpu(0);
            uint tscKilohertz = boot.GetTscKilohertz();
            // A Linux that may not use the local APIC's timer starts the 8254's only if that timer has no deadline mode.
            bool needs8254 = platform.Interrupts.AreOfAPc && KernelParameters.NeedsPc(config.Kernel.CommandLine) is not null;
            bool tscDeadline = kvm.Check(KvmCapability.TscDeadlineTimer) != 0 && !needs8254;
            KvmCpuidEntry2[] cpuid = new GuestCpuid
            {
                Cpus = config.Cpus,
                Options = config.Cpu,
                TscDeadline = tscDeadline,
                TscKilohertz = tscKilohertz,
                Brand = HostBrand.Read(),
            }.Make(kvm.SupportedCpuid);
            for (int i = 0; i < config.Cpus; i++)
            {
                KvmVcpu vcpu = i == 0 ? boot : vm.CreateVcpu(i);
                cycle._vcpus.Add(new VcpuThread(i, vcpu, platform.Ports, platform.Mmio, events, confineVcpu) { SeesFiles = slots.HasSharedMemory });
                CpuTopology.SetApicId(cpuid, (uint)i);
                vcpu.SetCpuid(cpuid);
                CpuState.Initialize(vcpu, CpuTopology.NeedsX2Apic(config.Cpus));
            }
            BootEntry entry = KernelLoader.Load(memory, kernel, KernelOf(config, kernel, slots, tscKilohertz), rsdp);
            CpuState.Enter(boot, memory, entry);
            return cycle;
        }
        catch (Exception e)
        {
            cycle?.Dispose();
            if (e is ErrnoException refusal && refusal.Operation.StartsWith("ioctl(KVM_", StringComparison.Ordinal))
                throw new VmmException(KvmDevice.Explain(refusal), refusal);
            throw;
        }
    }

    // The parameters stand first: what follows a "--" on the command line is not the kernel's.
    private static KernelOptions KernelOf(MachineConfig config, KernelFiles kernel, VirtioSlots slots, uint tscKilohertz)
    {
        string commandLine = config.Kernel.CommandLine;
        if (kernel.IsLinux && KernelParameters.Defaults(commandLine) is { Length: > 0 } defaults)
            commandLine = $"{defaults} {commandLine}";
        if (KernelParameters.Clock(commandLine, tscKilohertz) is string clock)
            commandLine = $"{clock} {commandLine}";
        if (config.Discovery == VirtioDiscovery.CommandLine)
            commandLine = $"{slots.KernelParameters} {commandLine}";
        if (TellsPanics(config, kernel))
            commandLine = $"{LinuxPanic.Parameters} {commandLine}";
        return config.Kernel with { CommandLine = commandLine };
    }

    /// <summary>Whether the guest's kernel tells of a panic by its reset; see <see cref="LinuxPanic"/>.</summary>
    public static bool TellsPanics(MachineConfig config, KernelFiles kernel) => kernel.IsLinux && LinuxPanic.CanBeTold(config.Kernel.CommandLine);

    /// <summary>Lets the guest run.</summary>
    public void Start()
    {
        foreach (VcpuThread vcpu in _vcpus)
            vcpu.Start();
    }

    /// <summary>Asks every vCPU to leave the guest; from any thread, also from a vCPU's own.</summary>
    public void RequestStop()
    {
        foreach (VcpuThread vcpu in _vcpus)
            vcpu.RequestStop();
    }

    /// <summary>Has the guest told that the host had stopped it for a while; from any thread.</summary>
    public void TellOfPause()
    {
        foreach (VcpuThread vcpu in _vcpus)
            vcpu.TellOfPause();
    }

    /// <summary>Waits until every vCPU has stopped.</summary>
    public void Join()
    {
        foreach (VcpuThread vcpu in _vcpus)
            vcpu.Join();
    }

    /// <summary>Frees KVM's side. The vCPUs have stopped, or were never started.</summary>
    public void Dispose()
    {
        foreach (VcpuThread vcpu in _vcpus)
            vcpu.Dispose();
        _vm.Dispose();
    }
}
