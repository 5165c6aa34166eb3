using NUnit.Framework;
using Vmm.Boot;
using Vmm.Kvm;

namespace Vmm.Tests.Boot;

public class CpuIdTests
{
    private static readonly KvmCpuidEntry2[] s_supported =
    [
        new() { Function = 0, Eax = 0x1F },
        new() { Function = 1, Ebx = 0xAA_BB_08_00, Edx = 0x0FFF_FFFF },
        new() { Function = 4, Index = 0, Eax = 0xFFFF_FFFF & ~0xFFu | 0x21 },   // level 1, data, the host's sharing
        new() { Function = 4, Index = 3, Eax = 0xFFFF_FFFF & ~0xFFu | 0x63 },   // level 3
        new() { Function = 0xB, Index = 0, Ebx = 96 },
        new() { Function = 0x1F, Index = 0, Ebx = 96 },
        new() { Function = 0x8000_0008, Ecx = 0xFFFF },
        new() { Function = 0x8000_001E, Ebx = 0xFFFF, Ecx = 0x7FF },
    ];

    [Test]
    public void ForMachine_FourCpus_DescribesOnePackageOfFourCores()
    {
        KvmCpuidEntry2[] entries = CpuId.ForMachine(s_supported, 4, tscDeadline: true, tscKilohertz: 0);

        KvmCpuidEntry2 features = Find(entries, 1);
        Assert.That(features.Ebx >> 16 & 0xFF, Is.EqualTo(4), "logical processors");
        Assert.That(features.Ebx & 0xFFFF, Is.EqualTo(0x0800), "the rest of EBX stays");
        Assert.That(features.Ecx >> 31, Is.EqualTo(1), "hypervisor present");
        Assert.That(features.Ecx >> 24 & 1, Is.EqualTo(1), "TSC deadline");
        Assert.That(features.Edx >> 28 & 1, Is.EqualTo(1), "HTT");
        Assert.That(Find(entries, 4, 0).Eax >> 14 & 0xFFF, Is.Zero, "the first level cache is a core's own");
        Assert.That(Find(entries, 4, 3).Eax >> 14 & 0xFFF, Is.EqualTo(3), "the third level is shared by four");
        Assert.That(Find(entries, 4, 3).Eax >> 26, Is.EqualTo(3));
        foreach (uint leaf in new uint[] { 0xB, 0x1F })
        {
            Assert.That((Find(entries, leaf, 0).Eax, Find(entries, leaf, 0).Ebx, Find(entries, leaf, 0).Ecx), Is.EqualTo((0u, 1u, 0x100u)));
            Assert.That((Find(entries, leaf, 1).Eax, Find(entries, leaf, 1).Ebx, Find(entries, leaf, 1).Ecx), Is.EqualTo((2u, 4u, 0x201u)));
            Assert.That((Find(entries, leaf, 2).Eax, Find(entries, leaf, 2).Ebx, Find(entries, leaf, 2).Ecx), Is.EqualTo((0u, 0u, 2u)));
            Assert.That(entries.Count(e => e.Function == leaf), Is.EqualTo(3), "nothing of the host's topology is left");
        }
        Assert.That(Find(entries, 0x8000_0008).Ecx, Is.EqualTo(0x2F03u), "two bits of core id, four cores");
    }

    [Test]
    public void ForMachine_OneCpuWithoutDeadline_SaysSo()
    {
        KvmCpuidEntry2[] entries = CpuId.ForMachine(s_supported, 1, tscDeadline: false, tscKilohertz: 0);

        Assert.That(Find(entries, 1).Ecx >> 24 & 1, Is.Zero);
        Assert.That(Find(entries, 1).Edx >> 28 & 1, Is.Zero, "HTT");
        Assert.That((Find(entries, 0xB, 1).Eax, Find(entries, 0xB, 1).Ebx), Is.EqualTo((0u, 1u)));
    }

    [Test]
    public void ForVcpu_Third_HasItsApicIdEverywhere()
    {
        KvmCpuidEntry2[] entries = CpuId.ForMachine(s_supported, 4, tscDeadline: true, tscKilohertz: 0);

        CpuId.ForVcpu(entries, 1);
        CpuId.ForVcpu(entries, 3);

        Assert.That(Find(entries, 1).Ebx >> 24, Is.EqualTo(3));
        Assert.That(entries.Where(e => e.Function is 0xB or 0x1F).Select(e => e.Edx), Is.All.EqualTo(3));
        Assert.That((Find(entries, 0x8000_001E).Eax, Find(entries, 0x8000_001E).Ebx, Find(entries, 0x8000_001E).Ecx), Is.EqualTo((3u, 3u, 0u)));
    }

    [Test]
    public void ForMachine_HostWithoutTopologyLeaves_GetsNone()
    {
        KvmCpuidEntry2[] entries = CpuId.ForMachine([new() { Function = 0, Eax = 0xA }], 2, tscDeadline: true, tscKilohertz: 0);

        Assert.That(entries.Select(e => e.Function), Is.EqualTo(new uint[] { 0 }));
    }

    // As Linux computes it (arch/x86/kernel/tsc.c, native_calibrate_tsc), in 32 bits.
    [TestCase(1_000_000u)]
    [TestCase(2_099_998u)]
    [TestCase(2_899_999u)]
    [TestCase(3_187_201u)]
    [TestCase(4_200_000u)]
    public void ForMachine_Intel_TellsTheFrequenciesByLeaf15H(uint tscKilohertz)
    {
        KvmCpuidEntry2[] entries = CpuId.ForMachine(
            [Intel(0x16), new() { Function = 0x15, Eax = 2, Ebx = 176, Ecx = 24_000_000 }], 1, tscDeadline: true, tscKilohertz);

        KvmCpuidEntry2 leaf = Find(entries, 0x15);
        uint crystalKilohertz = leaf.Ecx / 1000;
        Assert.That(crystalKilohertz, Is.EqualTo(1_000_000), "the local APIC timer's frequency");
        uint frequency = unchecked(crystalKilohertz * leaf.Ebx) / leaf.Eax;
        Assert.That((double)frequency, Is.EqualTo((double)tscKilohertz).Within(1e-6 * tscKilohertz + 1));
    }

    [Test]
    public void ForMachine_TscOfAnotherVendorOrUnknown_HasNoLeaf15H()
    {
        Assert.That(CpuId.ForMachine([new() { Function = 0, Eax = 0x16 }], 1, true, 2_000_000).Select(e => e.Function), Has.None.EqualTo(0x15));
        Assert.That(CpuId.ForMachine([Intel(0x16)], 1, true, tscKilohertz: 0).Select(e => e.Function), Has.None.EqualTo(0x15));
        Assert.That(CpuId.ForMachine([Intel(0xD)], 1, true, 2_000_000).Select(e => e.Function), Has.None.EqualTo(0x15));
    }

    [Test]
    public void ForMachine_UnderKvm_TellsTheFrequenciesByTheTimingLeaf()
    {
        KvmCpuidEntry2[] supported =
        [
            new() { Function = 0, Eax = 0xA }, new() { Function = 0x4000_0000, Eax = 0x4000_0001, Ebx = 0x4B4D_564B }, new() { Function = 0x4000_0001, Eax = 0x3F },
        ];
        KvmCpuidEntry2[] entries = CpuId.ForMachine(supported, 1, tscDeadline: true, tscKilohertz: 2_099_998);

        Assert.That((Find(entries, 0x4000_0010).Eax, Find(entries, 0x4000_0010).Ebx), Is.EqualTo((2_099_998u, 1_000_000u)));
        Assert.That((Find(entries, 0x4000_0000).Eax, Find(entries, 0x4000_0000).Ebx), Is.EqualTo((0x4000_0010u, 0x4B4D_564Bu)), "the highest leaf; the signature stays");
        Assert.That(CpuId.ForMachine(supported, 1, true, tscKilohertz: 0), Has.Length.EqualTo(3), "nobody knows the frequency");
    }

    private static KvmCpuidEntry2 Intel(uint highest) => new() { Function = 0, Eax = highest, Ebx = 0x756E_6547, Ecx = 0x6C65_746E, Edx = 0x4965_6E69 };

    private static KvmCpuidEntry2 Find(KvmCpuidEntry2[] entries, uint function, uint index = 0) =>
        entries.Single(e => e.Function == function && e.Index == index);
}
