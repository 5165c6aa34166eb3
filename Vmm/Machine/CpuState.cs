using Vmm.Boot;
using Vmm.Kvm;
using Vmm.Vhost.Memory;

namespace Vmm.Machine;

/// <summary>The registers with which the boot processor enters the kernel, and those that every vCPU starts with.</summary>
internal static class CpuState
{
    private const ulong ReservedFlag = 0x2;        // RFLAGS bit 1 is always set; interrupts are off
    private const ulong ProtectionEnable = 1 << 0;
    private const ulong ExtensionType = 1 << 4;
    private const ulong Paging = 1UL << 31;
    private const ulong PhysicalAddressExtension = 1 << 5;
    private const ulong LongModeEnable = 1 << 8;
    private const ulong LongModeActive = 1 << 10;

    private const ushort CodeSelector = 0x10;      // __BOOT_CS of the 64-bit boot protocol
    private const ushort DataSelector = 0x18;      // __BOOT_DS
    private const ushort TaskSelector = 0x20;

    private const ulong PageTableEntry = 0x3;      // present, writable
    private const ulong LargePage = 0x83;          // and 2 MiB large
    private const int MappedGigabytes = 4;

    private const uint MiscEnable = 0x1A0;         // IA32_MISC_ENABLE (Intel SDM vol. 4)
    private const ulong FastStrings = 1 << 0;
    private const uint MtrrDefaultType = 0x2FF;    // IA32_MTRR_DEF_TYPE
    private const ulong MtrrEnabled = 1 << 11;
    private const ulong WriteBack = 6;

    private const ulong X2ApicMode = 1 << 10;      // IA32_APIC_BASE.EXTD

    private const int LvtLint0 = 0x350;
    private const int LvtLint1 = 0x360;
    private const int DeliveryModeMask = 0x700;
    private const int DeliverExtInt = 0x700;
    private const int DeliverNmi = 0x400;

    /// <summary>What firmware leaves behind on every processor: an FPU after FNINIT, interrupt pins of the local APIC wired
    /// to the 8259 and to NMI, write-back memory.</summary>
    /// <param name="vcpu">The processor; its CPUID is set.</param>
    /// <param name="x2Apic">Whether its local APIC is in x2APIC mode.</param>
    public static void Initialize(KvmVcpu vcpu, bool x2Apic)
    {
        vcpu.SetFpu(new KvmFpu { Fcw = 0x37F, Mxcsr = 0x1F80 });

        KvmLapicState lapic = vcpu.GetLapic();
        SetDeliveryMode(ref lapic, LvtLint0, DeliverExtInt);
        SetDeliveryMode(ref lapic, LvtLint1, DeliverNmi);
        vcpu.SetLapic(lapic);
        if (x2Apic)
        {
            KvmSregs sregs = vcpu.GetSregs();
            sregs.ApicBase |= X2ApicMode;
            vcpu.SetSregs(sregs);
        }

        // One at a time: KVM stops at the first register that this host lacks, and a guest can do without any of these.
        // KVM has said in the first which tracing there is not (BTS, PEBS): that stays.
        if (vcpu.GetMsr(MiscEnable) is ulong miscEnable)
            vcpu.SetMsrs([new(MiscEnable, miscEnable | FastStrings)]);
        vcpu.SetMsrs([new(MtrrDefaultType, MtrrEnabled | WriteBack)]);
    }

    /// <summary>Sets the boot processor to enter at <paramref name="entry"/>; writes the descriptor and page tables it needs.</summary>
    public static void Enter(KvmVcpu vcpu, GuestMemory memory, BootEntry entry)
    {
        bool longMode = entry.Mode == BootMode.Long64;
        KvmSegment code = Segment(CodeSelector, type: 0xB, longMode);   // execute, read, accessed
        KvmSegment data = Segment(DataSelector, type: 0x3, longMode: false);   // read, write, accessed
        var task = new KvmSegment { Limit = 0x67, Selector = TaskSelector, Type = 0xB, Present = 1 };   // busy TSS
        WriteDescriptors(memory, [default, default, code, data, task]);

        KvmSregs sregs = vcpu.GetSregs();
        sregs.Cs = code;
        sregs.Ds = sregs.Es = sregs.Fs = sregs.Gs = sregs.Ss = data;
        sregs.Tr = task;
        sregs.Gdt = new KvmDtable { Base = BootLayout.Gdt, Limit = 5 * sizeof(ulong) - 1 };
        sregs.Idt = default;
        sregs.Cr0 = ProtectionEnable | ExtensionType;
        sregs.Cr4 = 0;
        if (longMode)
        {
            WritePageTables(memory);
            sregs.Cr3 = BootLayout.Pml4;
            sregs.Cr4 = PhysicalAddressExtension;
            sregs.Cr0 |= Paging;
            sregs.Efer |= LongModeEnable | LongModeActive;
        }
        vcpu.SetSregs(sregs);

        // Linux Documentation/arch/x86/boot.rst "64-bit boot protocol": RSI holds boot_params.
        // Xen's PVH boot ABI: EBX holds hvm_start_info. Neither minds the other.
        vcpu.SetRegs(new KvmRegs
        {
            Rip = entry.InstructionPointer,
            Rsi = longMode ? entry.InfoAddress : 0,
            Rbx = longMode ? 0 : entry.InfoAddress,
            Rflags = ReservedFlag,
        });
    }

    private static KvmSegment Segment(ushort selector, byte type, bool longMode) => new()
    {
        Limit = 0xFFFF_FFFF,
        Selector = selector,
        Type = type,
        Present = 1,
        S = 1,
        G = 1,
        L = longMode ? (byte)1 : (byte)0,
        Db = longMode ? (byte)0 : (byte)1,
    };

    private static void WriteDescriptors(GuestMemory memory, ReadOnlySpan<KvmSegment> segments)
    {
        for (int i = 0; i < segments.Length; i++)
        {
            KvmSegment segment = segments[i];
            // Intel SDM vol. 3A, figure 3-8; base 0 throughout, limits in pages where G is set.
            ulong limit = segment.G != 0 ? segment.Limit >> 12 : segment.Limit;
            ulong attributes = segment.Type | (uint)segment.S << 4 | (uint)segment.Present << 7
                | (uint)segment.L << 13 | (uint)segment.Db << 14 | (uint)segment.G << 15;
            memory.Write(new GuestAddress(BootLayout.Gdt) + (ulong)i * sizeof(ulong), (limit & 0xFFFF) | (limit & 0xF0000) << 32 | attributes << 40);
        }
    }

    /// <summary>Maps the first 4 GiB to themselves, in pages of 2 MiB: the kernel, its parameters and the initramfs lie there.</summary>
    private static void WritePageTables(GuestMemory memory)
    {
        var pointers = new GuestAddress(BootLayout.Pdpt);
        var directories = new GuestAddress(BootLayout.PageDirectories);
        memory.Write(new GuestAddress(BootLayout.Pml4), pointers.Value | PageTableEntry);
        for (uint i = 0; i < MappedGigabytes; i++)
            memory.Write(pointers + i * sizeof(ulong), (directories + i * 0x1000).Value | PageTableEntry);
        for (ulong i = 0; i < MappedGigabytes * 512; i++)
            memory.Write(directories + i * sizeof(ulong), i << 21 | LargePage);
    }

    private static void SetDeliveryMode(ref KvmLapicState lapic, int register, int mode)
    {
        Span<byte> bytes = ((Span<byte>)lapic.Regs)[register..];
        int value = BitConverter.ToInt32(bytes);
        BitConverter.TryWriteBytes(bytes, (value & ~DeliveryModeMask) | mode);
    }
}
