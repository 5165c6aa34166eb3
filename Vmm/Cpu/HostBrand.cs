using System.Runtime.Intrinsics.X86;
using Vmm.Kvm;

namespace Vmm.Cpu;

/// <summary>The name of the host's processor, which /proc/cpuinfo calls "model name". KVM leaves it to the VMM.</summary>
internal static class HostBrand
{
    private const uint First = 0x8000_0002;
    private const uint Last = 0x8000_0004;

    /// <summary>Whether <paramref name="leaf"/> holds a part of it.</summary>
    public static bool IsIn(uint leaf) => leaf is >= First and <= Last;

    /// <summary>The three leaves, 48 characters; none where the processor has no name.</summary>
    public static KvmCpuidEntry2[] Read()
    {
        if (!X86Base.IsSupported || (uint)X86Base.CpuId(unchecked((int)0x8000_0000), 0).Eax < Last)
            return [];
        var entries = new KvmCpuidEntry2[Last - First + 1];
        for (uint i = 0; i < entries.Length; i++)
        {
            (int eax, int ebx, int ecx, int edx) = X86Base.CpuId((int)(First + i), 0);
            entries[i] = new KvmCpuidEntry2 { Function = First + i, Eax = (uint)eax, Ebx = (uint)ebx, Ecx = (uint)ecx, Edx = (uint)edx };
        }
        return entries;
    }
}
