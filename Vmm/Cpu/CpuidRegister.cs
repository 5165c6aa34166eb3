using Vmm.Kvm;

namespace Vmm.Cpu;

/// <summary>A register that CPUID answers in.</summary>
internal enum CpuidRegister
{
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// <summary>The registers of an entry by their names.</summary>
internal static class CpuidRegisters
{
    /// <summary>The register <paramref name="register"/> of <paramref name="entry"/>.</summary>
    public static ref uint Of(ref KvmCpuidEntry2 entry, CpuidRegister register)
    {
        switch (register)
        {
            case CpuidRegister.Eax:
                return ref entry.Eax;
            case CpuidRegister.Ebx:
                return ref entry.Ebx;
            case CpuidRegister.Ecx:
                return ref entry.Ecx;
            default:
                return ref entry.Edx;
        }
    }
}
