namespace Vmm.Kvm;

/// <summary>A capability of KVM's (KVM_CAP_* in linux/kvm.h), and its name for messages.</summary>
internal readonly record struct KvmCapability(int Number, string Name)
{
    public static readonly KvmCapability Irqchip = new(0, "KVM_CAP_IRQCHIP");
    public static readonly KvmCapability UserMemory = new(3, "KVM_CAP_USER_MEMORY");
    public static readonly KvmCapability SetTssAddr = new(4, "KVM_CAP_SET_TSS_ADDR");
    public static readonly KvmCapability ExtCpuid = new(7, "KVM_CAP_EXT_CPUID");
    public static readonly KvmCapability NrVcpus = new(9, "KVM_CAP_NR_VCPUS");
    public static readonly KvmCapability MpState = new(14, "KVM_CAP_MP_STATE");
    public static readonly KvmCapability Irqfd = new(32, "KVM_CAP_IRQFD");
    public static readonly KvmCapability Pit2 = new(33, "KVM_CAP_PIT2");
    public static readonly KvmCapability IoEventFd = new(36, "KVM_CAP_IOEVENTFD");
    public static readonly KvmCapability SetIdentityMapAddr = new(37, "KVM_CAP_SET_IDENTITY_MAP_ADDR");
    public static readonly KvmCapability MaxVcpus = new(66, "KVM_CAP_MAX_VCPUS");
    public static readonly KvmCapability TscDeadlineTimer = new(72, "KVM_CAP_TSC_DEADLINE_TIMER");
    public static readonly KvmCapability ReadonlyMem = new(81, "KVM_CAP_READONLY_MEM");
    public static readonly KvmCapability SplitIrqchip = new(121, "KVM_CAP_SPLIT_IRQCHIP");
    public static readonly KvmCapability X2ApicApi = new(129, "KVM_CAP_X2APIC_API");
    public static readonly KvmCapability ImmediateExit = new(136, "KVM_CAP_IMMEDIATE_EXIT");
    public static readonly KvmCapability PmuCapability = new(212, "KVM_CAP_PMU_CAPABILITY");

    /// <summary>What every machine of ours needs. What depends on its configuration is checked where it is used.</summary>
    public static ReadOnlySpan<KvmCapability> Required => s_required;

    /// <summary>What a machine with a PC's interrupt controllers and timer needs besides. A kernel that is built without them (CONFIG_KVM_IOAPIC=n, Linux
    /// 6.16) has <see cref="SplitIrqchip"/>, which every other machine uses.</summary>
    public static ReadOnlySpan<KvmCapability> OfAPc => s_ofAPc;

    private static readonly KvmCapability[] s_ofAPc = [Irqchip, Pit2];

    private static readonly KvmCapability[] s_required =
        [UserMemory, Irqfd, IoEventFd, ExtCpuid, SetTssAddr, SetIdentityMapAddr, ImmediateExit, MpState];
}
