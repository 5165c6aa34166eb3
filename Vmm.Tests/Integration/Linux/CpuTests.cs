using System.Globalization;
using NUnit.Framework;
using Vmm.Cpu;

namespace Vmm.Tests.Integration.Linux;

/// <summary>What Linux sees of its processor, and at which addresses it runs.</summary>
public class CpuTests : LinuxTest
{
    private const string Script = """
        grep -m 1 '^flags' /proc/cpuinfo
        grep -m 1 '^model name' /proc/cpuinfo
        echo "text=$(grep -m 1 ' T _text$' /proc/kallsyms)"
        echo "module=$(grep -m 1 'pvpanic_mmio\]$' /proc/kallsyms)"
        echo "memory=$(grep 'Kernel code' /proc/iomem)"
        echo "regions=$(od -A n -t x8 -N 2048 /proc/kcore | tr '\n' ' ')"
        echo "cpus=$(nproc)"

        """;

    // Two boots are equal by chance once in some 30,000; how many places there are is tested in KernelShiftTests.
    [TestCase("cloud")]
    [TestCase("generic")]
    public void Boot_Twice_RunsAtOtherAddresses(string flavour)
    {
        Addresses first = Boot(flavour, "");
        Addresses second = Boot(flavour, "");
        if (second.Module == first.Module)
            second = Boot(flavour, "");   // Linux chooses among 1024 places only

        Assert.That(new[] { first.Text, second.Text }, Has.Some.Not.EqualTo(Linked.Text));
        Assert.That((second.Text, second.Memory), Is.Not.EqualTo((first.Text, first.Memory)));
        Assert.That(second.Module, Is.Not.EqualTo(first.Module));
        Assert.That(first.DirectMap, Is.Null, "the kernel has chosen another place for its memory regions");
    }

    [Test]
    public void Boot_Nokaslr_RunsWhereItWasLinked()
    {
        Addresses addresses = Boot("cloud", "nokaslr");

        Assert.That(addresses with { Module = 0 }, Is.EqualTo(Linked));
        Assert.That(addresses.Module, Is.InRange(0xffff_ffff_c000_0000, 0xffff_ffff_c040_0000), "MODULES_VADDR, and the few modules before it");
    }

    [TestCase("cloud", 1, "")]
    [TestCase("cloud", 2, "profile=x86-64-v2")]
    [TestCase("generic", 4, "profile=x86-64-v3,nested=on")]
    public void Boot_Options_LinuxHasNoOtherFeatures(string flavour, int cpus, string options)
    {
        VmmResult result = Run(new LinuxGuest
        {
            Flavour = flavour,
            Cpus = cpus,
            Script = Script,
            CpuKeys = options,
        });

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        string[] flags = Line(result, "flags").Split(' ');
        var parsed = new CpuOptions
        {
            Nested = options.Contains("nested=on", StringComparison.Ordinal),
            Profile = options.Contains("-v2", StringComparison.Ordinal) ? CpuProfile.V2 : options.Contains("-v3", StringComparison.Ordinal) ? CpuProfile.V3 : CpuProfile.Host,
        };
        string[] hidden = [.. CpuFeatures.All.ToArray().GroupBy(f => f.Name).Where(same => !same.Any(f => f.IsVisible(parsed))).Select(same => same.Key).Except(s_implied)];
        Assert.That(hidden, Has.Length.GreaterThan(40));
        Assert.That(flags.Intersect(hidden), Is.Empty, result.Summary);
        Assert.That(flags, Is.SupersetOf(new[] { "fpu", "lm", "sse4_2", "hypervisor", "x2apic" }), result.Summary);
        Assert.That(flags.Any(flag => flag is "vmx" or "svm"), Is.EqualTo(parsed.Nested), result.Summary);
        Assert.That(Fact(result, "cpus"), Is.EqualTo($"{cpus}"));
        string model = File.ReadLines("/proc/cpuinfo").First(line => line.StartsWith("model name", StringComparison.Ordinal));
        Assert.That(Line(result, "model name").Split(':')[1].Trim(), Is.EqualTo(model.Split(':')[1].Trim()));
    }

    // Linux takes every 64-bit processor of AMD's for one that can prefetch so.
    private static readonly string[] s_implied = ["3dnowprefetch"];

    /// <summary>Where the parts of a kernel are.</summary>
    /// <param name="Text">The virtual address of its code.</param>
    /// <param name="Memory">Where that is in guest memory, in hexadecimal digits.</param>
    /// <param name="Module">The virtual address of something in a module.</param>
    /// <param name="DirectMap">The virtual address of memory, where it is the usual one.</param>
    private sealed record Addresses(ulong Text, string Memory, ulong Module, string? DirectMap);

    private static readonly Addresses Linked = new(0xffff_ffff_8100_0000, "01000000", 0, "ffff88800");

    private Addresses Boot(string flavour, string commandLine)
    {
        VmmResult result = Run(new LinuxGuest { Flavour = flavour, CommandLine = commandLine, Script = Script });
        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain(LinuxGuest.Ended(0)), result.Summary);
        string usual = "ffff88800";
        var addresses = new Addresses(
            Number(Fact(result, "text")), Fact(result, "memory").Split('-')[0].Trim(), Number(Fact(result, "module")),
            Fact(result, "regions").Split(' ').Any(word => word.StartsWith(usual, StringComparison.Ordinal)) ? usual : null);
        Assert.That(Fact(result, "regions"), Does.Contain(Fact(result, "text")[..9]), "kcore has the kernel's code: this is its table");
        TestContext.Out.WriteLine(
            $"{flavour} {commandLine}: code at 0x{addresses.Text:x}, in memory at 0x{addresses.Memory}, a module at 0x{addresses.Module:x}, direct map at {addresses.DirectMap ?? "another place"}");
        return addresses;
    }

    private static ulong Number(string text) => ulong.Parse(text.Split(' ')[0], NumberStyles.HexNumber, CultureInfo.InvariantCulture);

    private static string Fact(VmmResult result, string name) => Line(result, name + "=")[(name.Length + 1)..];

    private static string Line(VmmResult result, string start) =>
        result.Output.Split('\n').Select(line => line.TrimEnd('\r')).First(line => line.StartsWith(start, StringComparison.Ordinal));
}
