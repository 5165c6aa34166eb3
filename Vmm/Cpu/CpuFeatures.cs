using Vmm.Kvm;

namespace Vmm.Cpu;

/// <summary>A row of the table of features: one bit of a leaf.</summary>
/// <param name="Leaf">The leaf.</param>
/// <param name="Subleaf">The sub-leaf; 0 where the leaf has none.</param>
/// <param name="Register">The register.</param>
/// <param name="Bit">The bit, 0 to 31.</param>
/// <param name="Name">Its name.</param>
/// <param name="Treatment">What becomes of it.</param>
/// <param name="Level">The lowest profile that has it, 2 to 4, or 1 where all have it; 0 if none has.</param>
internal readonly record struct CpuFeature(
    uint Leaf, uint Subleaf, CpuidRegister Register, int Bit, string Name, CpuidTreatment Treatment = CpuidTreatment.Passed, int Level = 0)
{
    /// <summary>A feature of a profile.</summary>
    public CpuFeature(uint leaf, uint subleaf, CpuidRegister register, int bit, string name, int level)
        : this(leaf, subleaf, register, bit, name, CpuidTreatment.Passed, level)
    {
    }

    /// <summary>Its bit in its register.</summary>
    public uint Mask => 1u << Bit;

    /// <summary>Whether a guest sees it if KVM lists it.</summary>
    public bool IsVisible(CpuOptions options) =>
        Level != 0 ? options.Profile == CpuProfile.Host || Level <= (int)options.Profile : CpuidTreatments.IsVisible(Treatment, options);

    /// <summary>Whether it is in <paramref name="entry"/>'s leaf.</summary>
    public bool IsIn(in KvmCpuidEntry2 entry) => entry.Function == Leaf && entry.Index == Subleaf;

    /// <summary>Whether <paramref name="entries"/> have it.</summary>
    public bool IsSetIn(ReadOnlySpan<KvmCpuidEntry2> entries)
    {
        foreach (KvmCpuidEntry2 entry in entries)
        {
            KvmCpuidEntry2 copy = entry;
            if (IsIn(copy) && (CpuidRegisters.Of(ref copy, Register) & Mask) != 0)
                return true;
        }
        return false;
    }
}

/// <summary>The table of features. It says for each whether a guest sees it. A bit that is not in the table is passed on in these registers, because KVM lists only
/// what it can give a guest and a new mitigation should reach it; with a profile such a bit is hidden.</summary>
internal static class CpuFeatures
{
    private static readonly CpuFeature[] s_all = [.. StandardFeatures.Rows, .. ExtendedFeatures.Rows];

    /// <summary>All of them, by leaf, sub-leaf, register and bit.</summary>
    public static ReadOnlySpan<CpuFeature> All => s_all;

    /// <summary>The feature with that name in <paramref name="leaf"/>.</summary>
    public static CpuFeature Find(uint leaf, string name) => Array.Find(s_all, feature => feature.Leaf == leaf && feature.Name == name);

    /// <summary>Takes from <paramref name="entry"/> what the guest does not see.</summary>
    public static void Hide(ref KvmCpuidEntry2 entry, CpuOptions options)
    {
        Span<uint> named = stackalloc uint[4];      // by register
        Span<uint> visible = stackalloc uint[4];
        named.Clear();
        visible.Clear();
        foreach (CpuFeature feature in s_all)
        {
            if (!feature.IsIn(entry))
                continue;
            named[(int)feature.Register] |= feature.Mask;
            if (feature.IsVisible(options))
                visible[(int)feature.Register] |= feature.Mask;
        }
        // In these sub-leaves there is nothing but features: what a later processor says in a register without a row is one.
        bool hasOnlyFeatures = entry is { Function: 7, Index: > 0 };
        for (int i = 0; i < 4; i++)
        {
            ref uint register = ref CpuidRegisters.Of(ref entry, (CpuidRegister)i);
            if (options.Profile == CpuProfile.Host)
                register &= visible[i] | ~named[i];
            else if (named[i] != 0 || hasOnlyFeatures)
                register &= visible[i];
        }
    }
}
