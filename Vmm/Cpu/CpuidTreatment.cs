namespace Vmm.Cpu;

/// <summary>What becomes of a leaf of CPUID, or of a feature, that KVM lists for guests on this host.</summary>
internal enum CpuidTreatment
{
    /// <summary>The guest sees it. With a profile it does not, unless it belongs to that.</summary>
    Passed,

    /// <summary>The guest sees it, with any profile.</summary>
    Kept,

    /// <summary>The VMM says what this machine has, or KVM does while the guest runs.</summary>
    Made,

    /// <summary>Hidden, unless nested=on.</summary>
    Nested,

    /// <summary>Hidden, unless pmu=on.</summary>
    Pmu,

    /// <summary>Hidden, unless amx=on.</summary>
    Amx,

    /// <summary>Hidden: enclaves.</summary>
    Sgx,

    /// <summary>Hidden: what only the host can use.</summary>
    Host,
}

/// <summary>Whether a guest sees what has a treatment, and why.</summary>
internal static class CpuidTreatments
{
    /// <summary>Whether the guest sees a leaf or a feature outside of the profiles' levels.</summary>
    public static bool IsVisible(CpuidTreatment treatment, CpuOptions options) => treatment switch
    {
        CpuidTreatment.Passed => options.Profile == CpuProfile.Host,
        CpuidTreatment.Kept or CpuidTreatment.Made => true,
        CpuidTreatment.Nested => options.Nested,
        CpuidTreatment.Pmu => options.Pmu,
        CpuidTreatment.Amx => options.Amx,
        _ => false,
    };

    /// <summary>Why the features with a treatment are treated so.</summary>
    public static string Why(CpuidTreatment treatment) => treatment switch
    {
        CpuidTreatment.Passed => "KVM lists only what it can give a guest (api.rst, 4.46)",
        CpuidTreatment.Kept =>
            "says which mitigations the guest needs or has, how to find the topology, or what KVM emulates on every host; AMD's copies of leaf 1's features",
        CpuidTreatment.Made => "depends on this machine (ht, cmp_legacy, hypervisor, tsc_deadline_timer), or on what the guest has enabled (KVM sets osxsave and ospke)",
        CpuidTreatment.Nested => "a guest with virtual machines of its own reaches far more code of the host's kernel; KVM lists it by default",
        CpuidTreatment.Pmu => "counters and traces tell a guest about others on its core, and reach the host's perf code",
        CpuidTreatment.Amx => "KVM lists it also where the guest cannot use it: a process must ask for the state of the tiles first (ARCH_REQ_XCOMP_GUEST_PERM)",
        CpuidTreatment.Sgx => "enclaves need memory of their own kind (EPC), which this machine has none of",
        _ => "power, heat, debugging, key storage and resource control are the host's; KVM lists none of it",
    };
}
