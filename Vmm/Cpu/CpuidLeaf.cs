namespace Vmm.Cpu;

/// <summary>A row of the table of leaves.</summary>
/// <param name="First">The leaf, or the first of several.</param>
/// <param name="Last">The last of them.</param>
/// <param name="Name">What it tells.</param>
/// <param name="Treatment">What becomes of it. The features in a leaf that is seen are treated one by one: <see cref="CpuFeatures"/>.</param>
/// <param name="Why">Why, or what is changed.</param>
/// <param name="Source">Where it is defined.</param>
internal sealed record CpuidLeaf(uint First, uint Last, string Name, CpuidTreatment Treatment, string Why, string Source)
{
    private const string Sdm = "SDM 2A CPUID";
    private const string Apm = "APM 3 E.4";
    private const string Kvm = "cpuid.rst";

    /// <summary>Every leaf that is known. One that is not is hidden: nobody has seen yet what it would need.</summary>
    public static ReadOnlySpan<CpuidLeaf> All => s_all;

    private static readonly CpuidLeaf[] s_all =
    [
        new(0x0, 0x0, "vendor, highest leaf", CpuidTreatment.Kept, "KVM cannot make one vendor's processor of another's", Sdm),
        new(0x1, 0x1, "model, APIC id, features", CpuidTreatment.Made, "APIC id and number of processors are this machine's; features below", Sdm),
        new(0x2, 0x2, "cache descriptors", CpuidTreatment.Kept, "the host's caches and TLBs", Sdm),
        new(0x3, 0x3, "serial number", CpuidTreatment.Host, "names the host", Sdm),
        new(0x4, 0x4, "caches (Intel)", CpuidTreatment.Made, "the host's caches; who shares them is this machine's", Sdm),
        new(0x5, 0x5, "MONITOR and MWAIT", CpuidTreatment.Host, "a guest that waits so would hold its processor; KVM does nothing for them", Sdm),
        new(0x6, 0x6, "heat and power", CpuidTreatment.Kept, "KVM says ARAT only: the local APIC's timer never stops", Sdm),
        new(0x7, 0x7, "features", CpuidTreatment.Kept, "features below", Sdm),
        new(0x9, 0x9, "direct cache access", CpuidTreatment.Host, "there is no PCI", Sdm),
        new(0xA, 0xA, "performance counters (Intel)", CpuidTreatment.Pmu, CpuidTreatments.Why(CpuidTreatment.Pmu), Sdm),
        new(0xB, 0xB, "topology", CpuidTreatment.Made, "one package of one-thread cores; x2APIC id", Sdm),
        new(0xD, 0xD, "XSAVE", CpuidTreatment.Made, "only state of features that are seen; sizes follow from that", Sdm),
        new(0xF, 0x10, "resource monitoring and control", CpuidTreatment.Host, "the host's to use against noisy guests", Sdm),
        new(0x12, 0x12, "SGX", CpuidTreatment.Sgx, CpuidTreatments.Why(CpuidTreatment.Sgx), Sdm),
        new(0x14, 0x14, "processor trace", CpuidTreatment.Pmu, CpuidTreatments.Why(CpuidTreatment.Pmu), Sdm),
        new(0x15, 0x15, "TSC frequency (Intel)", CpuidTreatment.Made, "the frequency of the guest's TSC, in ticks of KVM's local APIC timer", Sdm),
        new(0x16, 0x19, "frequencies, SoC vendor, TLBs, key locker", CpuidTreatment.Host, "KVM gives none of it", Sdm),
        new(0x1A, 0x1B, "hybrid cores, PCONFIG", CpuidTreatment.Host, "a vCPU runs on any of the host's cores", Sdm),
        new(0x1C, 0x1C, "last branch records", CpuidTreatment.Pmu, CpuidTreatments.Why(CpuidTreatment.Pmu), Sdm),
        new(0x1D, 0x1E, "AMX tiles, TMUL", CpuidTreatment.Amx, "hidden with AMX", Sdm),
        new(0x1F, 0x1F, "topology, version 2", CpuidTreatment.Made, "as leaf 0xB", Sdm),
        new(0x20, 0x20, "history reset", CpuidTreatment.Host, "KVM gives none of it", Sdm),
        new(0x23, 0x23, "performance counters, more", CpuidTreatment.Pmu, CpuidTreatments.Why(CpuidTreatment.Pmu), Sdm),
        new(0x24, 0x24, "AVX10", CpuidTreatment.Passed, "hidden with a profile, as avx10 is", Sdm),
        new(0x4000_0000, 0x4000_0000, "KVM's signature", CpuidTreatment.Made, "the highest of these leaves is 0x40000010", Kvm),
        new(0x4000_0001, 0x4000_0001, "KVM's paravirtual features", CpuidTreatment.Made, "clock, interrupts and waiting without exits; with more than 254 CPUs also interrupts to all of them (KVM_FEATURE_MSI_EXT_DEST_ID)", Kvm),
        new(0x4000_0010, 0x4000_0010, "frequencies of TSC and local APIC timer", CpuidTreatment.Made, "the guest's", "VMware KB 1009458"),
        new(0x8000_0000, 0x8000_0000, "vendor, highest extended leaf", CpuidTreatment.Kept, "as leaf 0", Apm),
        new(0x8000_0001, 0x8000_0001, "features", CpuidTreatment.Kept, "features below", Apm),
        new(0x8000_0002, 0x8000_0004, "brand string", CpuidTreatment.Made, "the host's; KVM gives none", Apm),
        new(0x8000_0005, 0x8000_0006, "caches and TLBs", CpuidTreatment.Kept, "the host's", Apm),
        new(0x8000_0007, 0x8000_0007, "steady TSC", CpuidTreatment.Kept, "feature below", Apm),
        new(0x8000_0008, 0x8000_0008, "address sizes, features, number of cores", CpuidTreatment.Made, "ECX: AMD's number of cores and bits of core id are this machine's, all else in it is 0, as KVM has it; features below", Apm),
        new(0x8000_000A, 0x8000_000A, "SVM", CpuidTreatment.Nested, CpuidTreatments.Why(CpuidTreatment.Nested), Apm),
        new(0x8000_0019, 0x8000_001A, "TLBs of 1 GiB pages, hints for instructions", CpuidTreatment.Kept, "the host's", Apm),
        new(0x8000_001B, 0x8000_001B, "sampling", CpuidTreatment.Pmu, CpuidTreatments.Why(CpuidTreatment.Pmu), Apm),
        new(0x8000_001C, 0x8000_001C, "lightweight profiling", CpuidTreatment.Host, "KVM gives none of it", Apm),
        new(0x8000_001D, 0x8000_001D, "caches (AMD)", CpuidTreatment.Made, "as leaf 4", Apm),
        new(0x8000_001E, 0x8000_001E, "APIC id, core, node (AMD)", CpuidTreatment.Made, "one thread per core, one node", Apm),
        new(0x8000_001F, 0x8000_001F, "memory encryption", CpuidTreatment.Host, "no guest of this VMM is encrypted", Apm),
        new(0x8000_0020, 0x8000_0020, "resource control", CpuidTreatment.Host, "the host's to use against noisy guests", Apm),
        new(0x8000_0021, 0x8000_0021, "features", CpuidTreatment.Kept, "features below; EBX is the size of the return predictor", Apm),
        new(0x8000_0022, 0x8000_0022, "performance counters (AMD)", CpuidTreatment.Pmu, CpuidTreatments.Why(CpuidTreatment.Pmu), Apm),
        new(0x8000_0023, 0x8000_0023, "memory encryption, more", CpuidTreatment.Host, "no guest of this VMM is encrypted", Apm),
        new(0x8000_0026, 0x8000_0026, "topology, more (AMD)", CpuidTreatment.Host, "leaf 0xB says it", Apm),
        new(0xC000_0000, 0xC000_0001, "Zhaoxin's features", CpuidTreatment.Passed, "cryptography; KVM lists it on such hosts", "Linux 6.16 arch/x86/kvm/cpuid.c"),
    ];

    /// <summary>What becomes of <paramref name="leaf"/>.</summary>
    public static CpuidTreatment TreatmentOf(uint leaf)
    {
        foreach (CpuidLeaf row in s_all)
        {
            if (leaf >= row.First && leaf <= row.Last)
                return row.Treatment;
        }
        return CpuidTreatment.Host;
    }
}
