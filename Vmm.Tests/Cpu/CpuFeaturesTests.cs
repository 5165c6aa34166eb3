using NUnit.Framework;
using Vmm.Cpu;
using Vmm.Kvm;
using static Vmm.Cpu.CpuidRegister;

namespace Vmm.Tests.Cpu;

/// <summary>What guests see of processors that there are.</summary>
public sealed class CpuFeaturesTests
{
    private static readonly string[] s_hosts = [nameof(KnownHosts.Haswell), nameof(KnownHosts.SapphireRapids), nameof(KnownHosts.Genoa)];

    // Bits by hand, not by the table: what KVM lists and the guest does not see.
    [TestCase("Haswell", 0x1u, 0u, "Ecx", 1u << 5 | 1u << 15)]                             // vmx, pdcm
    [TestCase("SapphireRapids", 0x1u, 0u, "Ecx", 1u << 2 | 1u << 5 | 1u << 15)]          // dtes64, vmx, pdcm
    [TestCase("SapphireRapids", 0x1u, 0u, "Edx", 1u << 21)]                              // dts
    [TestCase("SapphireRapids", 0x7u, 0u, "Ebx", 1u << 2)]                                 // sgx
    [TestCase("SapphireRapids", 0x7u, 0u, "Ecx", 1u << 30)]                                // sgx_lc
    [TestCase("SapphireRapids", 0x7u, 0u, "Edx", 1u << 22 | 1u << 24 | 1u << 25)]          // amx_bf16, amx_tile, amx_int8
    [TestCase("SapphireRapids", 0xDu, 1u, "Eax", 1u << 4)]                                 // xfd
    [TestCase("Genoa", 0x8000_0001u, 0u, "Ecx", 1u << 2 | 1u << 23)]                       // svm, perfctr_core
    public void Make_Default_HidesTheseAndNothingElse(string host, uint leaf, uint subleaf, string name, uint hidden)
    {
        CpuidRegister register = Enum.Parse<CpuidRegister>(name);
        uint listed = Register(Host(host), leaf, subleaf, register);
        Assert.That(listed & hidden, Is.EqualTo(hidden), "KVM lists them");

        uint made = (leaf, register) == (1, Edx) ? 1u << 28 : 0;   // ht
        Assert.That(Register(Make(host), leaf, subleaf, register), Is.EqualTo((listed & ~hidden) | made));
    }

    // The registers whose features are all passed, the mitigations' among them.
    [TestCaseSource(nameof(s_hosts))]
    public void Make_Default_PassesAllElse(string host)
    {
        KvmCpuidEntry2[] guest = Make(host);
        foreach ((uint leaf, uint subleaf, CpuidRegister register) in new[]
        {
            (0x7u, 1u, Eax), (0x7u, 1u, Edx), (0x7u, 2u, Edx), (0x8000_0001u, 0u, Edx), (0x8000_0007u, 0u, Edx), (0x8000_0008u, 0u, Ebx),
            (0x8000_0008u, 0u, Eax), (0x8000_0021u, 0u, Eax), (0x8000_0021u, 0u, Ecx), (0x4000_0001u, 0u, Eax), (0x6u, 0u, Eax), (0x8000_0006u, 0u, Ecx), (0x1u, 0u, Eax),
        })
        {
            Assert.That(Register(guest, leaf, subleaf, register), Is.EqualTo(Register(Host(host), leaf, subleaf, register)), $"0x{leaf:x}.{subleaf} {register}");
        }
    }

    [TestCase("Haswell", 0xAu)]
    [TestCase("SapphireRapids", 0xAu, 0x12u, 0x1Du, 0x1Eu)]
    [TestCase("Genoa", 0x8000_000Au, 0x8000_001Fu, 0x8000_0022u)]
    public void Make_Default_HasNoneOfTheseLeaves(string host, params uint[] leaves)
    {
        Assert.That(Host(host).Select(e => e.Function), Is.SupersetOf(leaves));

        Assert.That(Make(host).Select(e => e.Function), Has.None.AnyOf(leaves.Cast<object>().ToArray()));
    }

    [Test]
    public void Make_Nested_PassesVirtualisation()
    {
        var options = new CpuOptions { Nested = true };

        Assert.That(Register(Make("SapphireRapids", options), 1, 0, Ecx) >> 5 & 1, Is.EqualTo(1));
        Assert.That(Register(Make("Genoa", options), 0x8000_0001, 0, Ecx) >> 2 & 1, Is.EqualTo(1));
        Assert.That(Make("Genoa", options).Single(e => e.Function == 0x8000_000A), Is.EqualTo(Host("Genoa").Single(e => e.Function == 0x8000_000A)));
    }

    [Test]
    public void Make_Pmu_PassesCounters()
    {
        var options = new CpuOptions { Pmu = true };

        Assert.That(Register(Make("SapphireRapids", options), 1, 0, Ecx) >> 15 & 1, Is.EqualTo(1), "pdcm");
        Assert.That(Register(Make("SapphireRapids", options), 0xA, 0, Eax), Is.EqualTo(0x0830_0802));
        Assert.That(Register(Make("Genoa", options), 0x8000_0001, 0, Ecx) >> 23 & 1, Is.EqualTo(1), "perfctr_core");
        Assert.That(Register(Make("Genoa", options), 0x8000_0022, 0, Ebx), Is.EqualTo(6));
    }

    [Test]
    public void Make_Amx_PassesTheTilesAndTheirState()
    {
        KvmCpuidEntry2[] guest = Make("SapphireRapids", new CpuOptions { Amx = true });

        Assert.That(Register(guest, 7, 0, Edx), Is.EqualTo(Register(Host("SapphireRapids"), 7, 0, Edx)));
        Assert.That((Register(guest, 0xD, 0, Eax), Register(guest, 0xD, 0, Ecx)), Is.EqualTo((0x602E7u, 0x2B00u)));
        Assert.That(guest.Where(e => e.Function == 0xD).Select(e => e.Index), Is.EqualTo(new uint[] { 0, 1, 2, 5, 6, 7, 9, 17, 18 }));
        Assert.That(Register(guest, 0xD, 18, Ecx), Is.EqualTo(6), "aligned, XFD");
        Assert.That(guest.Count(e => e.Function is 0x1D or 0x1E), Is.EqualTo(3));
    }

    [Test]
    public void Make_AmxHidden_HasNoStateOfIt()
    {
        KvmCpuidEntry2[] guest = Make("SapphireRapids");

        Assert.That((Register(guest, 0xD, 0, Eax), Register(guest, 0xD, 0, Ebx), Register(guest, 0xD, 0, Ecx)), Is.EqualTo((0x2E7u, 0xA88u, 0xA88u)));
        Assert.That(guest.Where(e => e.Function == 0xD).Select(e => e.Index), Is.EqualTo(new uint[] { 0, 1, 2, 5, 6, 7, 9 }));
        // Compacted: 576 and 0x100 + 0x40 + 0x200 + 0x400 + 8.
        Assert.That(Register(guest, 0xD, 1, Ebx), Is.EqualTo(576 + 0x748));
    }

    [Test]
    public void Make_SupervisorState_IsThereWithItsFeature()
    {
        // Genoa has shadow stacks, which Linux 6.16 does not give guests: here with a KVM that does, and lists CET_U and CET_S.
        KvmCpuidEntry2[] host = Host("Genoa");
        Entry(host, 0xD, 1).Ecx = 0x1800;
        Assert.That(Register(Make(host), 0xD, 1, Ecx), Is.Zero, "no shstk");
        Assert.That(Make(host).Where(e => e.Function == 0xD).Select(e => e.Index), Has.None.AnyOf(11u, 12u));

        Entry(host, 7, 0).Ecx |= 1 << 7;
        Assert.That(Register(Make(host), 0xD, 1, Ecx), Is.EqualTo(0x1800));
        Assert.That(Make(host).Where(e => e.Function == 0xD).Select(e => e.Index), Does.Contain(11u).And.Contain(12u));

        Entry(host, 0xD, 1).Eax &= ~(1u << 3);
        Assert.That(Register(Make(host), 0xD, 1, Ecx), Is.Zero, "no xsaves");
        Assert.That(Make(host).Where(e => e.Function == 0xD).Select(e => e.Index), Has.None.AnyOf(11u, 12u));
    }

    [TestCase("Haswell")]
    [TestCase("SapphireRapids")]
    [TestCase("Genoa")]
    public void Make_ProfileV2_IsTheSameOnEveryHost(string host)
    {
        KvmCpuidEntry2[] guest = Make(host, new CpuOptions { Profile = CpuProfile.V2 });

        // pni, ssse3, cx16, sse4_1, sse4_2, x2apic, popcnt, tsc_deadline_timer, hypervisor
        Assert.That(Register(guest, 1, 0, Ecx), Is.EqualTo(1u | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 23 | 1 << 24 | 1u << 31));
        Assert.That(Register(guest, 1, 0, Edx) & ~(1u << 28), Is.EqualTo(0x078B_FBFD), "without vme and ss");
        Assert.That(Register(guest, 7, 0, Ebx), Is.EqualTo(2), "tsc_adjust");
        Assert.That(Register(guest, 7, 0, Ecx), Is.Zero);
        Assert.That(Register(guest, 0x8000_0001, 0, Ecx) & ~(1u << 1 | 1u << 22), Is.EqualTo(1), "lahf_lm, and cmp_legacy and topoext of AMD's");
        Assert.That(Register(guest, 0x8000_0001, 0, Edx) & 0xFF80_0000 & ~(3u << 23), Is.EqualTo(1u << 29), "lm");
        Assert.That(Register(guest, 0x8000_0007, 0, Edx), Is.Zero);
        Assert.That(guest.Select(e => e.Function), Has.None.AnyOf(0xDu, 0x24u));
    }

    [TestCase("Haswell")]
    [TestCase("SapphireRapids")]
    [TestCase("Genoa")]
    public void Make_ProfileV3_IsTheSameOnEveryHost(string host)
    {
        KvmCpuidEntry2[] guest = Make(host, new CpuOptions { Profile = CpuProfile.V3 });

        uint v3 = 1 << 12 | 1 << 22 | 1 << 26 | 1 << 28 | 1 << 29;   // fma, movbe, xsave, avx, f16c
        Assert.That(Register(guest, 1, 0, Ecx) & ~(1u << 24), Is.EqualTo(v3 | 1 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 23 | 1u << 31));
        Assert.That(Register(guest, 7, 0, Ebx), Is.EqualTo(2 | 1 << 3 | 1 << 5 | 1 << 8), "tsc_adjust, bmi1, avx2, bmi2");
        Assert.That(Register(guest, 0x8000_0001, 0, Ecx) & 0x21, Is.EqualTo(0x21), "lahf_lm, abm");
        Assert.That((Register(guest, 0xD, 0, Eax), Register(guest, 0xD, 0, Ecx), Register(guest, 0xD, 1, Eax)), Is.EqualTo((7u, 0x340u, 0u)));
        Assert.That(guest.Where(e => e.Function == 0xD).Select(e => e.Index), Is.EqualTo(new uint[] { 0, 1, 2 }));
    }

    [TestCase("SapphireRapids", 0xA80u)]
    [TestCase("Genoa", 0x980u)]
    public void Make_ProfileV4_HasAvx512AndItsState(string host, uint size)
    {
        KvmCpuidEntry2[] guest = Make(host, new CpuOptions { Profile = CpuProfile.V4 });

        Assert.That(Register(guest, 7, 0, Ebx), Is.EqualTo(2u | 1 << 3 | 1 << 5 | 1 << 8 | 1 << 16 | 1 << 17 | 1 << 28 | 1 << 30 | 1u << 31));
        Assert.That((Register(guest, 0xD, 0, Eax), Register(guest, 0xD, 0, Ecx)), Is.EqualTo((0xE7u, size)));
    }

    [TestCase("Haswell")]
    [TestCase("SapphireRapids")]
    [TestCase("Genoa")]
    public void Make_Profile_LeavesMitigationsAndParavirtualFeatures(string host)
    {
        KvmCpuidEntry2[] all = Make(host);
        KvmCpuidEntry2[] guest = Make(host, new CpuOptions { Profile = CpuProfile.V2 });

        uint intel = 1 << 10 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 29 | 1u << 31;   // md_clear, spec_ctrl, intel_stibp, flush_l1d, arch_capabilities, ssbd
        Assert.That(Register(guest, 7, 0, Edx), Is.EqualTo(Register(all, 7, 0, Edx) & intel).And.Not.Zero);
        // ibpb, ibrs, stibp, stibp_always_on, ibrs_same_mode, ssbd, psfd, ibpb_ret
        uint amd = 1 << 12 | 1 << 14 | 1 << 15 | 1 << 17 | 1 << 19 | 1 << 24 | 1 << 28 | 1 << 30;
        Assert.That(Register(guest, 0x8000_0008, 0, Ebx), Is.EqualTo(Register(all, 0x8000_0008, 0, Ebx) & amd).And.Not.Zero);
        Assert.That(Register(guest, 0x4000_0001, 0, Eax), Is.EqualTo(0x0100_7EFB));
        if (host == "Genoa")
            Assert.That(Register(guest, 0x8000_0021, 0, Eax) & 0x144, Is.EqualTo(0x144), "lfence_rdtsc, null_sel_clr_base, autoibrs");
    }

    [Test]
    public void Make_ProfileAboveTheHost_NamesWhatIsMissing() =>
        Assert.That(() => Make("Haswell", new CpuOptions { Profile = CpuProfile.V4 }), Throws.TypeOf<VmmException>().With.Message.EqualTo(
            "--cpus: profile=x86-64-v4 needs avx512f, avx512dq, avx512cd, avx512bw, avx512vl, which this host's KVM does not have: use profile=x86-64-v3, or none"));

    [Test]
    public void Make_ProfileOnAHostBelowAll_SaysToLeaveItOut()
    {
        KvmCpuidEntry2[] host = Host("Haswell");
        Entry(host, 1, 0).Ecx &= ~(1u << 23 | 1u << 28);

        Assert.That(() => Make(host, new CpuOptions { Profile = CpuProfile.V3 }), Throws.TypeOf<VmmException>().With.Message.EqualTo(
            "--cpus: profile=x86-64-v3 needs popcnt, avx, which this host's KVM does not have: leave profile out"));
    }

    [Test]
    public void Make_OptionThatTheHostLacks_IsNamed()
    {
        KvmCpuidEntry2[] none = Host("Haswell");
        Entry(none, 1, 0).Ecx &= ~(1u << 5);
        Entry(none, 0xA, 0).Eax = 0;

        Assert.That(() => Make(none, new CpuOptions { Nested = true }), Throws.TypeOf<VmmException>().With.Message.StartsWith("--cpus: nested=on: this host's KVM offers"));
        Assert.That(() => Make(none, new CpuOptions { Pmu = true }), Throws.TypeOf<VmmException>().With.Message.StartsWith("--cpus: pmu=on: this host's KVM has no"));
        Assert.That(() => Make(none, new CpuOptions { Amx = true }), Throws.TypeOf<VmmException>().With.Message.StartsWith("--cpus: amx=on: this host's KVM does not"));
    }

    // Linux 6.1 lists the features without having given the state.
    [Test]
    public void Make_AmxWithoutItsState_IsRefused()
    {
        KvmCpuidEntry2[] host = Host("SapphireRapids");
        Entry(host, 0xD, 0).Eax = 0x2E7;

        Assert.That(() => Make(host, new CpuOptions { Amx = true }), Throws.TypeOf<VmmException>().With.Message.Contains("amx=on"));
    }

    [Test]
    public void Make_UnknownLeaf_IsHidden()
    {
        KvmCpuidEntry2[] host = [.. Host("SapphireRapids"), KnownHosts.Entry(0x21, 0, 1, 2, 3, 4), KnownHosts.Entry(0x8000_0055, 0, 1, 2, 3, 4)];

        Assert.That(Make(host).Select(e => e.Function), Has.None.AnyOf(0x21u, 0x8000_0055u));
    }

    [Test]
    public void Make_UnknownFeature_IsPassedButNotWithAProfile()
    {
        KvmCpuidEntry2[] host = Host("SapphireRapids");
        Entry(host, 7, 2).Edx |= 1 << 20;

        Assert.That(Register(Make(host), 7, 2, Edx) >> 20 & 1, Is.EqualTo(1));
        Assert.That(Register(Make(host, new CpuOptions { Profile = CpuProfile.V3 }), 7, 2, Edx) >> 20, Is.Zero);
    }

    // Registers of which the table has no bit.
    [TestCase(1u, "Ebx")]
    [TestCase(1u, "Ecx")]
    [TestCase(2u, "Eax")]
    [TestCase(2u, "Ebx")]
    [TestCase(2u, "Ecx")]
    public void Make_UnknownRegisterOfFeatures_IsPassedButNotWithAProfile(uint subleaf, string name)
    {
        CpuidRegister register = Enum.Parse<CpuidRegister>(name);
        KvmCpuidEntry2[] host = Host("SapphireRapids");
        CpuidRegisters.Of(ref Entry(host, 7, subleaf), register) = 1 << 5;

        Assert.That(Register(Make(host), 7, subleaf, register), Is.EqualTo(1 << 5));
        Assert.That(Register(Make(host, new CpuOptions { Profile = CpuProfile.V3 }), 7, subleaf, register), Is.Zero);
    }

    // KVM sets these while the guest runs.
    [Test]
    public void Make_RuntimeFeatures_AreClear()
    {
        KvmCpuidEntry2[] host = Host("SapphireRapids");
        Entry(host, 1, 0).Ecx |= 1 << 27;
        Entry(host, 7, 0).Ecx |= 1 << 4;

        Assert.That(Register(Make(host), 1, 0, Ecx) >> 27 & 1, Is.Zero, "osxsave");
        Assert.That(Register(Make(host), 7, 0, Ecx) >> 4 & 1, Is.Zero, "ospke");
    }

    [Test]
    public void All_Rows_NameEachBitOnceInALeafThatIsSeen()
    {
        Assert.That(CpuFeatures.All.ToArray().Select(f => (f.Leaf, f.Subleaf, f.Register, f.Bit)), Is.Unique);
        Assert.That(CpuFeatures.All.ToArray().Select(f => (f.Leaf, f.Name)), Is.Unique);
        foreach (CpuFeature feature in CpuFeatures.All)
        {
            Assert.That(feature.Bit, Is.InRange(0, 31));
            Assert.That(CpuidLeaf.TreatmentOf(feature.Leaf), Is.AnyOf(CpuidTreatment.Kept, CpuidTreatment.Made), feature.Name);
        }
        uint last = 0;
        foreach (CpuidLeaf leaf in CpuidLeaf.All)
        {
            Assert.That(leaf.First, Is.GreaterThan(last).Or.EqualTo(0), $"0x{leaf.First:x}");
            Assert.That(leaf.Last, Is.GreaterThanOrEqualTo(leaf.First));
            last = leaf.Last;
        }
    }

    private static KvmCpuidEntry2[] Host(string name) => name switch
    {
        nameof(KnownHosts.Haswell) => KnownHosts.Haswell,
        nameof(KnownHosts.SapphireRapids) => KnownHosts.SapphireRapids,
        _ => KnownHosts.Genoa,
    };

    private static KvmCpuidEntry2[] Make(string host, CpuOptions? options = null) => Make(Host(host), options);

    private static KvmCpuidEntry2[] Make(KvmCpuidEntry2[] host, CpuOptions? options = null) =>
        new GuestCpuid { Cpus = 4, Options = options ?? new CpuOptions(), TscDeadline = true }.Make(host);

    private static ref KvmCpuidEntry2 Entry(KvmCpuidEntry2[] entries, uint leaf, uint subleaf) =>
        ref entries[Array.FindIndex(entries, e => e.Function == leaf && e.Index == subleaf)];

    // 0 where there is no such entry, as the guest reads it.
    private static uint Register(KvmCpuidEntry2[] entries, uint leaf, uint subleaf, CpuidRegister register)
    {
        KvmCpuidEntry2 entry = entries.SingleOrDefault(e => e.Function == leaf && e.Index == subleaf);
        return CpuidRegisters.Of(ref entry, register);
    }
}
