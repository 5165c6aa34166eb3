using Vmm.Kvm;
using Vmm.Vhost;

namespace Vmm.Cpu;

/// <summary>Leaf 0DH, which says what XSAVE saves: only the state of features that the guest sees (Intel SDM vol. 1 §13.2 and vol. 2A "CPUID").</summary>
internal static class ExtendedState
{
    private const uint Leaf = 0xD;
    private const uint LegacySize = 512 + 64;       // the x87 and SSE state, and the header
    private const ulong Always = 0b11;              // x87, SSE
    private const ulong Tiles = 0b11UL << 17;       // XTILECFG, XTILEDATA
    private const uint IsSupervisor = 1 << 0;       // of a component's ECX
    private const uint IsAligned = 1 << 1;
    private const uint HasFaultingDisable = 1 << 2; // XFD

    // The components and the features whose state they are; a component without one that is seen is not there. Others are hidden.
    private static readonly (int Component, uint Leaf, string Feature)[] s_components =
    [
        (2, 1, "avx"), (3, 7, "mpx"), (4, 7, "mpx"), (5, 7, "avx512f"), (6, 7, "avx512f"), (7, 7, "avx512f"), (8, 7, "intel_pt"), (9, 7, "pku"),
        (10, 7, "enqcmd"), (11, 7, "shstk"), (11, 7, "ibt"), (12, 7, "shstk"), (14, 7, "uintr"), (15, 7, "arch_lbr"), (17, 7, "amx_tile"), (18, 7, "amx_tile"),
        (19, 7, "apx_f"),
    ];

    /// <summary>Takes the state of hidden features from the entries of leaf 0DH, and corrects the sizes.</summary>
    /// <param name="entries">All entries, in which features are hidden already.</param>
    public static void HideUnseen(List<KvmCpuidEntry2> entries)
    {
        KvmCpuidEntry2[] all = [.. entries];
        ulong seen = Always;
        foreach ((int component, uint leaf, string feature) in s_components)
        {
            if (CpuFeatures.Find(leaf, feature).IsSetIn(all))
                seen |= 1UL << component;
        }
        bool hasXsave = CpuFeatures.Find(1, "xsave").IsSetIn(all);
        bool hasSupervisor = CpuFeatures.Find(Leaf, "xsaves").IsSetIn(all);
        bool isCompacted = hasSupervisor || CpuFeatures.Find(Leaf, "xsavec").IsSetIn(all);
        bool hasFaulting = CpuFeatures.Find(Leaf, "xfd").IsSetIn(all);
        entries.RemoveAll(entry => entry.Function == Leaf
            && (!hasXsave || (entry.Index > 1 && (!Has(seen, entry.Index) || ((entry.Ecx & IsSupervisor) != 0 && !hasSupervisor)))));

        (uint standard, uint compacted) = Sizes(entries);
        for (int i = 0; i < entries.Count; i++)
        {
            KvmCpuidEntry2 entry = entries[i];
            if (entry.Function != Leaf)
                continue;
            if (entry.Index == 0)
            {
                entry.Eax &= (uint)seen;
                entry.Edx &= (uint)(seen >> 32);
                entry.Ebx = entry.Ecx = standard;       // EBX follows XCR0 while the guest runs: KVM sees to that
            }
            else if (entry.Index == 1)
            {
                entry.Ebx = isCompacted ? compacted : 0;
                entry.Ecx &= hasSupervisor ? (uint)seen : 0;
                entry.Edx &= hasSupervisor ? (uint)(seen >> 32) : 0;
            }
            else if (!hasFaulting)
                entry.Ecx &= ~HasFaultingDisable;
            entries[i] = entry;
        }
    }

    /// <summary>Whether a guest with these entries can use AMX: it sees the tiles and has their state.</summary>
    public static bool HasTiles(ReadOnlySpan<KvmCpuidEntry2> entries)
    {
        foreach (KvmCpuidEntry2 entry in entries)
        {
            if (entry.Function == Leaf && entry.Index == 0)
                return (entry.Eax & Tiles) == Tiles;
        }
        return false;
    }

    private static bool Has(ulong components, uint component) => component < 64 && (components >> (int)component & 1) != 0;

    // Of an area with all that is left: in the standard format each component is where it says, in the compacted one behind the one before.
    private static (uint Standard, uint Compacted) Sizes(List<KvmCpuidEntry2> entries)
    {
        uint standard = LegacySize;
        uint compacted = LegacySize;
        foreach (KvmCpuidEntry2 entry in entries.Where(entry => entry.Function == Leaf && entry.Index > 1).OrderBy(entry => entry.Index))
        {
            if ((entry.Ecx & IsSupervisor) == 0)
                standard = Math.Max(standard, entry.Ebx + entry.Eax);
            compacted = ((entry.Ecx & IsAligned) != 0 ? Align.Up(compacted, 64u) : compacted) + entry.Eax;
        }
        return (standard, compacted);
    }
}
