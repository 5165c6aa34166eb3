using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Vmm.Kvm;

// The structures of linux/kvm.h and asm/kvm.h that cross the ioctl boundary, named as there. A test compares sizes,
// offsets and request numbers with the C headers.

/// <summary>struct kvm_userspace_memory_region.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmUserspaceMemoryRegion
{
    /// <summary>KVM_MEM_READONLY: the guest's writes leave it, as to a device.</summary>
    public const uint FlagReadOnly = 1 << 1;

    public uint Slot;
    public uint Flags;
    public ulong GuestPhysAddr;
    public ulong MemorySize;
    public ulong UserspaceAddr;
}

/// <summary>struct kvm_pit_config.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmPitConfig
{
    /// <summary>KVM_PIT_SPEAKER_DUMMY: port 0x61 is answered by the kernel too.</summary>
    public const uint SpeakerDummy = 1;

    public uint Flags;
    public Pad15 Pad;

    [InlineArray(15)]
    public struct Pad15
    {
        private uint _element;
    }
}

/// <summary>struct kvm_irqfd.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmIrqfd
{
    public uint Fd;
    public uint Gsi;
    public uint Flags;
    public uint ResampleFd;
    public ulong Pad0;
    public ulong Pad1;
}

/// <summary>struct kvm_ioeventfd.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmIoeventfd
{
    /// <summary>KVM_IOEVENTFD_FLAG_DATAMATCH: only a write of <see cref="Datamatch"/> counts.</summary>
    public const uint FlagDatamatch = 1 << 0;

    public ulong Datamatch;
    public ulong Addr;
    public uint Len;
    public int Fd;
    public uint Flags;
    public Bytes36 Pad;

    [InlineArray(36)]
    public struct Bytes36
    {
        private byte _element;
    }
}

/// <summary>struct kvm_enable_cap.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmEnableCap
{
    /// <summary>KVM_PMU_CAP_DISABLE: KVM_CAP_PMU_CAPABILITY takes the performance counters from the guest.</summary>
    public const int DisablePmu = 1 << 0;

    /// <summary>KVM_X2APIC_API_USE_32BIT_IDS: messages and the state of local APICs have APIC ids of 32 bits.</summary>
    public const ulong Use32BitIds = 1 << 0;

    /// <summary>KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK: a message to APIC id 255 is for that CPU alone.</summary>
    public const ulong DisableBroadcastQuirk = 1 << 1;

    public uint Cap;
    public uint Flags;
    public ulong Arg0;
    public ulong Arg1;
    public ulong Arg2;
    public ulong Arg3;
    public Bytes64 Pad;

    [InlineArray(64)]
    public struct Bytes64
    {
        private byte _element;
    }
}

/// <summary>The head of struct kvm_irq_routing; <see cref="KvmIrqRoutingEntry"/> follow it.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmIrqRouting
{
    public uint Nr;
    public uint Flags;
}

/// <summary>struct kvm_irq_routing_entry, of the kind that sends a message.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmIrqRoutingEntry
{
    /// <summary>KVM_IRQ_ROUTING_MSI.</summary>
    public const uint Msi = 2;

    public uint Gsi;
    public uint Type;
    public uint Flags;
    public uint Pad;
    public uint AddressLo;
    public uint AddressHi;
    public uint Data;
    public Words5 Rest;

    [InlineArray(5)]
    public struct Words5
    {
        private uint _element;
    }
}

/// <summary>struct kvm_regs.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmRegs
{
    public ulong Rax;
    public ulong Rbx;
    public ulong Rcx;
    public ulong Rdx;
    public ulong Rsi;
    public ulong Rdi;
    public ulong Rsp;
    public ulong Rbp;
    public ulong R8;
    public ulong R9;
    public ulong R10;
    public ulong R11;
    public ulong R12;
    public ulong R13;
    public ulong R14;
    public ulong R15;
    public ulong Rip;
    public ulong Rflags;
}

/// <summary>struct kvm_segment.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmSegment
{
    public ulong Base;
    public uint Limit;
    public ushort Selector;
    public byte Type;
    public byte Present;
    public byte Dpl;
    public byte Db;
    public byte S;
    public byte L;
    public byte G;
    public byte Avl;
    public byte Unusable;
    public byte Padding;
}

/// <summary>struct kvm_dtable.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmDtable
{
    public ulong Base;
    public ushort Limit;
    public ushort Padding0;
    public ushort Padding1;
    public ushort Padding2;
}

/// <summary>struct kvm_sregs.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmSregs
{
    public KvmSegment Cs;
    public KvmSegment Ds;
    public KvmSegment Es;
    public KvmSegment Fs;
    public KvmSegment Gs;
    public KvmSegment Ss;
    public KvmSegment Tr;
    public KvmSegment Ldt;
    public KvmDtable Gdt;
    public KvmDtable Idt;
    public ulong Cr0;
    public ulong Cr2;
    public ulong Cr3;
    public ulong Cr4;
    public ulong Cr8;
    public ulong Efer;
    public ulong ApicBase;
    public ulong InterruptBitmap0;
    public ulong InterruptBitmap1;
    public ulong InterruptBitmap2;
    public ulong InterruptBitmap3;
}

/// <summary>struct kvm_fpu.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmFpu
{
    public Bytes128 Fpr;
    public ushort Fcw;
    public ushort Fsw;
    public byte Ftwx;
    public byte Pad1;
    public ushort LastOpcode;
    public ulong LastIp;
    public ulong LastDp;
    public Bytes256 Xmm;
    public uint Mxcsr;
    public uint Pad2;

    [InlineArray(128)]
    public struct Bytes128
    {
        private byte _element;
    }

    [InlineArray(256)]
    public struct Bytes256
    {
        private byte _element;
    }
}

/// <summary>struct kvm_lapic_state: the local APIC's register page.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmLapicState
{
    public Bytes1024 Regs;

    [InlineArray(1024)]
    public struct Bytes1024
    {
        private byte _element;
    }
}

/// <summary>struct kvm_mp_state.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmMpState
{
    public const uint Runnable = 0;
    public const uint Uninitialized = 1;
    public const uint InitReceived = 2;
    public const uint Halted = 3;

    public uint State;
}

/// <summary>struct kvm_msr_entry.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmMsrEntry(uint index, ulong data)
{
    public uint Index = index;
    public uint Reserved;
    public ulong Data = data;
}

/// <summary>The head of struct kvm_msrs; <see cref="KvmMsrEntry"/> follow it.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmMsrs
{
    public uint Count;
    public uint Pad;
}

/// <summary>struct kvm_cpuid_entry2.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmCpuidEntry2
{
    /// <summary>KVM_CPUID_FLAG_SIGNIFCANT_INDEX: the entry answers for one sub-leaf only.</summary>
    public const uint SignificantIndex = 1;

    public uint Function;
    public uint Index;
    public uint Flags;
    public uint Eax;
    public uint Ebx;
    public uint Ecx;
    public uint Edx;
    public uint Padding0;
    public uint Padding1;
    public uint Padding2;
}

/// <summary>The head of struct kvm_cpuid2; <see cref="KvmCpuidEntry2"/> follow it.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmCpuid2
{
    public uint Count;
    public uint Padding;
}

/// <summary>The head of struct kvm_signal_mask; <see cref="Length"/> bytes of a kernel signal set follow it.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 4)]
internal struct KvmSignalMask
{
    public uint Length;
    public ulong Set;
}
