using NUnit.Framework;
using Vmm.Tests.Integration;

namespace Vmm.Tests.Machine;

/// <summary>What a machine is made of does not know the machine: Machine uses Boot, Acpi, Cpu, Kvm and Serial, and none of them uses it.</summary>
public class LayersTests
{
    [TestCase("Acpi", "Vmm.Machine", "Vmm.Cli", "Vmm.Boot", "Vmm.Kvm", "Vmm.Serial")]
    [TestCase("Boot", "Vmm.Machine", "Vmm.Cli", "Vmm.Acpi", "Vmm.Kvm", "Vmm.Serial")]
    [TestCase("Cpu", "Vmm.Machine", "Vmm.Cli", "Vmm.Acpi", "Vmm.Boot", "Vmm.Serial")]
    [TestCase("Kvm", "Vmm.Machine", "Vmm.Cli", "Vmm.Acpi", "Vmm.Boot", "Vmm.Serial")]
    [TestCase("Serial", "Vmm.Machine", "Vmm.Cli", "Vmm.Acpi", "Vmm.Boot", "Vmm.Kvm")]
    [TestCase("Sandbox", "Vmm.Machine", "Vmm.Cli", "Vmm.Acpi", "Vmm.Boot")]
    [TestCase("Machine", "Vmm.Cli", "Vmm.Guest")]
    [TestCase("Guest", "Vmm.Cli")]
    public void Sources_Part_UsesNothingAboveIt(string part, params string[] others)
    {
        string[] files = Directory.GetFiles(RepositoryRoot.Combine("Vmm", part), "*.cs", SearchOption.AllDirectories);
        Assert.That(files, Is.Not.Empty);
        foreach (string file in files)
        {
            foreach (string other in others)
                Assert.That(File.ReadAllText(file), Does.Not.Contain($"using {other}"), Path.GetRelativePath(RepositoryRoot.Combine("Vmm"), file));
        }
    }
}
