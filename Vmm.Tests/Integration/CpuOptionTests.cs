using NUnit.Framework;
using Vmm.Cpu;
using Vmm.Kvm;

namespace Vmm.Tests.Integration;

/// <summary>What <c>--cpus</c> asks of the host, on any KVM: the guest runs, or one line says what is missing.</summary>
public class CpuOptionTests : KvmTest
{
    [TestCase("nested=on", "nested=on: ")]
    [TestCase("pmu=on", "pmu=on: ")]
    [TestCase("amx=on", "amx=on")]
    [TestCase("profile=x86-64-v2", "profile=x86-64-v2 needs ")]
    [TestCase("profile=x86-64-v3", "profile=x86-64-v3 needs ")]
    [TestCase("profile=x86-64-v4", "profile=x86-64-v4 needs ")]
    public void Run_Feature_RunsOrSaysWhatTheHostLacks(string keys, string lacks)
    {
        VmmResult result = Run("hello", "--cpus", $"boot=2,{keys}");

        if (result.ExitCode == 0)
            Assert.That((result.Output, result.Errors), Is.EqualTo(("hello from the guest\n", "")));
        else
        {
            Assert.That(result.ExitCode, Is.EqualTo(1), result.Summary);
            Assert.That(result.Errors, Does.StartWith($"vmm: --cpus: {lacks}").And.Matches("^[^\n]*\n$"));
        }
        Assert.That(result.ExitCode == 0, Is.EqualTo(HostHas(keys)), result.Summary);
    }

    private static bool HostHas(string keys)
    {
        using var kvm = new KvmSystem();
        KvmCpuidEntry2[] listed = kvm.SupportedCpuid.ToArray();
        return keys switch
        {
            "nested=on" => Lists(1, "vmx") || Lists(0x8000_0001, "svm"),
            "pmu=on" => Lists(0x8000_0001, "perfctr_core") || listed.Any(e => e.Function == 0xA && (e.Eax & 0xFF) != 0),
            "amx=on" => Lists(7, "amx_tile"),
            "profile=x86-64-v2" => Lists(1, "sse4_2"),
            "profile=x86-64-v3" => Lists(7, "avx2"),
            _ => Lists(7, "avx512vl"),
        };

        bool Lists(uint leaf, string name) => CpuFeatures.Find(leaf, name).IsSetIn(listed);
    }
}
