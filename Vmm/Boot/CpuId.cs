using System.Numerics;
using Vmm.Kvm;

namespace Vmm.Boot;

/// <summary>What CPUID tells each vCPU: what this host's KVM supports, with the local APIC ids and the topology of this
/// machine, which is one package of one-thread cores (Intel SDM vol. 2A "CPUID"; AMD APM vol. 3 appendix E).</summary>
internal static class CpuId
{
    private const uint TscDeadlineTimer = 1u << 24;   // leaf 1, ECX
    private const uint Hypervisor = 1u << 31;         // leaf 1, ECX
    private const uint MultiThreading = 1u << 28;     // leaf 1, EDX: EBX[23:16] counts logical processors
    private const uint ThreadLevel = 1;
    private const uint CoreLevel = 2;

    /// <summary>The machine's entries without those that differ between vCPUs: made once, completed by <see cref="ForVcpu"/>.</summary>
    /// <param name="supported">KVM_GET_SUPPORTED_CPUID.</param>
    /// <param name="cpus">How many vCPUs the machine has, 1 or more.</param>
    /// <param name="tscDeadline">Whether KVM's local APIC has the TSC-deadline mode (KVM_CAP_TSC_DEADLINE_TIMER). KVM does not
    /// list it as supported, because it depends on who emulates the APIC. With it Linux need not calibrate the APIC timer, which takes 100 ms.</param>
    public static KvmCpuidEntry2[] ForMachine(ReadOnlySpan<KvmCpuidEntry2> supported, int cpus, bool tscDeadline)
    {
        var entries = new List<KvmCpuidEntry2>(supported.Length + 6);
        uint highest = 0;
        foreach (KvmCpuidEntry2 entry in supported)
        {
            if (entry.Function == 0)
                highest = entry.Eax;
            if (entry.Function is 0xB or 0x1F)
                continue;   // the host's topology; ours follows
            entries.Add(Complete(entry, (uint)cpus, tscDeadline));
        }
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
