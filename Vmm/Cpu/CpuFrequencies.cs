using System.Runtime.InteropServices;
using Vmm.Kvm;

namespace Vmm.Cpu;

/// <summary>The leaves that tell how fast the TSC and the local APIC timer are, so that no guest has to measure it.</summary>
internal static class CpuFrequencies
{
    private const uint TscLeaf = 0x15;
    private const uint HypervisorLeaf = 0x4000_0000;
    private const uint TimingLeaf = 0x4000_0010;
    private const uint ApicTimerKilohertz = 1_000_000;   // KVM's local APIC timer counts nanoseconds

    /// <summary>Whether <paramref name="leaf"/> holds the host's frequencies: they are not the guest's.</summary>
    public static bool IsReplaced(uint leaf) => leaf is TscLeaf or TimingLeaf;

    /// <summary>The leaf of Intel's processors that says how fast the TSC is: the frequency of a crystal, and how many ticks of the TSC come with how many of the
    /// crystal's (Intel SDM vol. 2A "CPUID", leaf 15H). Linux takes the crystal's frequency for that of the local APIC timer, so it is that.</summary>
    /// <param name="entries">The entries to add to.</param>
    /// <param name="highest">The highest standard leaf.</param>
    /// <param name="tscKilohertz">The frequency of the TSC.</param>
    public static void AddTscLeaf(List<KvmCpuidEntry2> entries, uint highest, uint tscKilohertz)
    {
        if (highest < TscLeaf)
            return;
        (uint numerator, uint denominator) = Approximate(tscKilohertz, ApicTimerKilohertz, uint.MaxValue / ApicTimerKilohertz);
        entries.Add(new KvmCpuidEntry2 { Function = TscLeaf, Eax = denominator, Ebx = numerator, Ecx = ApicTimerKilohertz * 1000 });
    }

    /// <summary>The leaf with which hypervisors tell the frequencies of the TSC and the local APIC timer in kHz, if the entries have a hypervisor's. VMware defined
    /// it, and the BSDs read it under KVM, too.</summary>
    public static void AddTimingLeaf(List<KvmCpuidEntry2> entries, uint tscKilohertz)
    {
        bool isHypervisors = false;
        foreach (ref KvmCpuidEntry2 entry in CollectionsMarshal.AsSpan(entries))
        {
            if (entry.Function != HypervisorLeaf)
                continue;
            entry.Eax = Math.Max(entry.Eax, TimingLeaf);   // the highest of these leaves; KVM answers those between with 0
            isHypervisors = true;
        }
        if (isHypervisors)
            entries.Add(new KvmCpuidEntry2 { Function = TimingLeaf, Eax = tscKilohertz, Ebx = ApicTimerKilohertz });
    }

    /// <summary>The best fraction for <paramref name="value"/> / <paramref name="unit"/> whose numerator is at most <paramref name="limit"/>: Linux multiplies it
    /// by the crystal's frequency in kHz in 32 bits. By continued fractions; it is off by less than one in a million for any TSC from 1 to 4.2 GHz.</summary>
    private static (uint Numerator, uint Denominator) Approximate(uint value, uint unit, uint limit)
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
}
