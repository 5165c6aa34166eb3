using System.Numerics;
using System.Runtime.InteropServices;
using Vmm.Kvm;

namespace Vmm.Boot;

/// <summary>What CPUID tells each vCPU: what this host's KVM supports, with the local APIC ids and the topology of this
/// machine, which is one package of one-thread cores (Intel SDM vol. 2A "CPUID"; AMD APM vol. 3 appendix E).</summary>
internal static class CpuId
{
    private const uint TscDeadlineTimer = 1u << 24;   // leaf 1, ECX
    private const uint Hypervisor = 1u << 31;         // leaf 1, ECX
    private const uint MultiThreading = 1u << 28;     // leaf 1, EDX: EBX[23:16] counts logical processors
    private const uint TscLeaf = 0x15;
    private const uint HypervisorLeaf = 0x4000_0000;
    private const uint TimingLeaf = 0x4000_0010;
    private const uint ApicTimerKilohertz = 1_000_000;   // KVM's local APIC timer counts nanoseconds
    private const uint ThreadLevel = 1;
    private const uint CoreLevel = 2;

    /// <summary>The machine's entries without those that differ between vCPUs: made once, completed by <see cref="ForVcpu"/>.</summary>
    /// <param name="supported">KVM_GET_SUPPORTED_CPUID.</param>
    /// <param name="cpus">How many vCPUs the machine has, 1 or more.</param>
    /// <param name="tscDeadline">Whether KVM's local APIC has the TSC-deadline mode (KVM_CAP_TSC_DEADLINE_TIMER). KVM does not
    /// list it as supported, because it depends on who emulates the APIC. With it Linux need not calibrate the APIC timer, which takes 100 ms.</param>
    /// <param name="tscKilohertz">The frequency of the TSC, or 0 if nobody knows it.</param>
    public static KvmCpuidEntry2[] ForMachine(ReadOnlySpan<KvmCpuidEntry2> supported, int cpus, bool tscDeadline, uint tscKilohertz)
    {
        var entries = new List<KvmCpuidEntry2>(supported.Length + 8);
        uint highest = 0;
        bool isIntel = false;
        bool isKvm = false;
        foreach (KvmCpuidEntry2 entry in supported)
        {
            if (entry.Function is 0xB or 0x1F or TscLeaf or TimingLeaf)
                continue;   // the host's topology and clock; ours follow
            entries.Add(Complete(entry, (uint)cpus, tscDeadline));
            if (entry.Function == 0)
                (highest, isIntel) = (entry.Eax, (entry.Ebx, entry.Edx, entry.Ecx) == (0x756E_6547, 0x4965_6E69, 0x6C65_746E));   // GenuineIntel
            isKvm |= entry.Function == HypervisorLeaf;
        }
        if (tscKilohertz != 0 && isIntel && highest >= TscLeaf)
            AddTscFrequency(entries, tscKilohertz);
        if (tscKilohertz != 0 && isKvm)
            AddTiming(entries, tscKilohertz);
        foreach (uint leaf in (ReadOnlySpan<uint>)[0xB, 0x1F])
        {
            if (highest >= leaf)
                AddTopology(entries, leaf, (uint)cpus);
        }
        return [.. entries];
    }

    /// <summary>Writes the local APIC id, which is the number of the vCPU, into the entries of <see cref="ForMachine"/>.</summary>
    public static void ForVcpu(Span<KvmCpuidEntry2> entries, int index)
    {
        uint apicId = (uint)index;
        foreach (ref KvmCpuidEntry2 entry in entries)
        {
            switch (entry.Function)
            {
                case 1:
                    entry.Ebx = (entry.Ebx & 0x00FF_FFFF) | (apicId << 24);
                    break;
                case 0xB or 0x1F:
                    entry.Edx = apicId;
                    break;
                case 0x8000_001E:
                    entry.Eax = apicId;
                    entry.Ebx = apicId & 0xFF;   // core id; one thread per core
                    entry.Ecx = 0;               // one node, number 0
                    break;
            }
        }
    }

    private static KvmCpuidEntry2 Complete(KvmCpuidEntry2 entry, uint cpus, bool tscDeadline)
    {
        switch (entry.Function)
        {
            case 1:
                entry.Ebx = (entry.Ebx & 0xFF00_FFFF) | (Math.Min(cpus, 255) << 16);
                entry.Ecx = (entry.Ecx & ~TscDeadlineTimer) | Hypervisor | (tscDeadline ? TscDeadlineTimer : 0);
                entry.Edx = cpus > 1 ? entry.Edx | MultiThreading : entry.Edx & ~MultiThreading;
                break;
            case 4 or 0x8000_001D when (entry.Eax & 0x1F) != 0:
                // Caches of level 3 and up are shared by the package, the others belong to a core.
                uint level = (entry.Eax >> 5) & 7;
                uint sharing = level >= 3 ? (1u << CoreBits(cpus)) - 1 : 0;
                entry.Eax = (entry.Eax & 0x0000_3FFF) | (Math.Min(sharing, 0xFFF) << 14);
                if (entry.Function == 4)
                    entry.Eax |= Math.Min((1u << CoreBits(cpus)) - 1, 0x3F) << 26;
                break;
            case 0x8000_0008:
                entry.Ecx = (entry.Ecx & 0xFFFF_0F00) | ((uint)CoreBits(cpus) << 12) | Math.Min(cpus - 1, 0xFF);
                break;
        }
        return entry;
    }

    /// <summary>The leaf of Intel's processors that says how fast the TSC is: the frequency of a crystal, and how many ticks of the TSC come with how many of the
    /// crystal's (Intel SDM vol. 2A "CPUID", leaf 15H). Linux takes the crystal's frequency for that of the local APIC timer, so it is that.</summary>
    private static void AddTscFrequency(List<KvmCpuidEntry2> entries, uint tscKilohertz)
    {
        (uint numerator, uint denominator) = Approximate(tscKilohertz, ApicTimerKilohertz, uint.MaxValue / ApicTimerKilohertz);
        entries.Add(new KvmCpuidEntry2 { Function = TscLeaf, Eax = denominator, Ebx = numerator, Ecx = ApicTimerKilohertz * 1000 });
    }

    /// <summary>The leaf with which hypervisors tell the frequencies of the TSC and the local APIC timer in kHz. VMware defined it, and the BSDs read it under KVM, too.</summary>
    private static void AddTiming(List<KvmCpuidEntry2> entries, uint tscKilohertz)
    {
        foreach (ref KvmCpuidEntry2 entry in CollectionsMarshal.AsSpan(entries))
        {
            if (entry.Function == HypervisorLeaf)
                entry.Eax = Math.Max(entry.Eax, TimingLeaf);   // the highest of these leaves; KVM answers those between with 0
        }
        entries.Add(new KvmCpuidEntry2 { Function = TimingLeaf, Eax = tscKilohertz, Ebx = ApicTimerKilohertz });
    }

    /// <summary>The best fraction for <paramref name="value"/> / <paramref name="unit"/> whose numerator is at most <paramref name="limit"/>: Linux multiplies it
    /// by the crystal's frequency in kHz in 32 bits. By continued fractions; it is off by less than one in a million for any TSC from 1 to 4.2 GHz.</summary>
    internal static (uint Numerator, uint Denominator) Approximate(uint value, uint unit, uint limit)
    {
        (ulong numerator, ulong denominator) = (1, 0);
        (ulong lastNumerator, ulong lastDenominator) = (0, 1);
        (ulong dividend, ulong divisor) = (value, unit);
        while (divisor != 0)
        {
            (ulong quotient, ulong rest) = Math.DivRem(dividend, divisor);
            ulong next = quotient * numerator + lastNumerator;
            if (next > limit)
                break;
            (numerator, lastNumerator) = (next, numerator);
            (denominator, lastDenominator) = (quotient * denominator + lastDenominator, denominator);
            (dividend, divisor) = (divisor, rest);
        }
        return ((uint)numerator, (uint)denominator);
    }

    private static void AddTopology(List<KvmCpuidEntry2> entries, uint leaf, uint cpus)
    {
        entries.Add(Level(0, shift: 0, processors: 1, ThreadLevel));
        entries.Add(Level(1, shift: (uint)CoreBits(cpus), processors: cpus, CoreLevel));
        entries.Add(Level(2, shift: 0, processors: 0, type: 0));

        KvmCpuidEntry2 Level(uint index, uint shift, uint processors, uint type) => new()
        {
            Function = leaf,
            Index = index,
            Flags = KvmCpuidEntry2.SignificantIndex,
            Eax = shift,
            Ebx = processors,
            Ecx = index | (type << 8),
        };
    }

    /// <summary>How many bits of the APIC id number the cores.</summary>
    private static int CoreBits(uint cpus) => 32 - BitOperations.LeadingZeroCount(cpus - 1);
}
