using System.Runtime.InteropServices;

namespace Vmm.Kvm;

/// <summary>struct kvm_run of linux/kvm.h: the page that a vCPU shares with KVM. Only the fields used here.</summary>
[StructLayout(LayoutKind.Explicit)]
internal struct KvmRun
{
    [FieldOffset(1)]
    public byte ImmediateExit;

    [FieldOffset(8)]
    public KvmExitReason ExitReason;

    /// <summary>KVM_EXIT_IO_OUT: the guest writes.</summary>
    public const byte IoOut = 1;

    // exit_reason == KVM_EXIT_IO
    [FieldOffset(32)]
    public byte IoDirection;

    [FieldOffset(33)]
    public byte IoSize;

    [FieldOffset(34)]
    public ushort IoPort;

    [FieldOffset(36)]
    public uint IoCount;

    [FieldOffset(40)]
    public ulong IoDataOffset;

    // exit_reason == KVM_EXIT_MMIO
    [FieldOffset(32)]
    public ulong MmioPhysAddr;

    [FieldOffset(40)]
    public ulong MmioData;

    [FieldOffset(48)]
    public uint MmioLength;

    [FieldOffset(52)]
    public byte MmioIsWrite;

    // exit_reason == KVM_EXIT_UNKNOWN, KVM_EXIT_FAIL_ENTRY
    [FieldOffset(32)]
    public ulong HardwareReason;

    // exit_reason == KVM_EXIT_INTERNAL_ERROR
    [FieldOffset(32)]
    public uint InternalSuberror;

    // exit_reason == KVM_EXIT_SYSTEM_EVENT
    [FieldOffset(32)]
    public uint SystemEventType;
}

/// <summary>KVM_EXIT_* (linux/kvm.h).</summary>
internal enum KvmExitReason : uint
{
    Unknown = 0,
    Exception = 1,
    Io = 2,
    Hypercall = 3,
    Debug = 4,
    Hlt = 5,
    Mmio = 6,
    IrqWindowOpen = 7,
    Shutdown = 8,
    FailEntry = 9,
    Intr = 10,
    SetTpr = 11,
    TprAccess = 12,
    Nmi = 16,
    InternalError = 17,
    SystemEvent = 24,
    IoapicEoi = 26,
    HyperV = 27,
    X86Rdmsr = 29,
    X86Wrmsr = 30,
    DirtyRingFull = 31,
    X86BusLock = 33,
    Notify = 37,
    MemoryFault = 39,
}

/// <summary>KVM_SYSTEM_EVENT_* (linux/kvm.h).</summary>
internal enum KvmSystemEvent : uint
{
    Shutdown = 1,
    Reset = 2,
    Crash = 3,
}
