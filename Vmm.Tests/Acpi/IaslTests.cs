using System.ComponentModel;
using System.Diagnostics;
using NUnit.Framework;

namespace Vmm.Tests.Acpi;

/// <summary>What the ACPI compiler and disassembler of the ACPICA project makes of our tables: the same parser that Linux has.
/// It takes no RSDP.</summary>
public class IaslTests
{
    private string _directory = "";

    [SetUp]
    public void MakeDirectory() => _directory = Directory.CreateTempSubdirectory("vmm-acpi-").FullName;

    [TearDown]
    public void RemoveDirectory() => Directory.Delete(_directory, recursive: true);

    [TestCase(1, 0, false)]
    [TestCase(2, 1, false)]
    [TestCase(2, 1, true)]
    [TestCase(32, 16, false)]
    [TestCase(254, 16, false)]
    [TestCase(1024, 16, false)]
    public void Iasl_EveryTable_IsDisassembledWithoutAnObjection(int cpus, int slots, bool isPc)
    {
        using var machine = new TestMachine(cpus, slots, isPc);
        foreach (byte[] table in new[] { machine.Xsdt, machine.Fadt, machine.Madt, machine.Dsdt })
        {
            string text = Disassemble(table);
            Assert.That(text, Does.Contain(TestMachine.Signature(table)));
            Assert.That(text, Does.Not.Contain("Invalid").And.Not.Contain("Unknown").And.Not.Contain("****"));
        }
    }

    [TestCase(1, 0)]
    [TestCase(1024, 16)]
    public void Iasl_DsdtRecompiled_IsTheSameByteForByte(int cpus, int slots)
    {
        using var machine = new TestMachine(cpus, slots);
        byte[] dsdt = machine.Dsdt;
        Disassemble(dsdt);

        // -on: leave names as they are written.
        string output = Run("-on", "-p", Path.Combine(_directory, "again"), Path.Combine(_directory, "DSDT.dsl"));
        Assert.That(output, Does.Contain("0 Errors, 0 Warnings"));
        byte[] again = File.ReadAllBytes(Path.Combine(_directory, "again.aml"));
        Assert.That(again, Has.Length.EqualTo(dsdt.Length));
        for (int i = 36; i < dsdt.Length; i++)      // after the header, in which the compiler says who it is
        {
            // The compiler leaves the checksum of a resource template's end tag (0x79) out, with a 0: that is allowed.
            if (dsdt[i - 1] != 0x79 || again[i] != 0)
                Assert.That(again[i], Is.EqualTo(dsdt[i]), $"byte {i}");
        }
    }

    [Test]
    public void Iasl_Dsdt_HasTheDevices()
    {
        using var machine = new TestMachine(2, 16);
        string text = Disassemble(machine.Dsdt);
        Assert.That(text, Does.Contain("Device (C000)").And.Contain("Device (C001)").And.Not.Contain("Device (C002)"));
        Assert.That(text, Does.Contain("EisaId (\"PNP0501\")").And.Contain("EisaId (\"PNP0B00\")").And.Contain("\"QEMU0001\""));
        Assert.That(text, Does.Contain("Device (VR00)").And.Contain("Device (VR0F)").And.Contain("\"LNRO0005\""));
        Assert.That(text, Does.Contain("0xD000F000,         // Address Base"));
        Assert.That(text, Does.Contain("Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive"));
        Assert.That(text, Does.Contain("EisaId (\"PNP0C0C\")").And.Contain("Method (_EVT, 1, Serialized)").And.Match(@"Notify \(.*PWRB, 0x80\)"));
        Assert.That(text, Does.Contain("Name (\\_S5, Package (0x04)"));
        Assert.That(text.Split("Device (").Length - 1, Is.EqualTo(2 + 5 + 16));
    }

    /// <summary>The source text of <paramref name="table"/>, also left behind as SIGNATURE.dsl.</summary>
    private string Disassemble(byte[] table)
    {
        string name = Path.Combine(_directory, TestMachine.Signature(table).Trim());
        File.WriteAllBytes(name + ".dat", table);
        string output = Run("-d", name + ".dat");
        Assert.That(output, Does.Not.Contain("Error").And.Not.Contain("Warning"));
        return File.ReadAllText(name + ".dsl");
    }

    private string Run(params string[] arguments)
    {
        var start = new ProcessStartInfo("iasl", arguments)
        {
            WorkingDirectory = _directory,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        try
        {
            using Process process = Process.Start(start)!;
            Task<string> error = process.StandardError.ReadToEndAsync();
            string output = process.StandardOutput.ReadToEnd() + error.GetAwaiter().GetResult();
            process.WaitForExit();
            Assert.That(process.ExitCode, Is.Zero, output);
            return output;
        }
        catch (Win32Exception)
        {
            Assert.Ignore("iasl is missing: apt-get install acpica-tools");
            throw;
        }
    }
}
