using System.Runtime.Intrinsics.X86;
using System.Text;
using NUnit.Framework;
using Vmm.Cpu;
using Vmm.Kvm;

namespace Vmm.Tests.Cpu;

/// <summary>Topology, frequencies and what else describes this machine.</summary>
public class GuestCpuidTests
{
    private static readonly KvmCpuidEntry2[] s_supported =
    [
        new() { Function = 0, Eax = 0x1F, Ebx = 0x6874_7541, Ecx = 0x444D_4163, Edx = 0x6974_6E65 },   // AuthenticAMD
        new() { Function = 1, Ebx = 0xAA_BB_08_00, Edx = 0x0FFF_FFFF },
        new() { Function = 4, Index = 0, Eax = 0xFFFF_FFFF & ~0xFFu | 0x21 },   // level 1, data, the host's sharing
        new() { Function = 4, Index = 3, Eax = 0xFFFF_FFFF & ~0xFFu | 0x63 },   // level 3
        new() { Function = 0xB, Index = 0, Ebx = 96 },
        new() { Function = 0x1F, Index = 0, Ebx = 96 },
        new() { Function = 0x8000_0001 },
        new() { Function = 0x8000_0008, Ecx = 0xFFFF_FFFF },
        new() { Function = 0x8000_001E, Ebx = 0xFFFF, Ecx = 0x7FF },
    ];

    [Test]
    public void Make_FourCpus_DescribesOnePackageOfFourCores()
    {
        KvmCpuidEntry2[] entries = Make(s_supported, 4, tscDeadline: true, tscKilohertz: 0);

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
        Assert.That(Find(entries, 0x8000_0001).Ecx, Is.EqualTo(2), "cmp_legacy: cores, not threads");
        Assert.That(Find(entries, 0x8000_0008).Ecx, Is.EqualTo(0x2003u), "two bits of core id, four cores, nothing else");
    }

    [Test]
    public void Make_OneCpuWithoutDeadline_SaysSo()
    {
        KvmCpuidEntry2[] entries = Make(s_supported, 1, tscDeadline: false, tscKilohertz: 0);

        Assert.That(Find(entries, 1).Ecx >> 24 & 1, Is.Zero);
        Assert.That(Find(entries, 1).Edx >> 28 & 1, Is.Zero, "HTT");
        Assert.That((Find(entries, 0xB, 1).Eax, Find(entries, 0xB, 1).Ebx), Is.EqualTo((0u, 1u)));
    }

    [Test]
    public void SetApicId_Third_HasItsApicIdEverywhere()
    {
        KvmCpuidEntry2[] entries = Make(s_supported, 4, tscDeadline: true, tscKilohertz: 0);

        CpuTopology.SetApicId(entries, 1);
        CpuTopology.SetApicId(entries, 3);

        Assert.That(Find(entries, 1).Ebx >> 24, Is.EqualTo(3));
        Assert.That(entries.Where(e => e.Function is 0xB or 0x1F).Select(e => e.Edx), Is.All.EqualTo(3));
        Assert.That((Find(entries, 0x8000_001E).Eax, Find(entries, 0x8000_001E).Ebx, Find(entries, 0x8000_001E).Ecx), Is.EqualTo((3u, 3u, 0u)));
    }

    [Test]
    public void Make_HostWithoutTopologyLeaves_GetsNone()
    {
        KvmCpuidEntry2[] entries = Make([new() { Function = 0, Eax = 0xA }], 2, tscDeadline: true, tscKilohertz: 0);

        Assert.That(entries.Select(e => e.Function), Is.EqualTo(new uint[] { 0 }));
    }

    // As Linux computes it (arch/x86/kernel/tsc.c, native_calibrate_tsc), in 32 bits.
    [TestCase(1_000_000u)]
    [TestCase(2_099_998u)]
    [TestCase(2_899_999u)]
    [TestCase(3_187_201u)]
    [TestCase(4_200_000u)]
    public void Make_Intel_TellsTheFrequenciesByLeaf15H(uint tscKilohertz)
    {
        KvmCpuidEntry2[] entries = Make(
            [Intel(0x16), new() { Function = 0x15, Eax = 2, Ebx = 176, Ecx = 24_000_000 }], 1, tscDeadline: true, tscKilohertz);

        KvmCpuidEntry2 leaf = Find(entries, 0x15);
        uint crystalKilohertz = leaf.Ecx / 1000;
        Assert.That(crystalKilohertz, Is.EqualTo(1_000_000), "the local APIC timer's frequency");
        uint frequency = unchecked(crystalKilohertz * leaf.Ebx) / leaf.Eax;
        Assert.That((double)frequency, Is.EqualTo((double)tscKilohertz).Within(1e-6 * tscKilohertz + 1));
    }

    [Test]
    public void Make_TscOfAnotherVendorOrUnknown_HasNoLeaf15H()
    {
        Assert.That(Make([new() { Function = 0, Eax = 0x16 }], 1, true, 2_000_000).Select(e => e.Function), Has.None.EqualTo(0x15));
        Assert.That(Make([Intel(0x16)], 1, true, tscKilohertz: 0).Select(e => e.Function), Has.None.EqualTo(0x15));
        Assert.That(Make([Intel(0xD)], 1, true, 2_000_000).Select(e => e.Function), Has.None.EqualTo(0x15));
    }

    [Test]
    public void Make_UnderKvm_TellsTheFrequenciesByTheTimingLeaf()
    {
        KvmCpuidEntry2[] supported =
        [
            new() { Function = 0, Eax = 0xA }, new() { Function = 0x4000_0000, Eax = 0x4000_0001, Ebx = 0x4B4D_564B }, new() { Function = 0x4000_0001, Eax = 0x3F },
        ];
        KvmCpuidEntry2[] entries = Make(supported, 1, tscDeadline: true, tscKilohertz: 2_099_998);

        Assert.That((Find(entries, 0x4000_0010).Eax, Find(entries, 0x4000_0010).Ebx), Is.EqualTo((2_099_998u, 1_000_000u)));
        Assert.That((Find(entries, 0x4000_0000).Eax, Find(entries, 0x4000_0000).Ebx), Is.EqualTo((0x4000_0010u, 0x4B4D_564Bu)), "the highest leaf; the signature stays");
        Assert.That(Make(supported, 1, true, tscKilohertz: 0), Has.Length.EqualTo(3), "nobody knows the frequency");
    }

    [TestCase(1, 0x0000u)]
    [TestCase(2, 0x1001u)]
    [TestCase(3, 0x2002u)]
    [TestCase(5, 0x3004u)]
    [TestCase(64, 0x603Fu)]
    [TestCase(254, 0x80FDu)]
    public void Make_AnyNumberOfCpus_CountsThemInAmdsLeaf(int cpus, uint expected) =>
        Assert.That(Find(Make(s_supported, cpus, true, 0), 0x8000_0008).Ecx, Is.EqualTo(expected));

    // Intel SDM vol. 2A, CPUID: leaf 1 has 8 bits for it, leaf 0BH has 32.
    [TestCase(254, 0u)]
    [TestCase(255, 1u << 15)]
    [TestCase(1024, 1u << 15)]
    public void Make_MoreCpusThanXApicCanName_TellsOfLongDestinations(int cpus, uint feature)
    {
        KvmCpuidEntry2[] entries = Make([Intel(0xD), new() { Function = 1 }, new() { Function = 0x4000_0001, Eax = 0x3F }], cpus, true, 0);
        CpuTopology.SetApicId(entries, (uint)cpus - 1);

        Assert.That(Find(entries, 0x4000_0001).Eax, Is.EqualTo(0x3F | feature));
        Assert.That((Find(entries, 0xB).Edx, Find(entries, 1).Ebx >> 24), Is.EqualTo(((uint)cpus - 1, (uint)(cpus - 1) & 0xFF)));
    }

    [Test]
    public void Make_Intel_HasNothingInAmdsFields()
    {
        KvmCpuidEntry2[] entries = Make([Intel(0xD), new() { Function = 0x8000_0001, Ecx = 2 }, new() { Function = 0x8000_0008, Eax = 0x3030, Ecx = 0x7001 }], 4, true, 0);

        Assert.That((Find(entries, 0x8000_0001).Ecx, Find(entries, 0x8000_0008).Ecx, Find(entries, 0x8000_0008).Eax), Is.EqualTo((0u, 0u, 0x3030u)));
    }

    [Test]
    public void Make_Brand_ReplacesKvmsEmptyOne()
    {
        KvmCpuidEntry2[] brand = HostBrand.Read();
        KvmCpuidEntry2[] entries = new GuestCpuid { Cpus = 1, Brand = brand }.Make([new() { Function = 0x8000_0002 }, new() { Function = 0x8000_0003 }, new() { Function = 0x8000_0004 }]);

        Assert.That(entries.Select(e => e.Function), Is.EqualTo(new uint[] { 0x8000_0002, 0x8000_0003, 0x8000_0004 }));
        string name = string.Concat(entries.SelectMany(e => new[] { e.Eax, e.Ebx, e.Ecx, e.Edx }).SelectMany(BitConverter.GetBytes).Select(b => (char)b)).TrimEnd('\0').Trim();
        // Not /proc/cpuinfo: the kernel of a machine whose hypervisor changes the name afterwards has another one.
        Assert.That(name, Is.EqualTo(ProcessorName()));
    }

    private static string ProcessorName()
    {
        var name = new StringBuilder();
        for (int leaf = unchecked((int)0x8000_0002); leaf <= unchecked((int)0x8000_0004); leaf++)
        {
            (int eax, int ebx, int ecx, int edx) = X86Base.CpuId(leaf, 0);
            foreach (int part in (int[])[eax, ebx, ecx, edx])
                name.Append(Encoding.ASCII.GetString(BitConverter.GetBytes(part)));
        }
        return name.ToString().TrimEnd('\0').Trim();
    }

    private static KvmCpuidEntry2[] Make(ReadOnlySpan<KvmCpuidEntry2> supported, int cpus, bool tscDeadline, uint tscKilohertz) =>
        new GuestCpuid { Cpus = cpus, TscDeadline = tscDeadline, TscKilohertz = tscKilohertz }.Make(supported);

    private static KvmCpuidEntry2 Intel(uint highest) => new() { Function = 0, Eax = highest, Ebx = 0x756E_6547, Ecx = 0x6C65_746E, Edx = 0x4965_6E69 };

    private static KvmCpuidEntry2 Find(KvmCpuidEntry2[] entries, uint function, uint index = 0) =>
        entries.Single(e => e.Function == function && e.Index == index);
}
