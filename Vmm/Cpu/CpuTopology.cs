using System.Numerics;
using Vmm.Kvm;

namespace Vmm.Cpu;

/// <summary>What CPUID says of the processors around one: a machine is one package of one-thread cores, and the local APIC id is the number of the vCPU (Intel SDM
/// vol. 3A §11.9; AMD APM vol. 3 appendix E).</summary>
internal static class CpuTopology
{
    private const uint MultiThreading = 1u << 28;     // leaf 1, EDX: EBX[23:16] counts logical processors
    private const uint MultiCore = 1u << 1;           // leaf 80000001H, ECX, of AMD's: these are cores
    private const uint ThreadLevel = 1;
    private const uint CoreLevel = 2;

    /// <summary>How many CPUs 8 bits of an APIC id can name: 255 is all of them, and the I/O APIC takes one.</summary>
    public const int MaxXApicCpus = 254;

    /// <summary>Whether the local APICs of a machine of <paramref name="cpus"/> CPUs are in x2APIC mode from power-on, as firmware leaves them where there are
    /// APIC ids that xAPIC mode cannot name (ACPI 6.5 §5.2.12.12).</summary>
    public static bool NeedsX2Apic(int cpus) => cpus > MaxXApicCpus;

    /// <summary>Whether <paramref name="leaf"/> holds the host's topology and nothing else: <see cref="AddLevels"/> makes it anew.</summary>
    public static bool IsReplaced(uint leaf) => leaf is 0xB or 0x1F;

    /// <summary>Writes the topology into an entry that holds other things too.</summary>
    /// <param name="entry">An entry of KVM's.</param>
    /// <param name="cpus">How many vCPUs there are.</param>
    /// <param name="isAmd">Whether the processor is of AMD's kind: some fields are reserved with others.</param>
    public static void Describe(ref KvmCpuidEntry2 entry, uint cpus, bool isAmd)
    {
        switch (entry.Function)
        {
            case 1:
                entry.Ebx = (entry.Ebx & 0xFF00_FFFF) | (Math.Min(cpus, 255) << 16);
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
            case 0x8000_0001:
                entry.Ecx = isAmd && cpus > 1 ? entry.Ecx | MultiCore : entry.Ecx & ~MultiCore;
                break;
            case 0x8000_0008:
                entry.Ecx = isAmd ? ((uint)CoreBits(cpus) << 12) | Math.Min(cpus - 1, 0xFF) : 0;
                break;
        }
    }

    /// <summary>Adds the levels of the topology as <paramref name="leaf"/>, 0BH or 1FH.</summary>
    public static void AddLevels(List<KvmCpuidEntry2> entries, uint leaf, uint cpus)
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

    /// <summary>Writes the local APIC id, which is the number of the vCPU, into the entries of a machine.</summary>
    public static void SetApicId(Span<KvmCpuidEntry2> entries, uint apicId)
    {
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

    /// <summary>How many bits of the APIC id number the cores.</summary>
    private static int CoreBits(uint cpus) => 32 - BitOperations.LeadingZeroCount(cpus - 1);
}
