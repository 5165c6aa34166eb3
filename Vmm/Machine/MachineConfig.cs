using Vmm.Boot;
using Vmm.Cpu;
using Vmm.Devices.Virtio;
using Vmm.Serial;
using Vmm.Vhost.Memory;

namespace Vmm.Machine;

/// <summary>A machine as the user asked for it: checked as far as the command line alone allows, not yet against the host.</summary>
internal sealed record MachineConfig
{
    /// <summary>The kernel, and how it is booted.</summary>
    public required KernelOptions Kernel { get; init; }

    /// <summary>Number of vCPUs, 1 to 1024.</summary>
    public int Cpus { get; init; } = 1;

    /// <summary>What they can do.</summary>
    public CpuOptions Cpu { get; init; } = new();

    /// <summary>Guest RAM in bytes, a multiple of the page size that backs it.</summary>
    public ulong MemorySize { get; init; } = 512UL << 20;

    /// <summary>How guest RAM is backed.</summary>
    public GuestMemoryOptions Memory { get; init; } = new();

    /// <summary>What the first serial port is connected to.</summary>
    public SerialConfig Serial { get; init; } = new(SerialKind.Tty);

    /// <summary>The virtio devices, at most <see cref="AddressMap.VirtioMmioSlots"/>, in the order of their slots.</summary>
    public IReadOnlyList<VirtioDeviceOptions> Devices { get; init; } = [];

    /// <summary>How the guest finds them.</summary>
    public VirtioDiscovery Discovery { get; init; }

    /// <summary>Which interrupt controllers and timers the guest has; null: what the rest of the configuration needs.</summary>
    public InterruptHardware? Interrupts { get; init; }

    /// <summary>What happens when the guest asks for a reset.</summary>
    public RebootAction OnReboot { get; init; }

    /// <summary>How long the guest has to power itself off after the first SIGTERM or SIGINT, which presses its power button; zero: none, it is
    /// switched off at once.</summary>
    public TimeSpan ShutdownTimeout { get; init; }

    /// <summary>What happens when the guest panics.</summary>
    public PanicAction OnPanic { get; init; }
}

/// <summary>What happens when the guest asks for a reset, or falls into a triple fault.</summary>
internal enum RebootAction
{
    /// <summary>The machine starts again from its kernel.</summary>
    Restart,

    /// <summary>The VMM ends with exit status 0.</summary>
    Exit,
}

/// <summary>What happens when the guest reports a panic.</summary>
internal enum PanicAction
{
    /// <summary>The VMM ends with exit status 3.</summary>
    Exit,

    /// <summary>The guest's processors stop and its memory stays as it is, for a debugger, until a signal or Ctrl-A x ends the VMM.</summary>
    Halt,
}

/// <summary>How the guest is told of its virtio devices: always in one way only, since each would make a device of its own.</summary>
internal enum VirtioDiscovery
{
    /// <summary>By the ACPI tables.</summary>
    Acpi,

    /// <summary>By <c>virtio_mmio.device=</c> on the kernel's command line, for kernels without ACPI; if nothing else is said, these get
    /// <see cref="InterruptHardware.Pc"/>.</summary>
    CommandLine,
}

/// <summary>Which interrupt controllers and timers a machine has.</summary>
internal enum InterruptHardware
{
    /// <summary>Local APICs with their timers, and an I/O APIC of ours: all that a kernel with ACPI needs, and the fastest.</summary>
    Apic,

    /// <summary>Local APICs and a PC's I/O APIC, two 8259s and 8254, all in the kernel.</summary>
    Pc,
}
