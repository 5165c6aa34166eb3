using System.Globalization;
using System.Text;
using NUnit.Framework;
using Vmm.Cpu;
using Vmm.Tests.Integration;

namespace Vmm.Tests.Cpu;

/// <summary>docs/cpu.md shows the tables of the code.</summary>
public sealed class CpuDocumentTests
{
    [Test]
    public void Document_Tables_AreThoseOfTheCode()
    {
        string document = File.ReadAllText(RepositoryRoot.Combine("docs", "cpu.md"));
        string[] tables = [Leaves(), Treatments(), Features()];
        if (tables.All(document.Contains))
            return;
        string path = Path.Combine(TestContext.CurrentContext.WorkDirectory, "cpu-tables.md");
        File.WriteAllText(path, string.Join('\n', tables));
        Assert.Fail($"docs/cpu.md does not have the tables as they are in {path}");
    }

    private static string Leaves()
    {
        var table = new StringBuilder("| leaf | what it tells | the guest's | why, or what is changed | source |\n|---|---|---|---|---|\n");
        foreach (CpuidLeaf leaf in CpuidLeaf.All)
        {
            string number = leaf.First == leaf.Last ? Hex(leaf.First) : $"{Hex(leaf.First)} to {Hex(leaf.Last)}";
            table.Append(CultureInfo.InvariantCulture, $"| {number} | {leaf.Name} | {Word(leaf.Treatment)} | {leaf.Why} | {leaf.Source} |\n");
        }
        return table.ToString();
    }

    private static string Treatments()
    {
        var table = new StringBuilder("| the guest's | which features, and why |\n|---|---|\n");
        foreach (CpuidTreatment treatment in Enum.GetValues<CpuidTreatment>())
            table.Append(CultureInfo.InvariantCulture, $"| {Word(treatment)} | {CpuidTreatments.Why(treatment)} |\n");
        return table.ToString();
    }

    private static string Features()
    {
        var table = new StringBuilder("| register | the guest's | features |\n|---|---|---|\n");
        foreach (var register in CpuFeatures.All.ToArray().GroupBy(feature => (feature.Leaf, feature.Subleaf, feature.Register)))
        {
            string name = $"{Hex(register.Key.Leaf)}{(register.Key.Subleaf == 0 && register.Key.Leaf != 7 ? "" : $".{register.Key.Subleaf}")} {register.Key.Register.ToString().ToUpperInvariant()}";
            foreach (var treatment in register.GroupBy(feature => feature.Treatment).OrderBy(group => group.Key))
                table.Append(CultureInfo.InvariantCulture, $"| {name} | {Word(treatment.Key)} | {string.Join(", ", treatment.Select(Level))} |\n");
        }
        return table.ToString();
    }

    private static string Level(CpuFeature feature) => $"{feature.Name}{(feature.Level == 0 ? "" : $" (v{feature.Level})")}";

    private static string Hex(uint number) => $"0x{number:X}";

    private static string Word(CpuidTreatment treatment) => treatment switch
    {
        CpuidTreatment.Passed => "passed",
        CpuidTreatment.Kept => "passed, with profiles too",
        CpuidTreatment.Made => "made",
        CpuidTreatment.Nested => "hidden, unless `nested=on`",
        CpuidTreatment.Pmu => "hidden, unless `pmu=on`",
        CpuidTreatment.Amx => "hidden, unless `amx=on`",
        CpuidTreatment.Sgx => "hidden: SGX",
        _ => "hidden: the host's",
    };
}
