using System.Reflection;
using System.Text.RegularExpressions;
using NUnit.Framework;
using NUnit.Framework.Interfaces;
using Vmm.Tests.Integration;

namespace Vmm.Tests.Docs;

/// <summary>The tests that docs/threat-model.md, docs/cves.md and docs/specification.md name as what shows a promise.</summary>
public partial class NamedTestsTests
{
    private static readonly HashSet<string> s_tests = [.. typeof(NamedTestsTests).Assembly.GetTypes()
        .SelectMany(type => type.GetMethods()
            .Where(method => method.GetCustomAttributes().Any(attribute => attribute is ITestBuilder or ISimpleTestBuilder))
            .Select(method => $"{type.Name}.{method.Name}"))];

    [TestCase("threat-model.md", 20)]
    [TestCase("cves.md", 30)]
    [TestCase("specification.md", 15)]
    public void Document_TestsThatItNames_Exist(string name, int least)
    {
        string[] named = [.. TestName().Matches(Read(name)).Select(match => match.Groups[1].Value).Distinct()];
        Assert.That(named, Has.Length.GreaterThanOrEqualTo(least));
        Assert.That(named, Is.SubsetOf(s_tests));
    }

    [Test]
    public void Cves_EachRow_NamesATestOrSaysThatThereIsNone()
    {
        string[] rows = [.. Read("cves.md").Split('\n').Where(line => line.StartsWith("| CVE-", StringComparison.Ordinal))];
        Assert.That(rows, Has.Length.GreaterThanOrEqualTo(40));
        foreach (string row in rows)
        {
            string[] cells = [.. row.Split('|').Select(cell => cell.Trim())];
            Assert.That(cells, Has.Length.EqualTo(7), row);
            Assert.That(cells[1].Split(", "), Is.All.Match(@"^CVE-\d{4}-\d{4,}$"), row);
            Assert.That(cells[5].StartsWith("No test: ", StringComparison.Ordinal) || TestName().IsMatch(cells[5]), row);
            Assert.That(cells[4] != "" || cells[5].StartsWith("No test: ", StringComparison.Ordinal), row);
        }
    }

    private static string Read(string name) => File.ReadAllText(RepositoryRoot.Combine("docs", name));

    [GeneratedRegex(@"`([A-Za-z0-9]+Tests\.[A-Za-z0-9_]+)`")]
    private static partial Regex TestName();
}
