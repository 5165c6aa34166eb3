using System.Runtime.InteropServices;
using Vmm.Kvm;

namespace Vmm.Cpu;

/// <summary>What CPUID tells each vCPU: what this host's KVM lists, as far as the tables of leaves (<see cref="CpuidLeaf"/>) and of features
/// (<see cref="CpuFeatures"/>) let the guest see it, with this machine's topology and frequencies.</summary>
internal sealed record GuestCpuid
{
    private const string Option = "--cpus";
    private const uint TscDeadlineTimer = 1u << 24;   // leaf 1, ECX
    private const uint Hypervisor = 1u << 31;         // leaf 1, ECX
    private const uint KvmFeatures = 0x4000_0001;
    private const uint ExtendedDestinations = 1u << 15;   // KVM_FEATURE_MSI_EXT_DEST_ID, EAX

    /// <summary>How many vCPUs the machine has, 1 or more.</summary>
    public required int Cpus { get; init; }

    /// <summary>What the user asked for.</summary>
    public CpuOptions Options { get; init; } = new();

    /// <summary>Whether KVM's local APIC has the TSC-deadline mode (KVM_CAP_TSC_DEADLINE_TIMER), which depends on who emulates the APIC. With it Linux need not
    /// calibrate the APIC timer, which takes 100 ms.</summary>
    public bool TscDeadline { get; init; }

    /// <summary>The frequency of the TSC, or 0 if nobody knows it.</summary>
    public uint TscKilohertz { get; init; }

    /// <summary>The processor's name: <see cref="HostBrand.Read"/>.</summary>
    public IReadOnlyList<KvmCpuidEntry2> Brand { get; init; } = [];

    /// <summary>The machine's entries without those that differ between vCPUs: made once, completed for each vCPU by <see cref="CpuTopology.SetApicId"/>.</summary>
    /// <param name="supported">KVM_GET_SUPPORTED_CPUID.</param>
    /// <exception cref="VmmException">This host does not have what the options ask for.</exception>
    public KvmCpuidEntry2[] Make(ReadOnlySpan<KvmCpuidEntry2> supported)
    {
        CheckProfile(supported);
        var entries = new List<KvmCpuidEntry2>(supported.Length + 8);
        uint highest = 0;
        (bool isIntel, bool isAmd) = (false, false);
        foreach (KvmCpuidEntry2 entry in supported)
        {
            if (entry.Function == 0)
                (highest, isIntel, isAmd) = (entry.Eax, IsOf(entry, "GenuineIntel"u8), IsOf(entry, "AuthenticAMD"u8) || IsOf(entry, "HygonGenuine"u8));
            if (IsPassed(entry.Function))
                entries.Add(entry);
        }
        foreach (ref KvmCpuidEntry2 entry in CollectionsMarshal.AsSpan(entries))
        {
            CpuFeatures.Hide(ref entry, Options);
            if (entry.Function == 1)
                SetOwnFeatures(ref entry);
            else if (entry.Function == KvmFeatures && CpuTopology.NeedsX2Apic(Cpus))
                entry.Eax |= ExtendedDestinations;
            else if (entry.Function == 7 && entry.Index == 0)
                entry.Ecx &= ~CpuFeatures.Find(7, "ospke").Mask;
            CpuTopology.Describe(ref entry, (uint)Cpus, isAmd);
        }
        ExtendedState.HideUnseen(entries);
        CheckOptions(CollectionsMarshal.AsSpan(entries));

        entries.AddRange(Brand);
        if (TscKilohertz != 0 && isIntel)
            CpuFrequencies.AddTscLeaf(entries, highest, TscKilohertz);
        if (TscKilohertz != 0)
            CpuFrequencies.AddTimingLeaf(entries, TscKilohertz);
        foreach (uint leaf in (ReadOnlySpan<uint>)[0xB, 0x1F])
        {
            if (highest >= leaf)
                CpuTopology.AddLevels(entries, leaf, (uint)Cpus);
        }
        return [.. entries];
    }

    private bool IsPassed(uint leaf) =>
        CpuidTreatments.IsVisible(CpuidLeaf.TreatmentOf(leaf), Options)
        && !CpuTopology.IsReplaced(leaf) && !CpuFrequencies.IsReplaced(leaf) && !(HostBrand.IsIn(leaf) && Brand.Count != 0);

    // KVM sets OSXSAVE by itself once the guest has enabled XSAVE.
    private void SetOwnFeatures(ref KvmCpuidEntry2 entry)
    {
        entry.Ecx &= ~(TscDeadlineTimer | CpuFeatures.Find(1, "osxsave").Mask);
        entry.Ecx |= Hypervisor | (TscDeadline ? TscDeadlineTimer : 0);
    }

    private void CheckProfile(ReadOnlySpan<KvmCpuidEntry2> supported)
    {
        string missing = "";
        CpuProfile best = CpuProfile.V4;
        foreach (CpuFeature feature in CpuFeatures.All)
        {
            if (feature.Level == 0 || feature.Level > (int)Options.Profile || feature.IsSetIn(supported))
                continue;
            missing += missing.Length == 0 ? feature.Name : ", " + feature.Name;
            best = (CpuProfile)Math.Min((int)best, feature.Level - 1);
        }
        if (missing.Length != 0)
        {
            throw new VmmException($"{Option}: profile={NameOf(Options.Profile)} needs {missing}, which this host's KVM does not have: "
                + (best >= CpuProfile.V2 ? $"use profile={NameOf(best)}, or none" : "leave profile out"));
        }
    }

    private void CheckOptions(ReadOnlySpan<KvmCpuidEntry2> entries)
    {
        if (Options.Nested && !CpuFeatures.Find(1, "vmx").IsSetIn(entries) && !CpuFeatures.Find(0x8000_0001, "svm").IsSetIn(entries))
            throw new VmmException($"{Option}: nested=on: this host's KVM offers its guests neither vmx nor svm: load kvm_intel or kvm_amd with nested=1, or leave it out");
        if (Options.Pmu && !HasCounters(entries))
            throw new VmmException($"{Option}: pmu=on: this host's KVM has no performance counters for its guests: load kvm with enable_pmu=1 on a host that has them, or leave it out");
        if (Options.Amx && !ExtendedState.HasTiles(entries))
            throw new VmmException($"{Option}: amx=on: this host's KVM does not let its guests use AMX: leave it out");
    }

    private static bool HasCounters(ReadOnlySpan<KvmCpuidEntry2> entries)
    {
        foreach (KvmCpuidEntry2 entry in entries)
        {
            if (entry.Function == 0xA && (entry.Eax & 0xFF) != 0)
                return true;
        }
        return CpuFeatures.Find(0x8000_0001, "perfctr_core").IsSetIn(entries);
    }

    private static bool IsOf(in KvmCpuidEntry2 entry, ReadOnlySpan<byte> vendor)
    {
        ReadOnlySpan<uint> name = MemoryMarshal.Cast<byte, uint>(vendor);
        return (entry.Ebx, entry.Edx, entry.Ecx) == (name[0], name[1], name[2]);
    }

    /// <summary>A profile as the command line calls it.</summary>
    public static string NameOf(CpuProfile profile) => $"x86-64-v{(int)profile}";
}
