using Vmm.Kvm;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;
using static Vmm.Vhost.Native.Confinement.ArgumentCondition;
using static Vmm.Vhost.Native.Confinement.SystemCallNumber;

namespace Vmm.Sandbox;

/// <summary>The system calls of <c>vmm run</c> and <c>vmm exec</c> from before the kernel is read to their end. Devices add their own
/// (<see cref="Devices.Virtio.VirtioDevice.DriverCalls"/>).</summary>
/// <remarks>The table in docs/security.md says of each of them what can be done with it; a test compares the two.</remarks>
internal static class MachineSystemCalls
{
    /// <summary>What a vCPU's thread does all the time: first in every filter, which the kernel goes through from its beginning.</summary>
    public static IReadOnlyList<SystemCallRule> Running { get; } = [SystemCallRule.Requests(KvmIoctls.Run)];

    /// <summary>What else a vCPU's thread does, beside the runtime's calls and those of devices.</summary>
    public static IReadOnlyList<SystemCallRule> Vcpu { get; } =
    [
        Read, Write, Readv, Writev, Close, SystemCallNumber.Poll, Ppoll, RtSigtimedwait, Madvise,
        SystemCallRule.Requests(KvmIoctls.KvmclockCtrl, KvmIoctls.GetRegs, KvmIoctls.GetSregs, KvmIoctls.GetMpState, KvmIoctls.SetGsiRouting),
    ];

    /// <summary>What other threads do besides, beside <see cref="ProcessSystemCalls.Common"/>: they make a VM and its vCPUs, at the start and for each restart.</summary>
    public static IReadOnlyList<SystemCallRule> Machine { get; } =
    [
        Pread64, Madvise, MemfdCreate,
        new(Seccomp, "operation is SECCOMP_SET_MODE_FILTER, flags is 0", IsOneOf(0, 1), IsOneOf(1, 0)),     // for the threads of vCPUs
        new(SystemCallNumber.Ioctl, "request is KVM_CREATE_VM, argument is 0", IsOneOf(1, KvmIoctls.CreateVm.Number), IsNull(2)),     // the usual type of VM
        SystemCallRule.Requests(KvmIoctls.CheckExtension, KvmIoctls.GetVcpuMmapSize),
        SystemCallRule.Requests(
            KvmIoctls.CreateVcpu, KvmIoctls.SetUserMemoryRegion, KvmIoctls.SetTssAddr, KvmIoctls.SetIdentityMapAddr, KvmIoctls.CreateIrqchip,
            KvmIoctls.CreatePit2, KvmIoctls.EnableCap, KvmIoctls.Irqfd, KvmIoctls.Ioeventfd),
        SystemCallRule.Requests(
            KvmIoctls.SetRegs, KvmIoctls.SetSregs, KvmIoctls.SetFpu, KvmIoctls.GetMsrs, KvmIoctls.SetMsrs, KvmIoctls.SetCpuid2, KvmIoctls.GetLapic, KvmIoctls.SetLapic,
            KvmIoctls.SetSignalMask, KvmIoctls.GetTscKhz),
    ];

    /// <summary>What they do where this process's terminal is the guest's, or its command's.</summary>
    public static IReadOnlyList<SystemCallRule> OwnTerminal { get; } = [SystemCallRule.Requests(Terminal.Requests), Getpgrp];

    /// <summary>What they do besides where the serial port is the terminal, on which Ctrl-A z stops the job.</summary>
    public static IReadOnlyList<SystemCallRule> Job { get; } =
    [
        new(Kill, "pid is 0, sig is SIGTSTP", IsOneOf(0, 0), IsOneOf(1, (uint)ProcessStop.Number)),
    ];

    /// <summary>What <c>vmm exec</c> does besides, for the streams of its command.</summary>
    public static IReadOnlyList<SystemCallRule> Streams { get; } =
    [
        new(Dup2, "newfd is 1", IsOneOf(1, 1)),     // whoever reads the output is told of its end: StandardStream.Replace
    ];

    /// <summary>What <c>vmm exec</c> does besides, for a command whose input or output is this process's terminal, or for one without.</summary>
    public static IReadOnlyList<SystemCallRule> OfCommand(bool hasTerminal) => hasTerminal ? [.. Streams, .. OwnTerminal] : Streams;
}
