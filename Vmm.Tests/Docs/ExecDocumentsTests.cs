using System.Reflection;
using System.Text.RegularExpressions;
using CommandLine;
using NUnit.Framework;
using Vmm.Cli.Exec;
using Vmm.Tests.Integration;

namespace Vmm.Tests.Docs;

/// <summary>The options of <c>vmm exec</c> in its man page, in docs/exec.md and docs/run.md, and in the code.</summary>
public partial class ExecDocumentsTests
{
    [Test]
    public void ManPage_Options_AreThoseOfTheCode()
    {
        string[] lines = Read("vmm-exec.1").Split('\n');
        // Those of vmm run come at the end, without entries of their own.
        int list = Array.IndexOf(lines, "The options");
        string[] described = [.. Named(lines.Where((line, index) => line.StartsWith(".It Fl ", StringComparison.Ordinal) || (list >= 0 && index > list)))];

        Assert.That(described, Is.EquivalentTo(Options(BindingFlags.Default)));
        Assert.That(Named(lines), Is.SubsetOf(described));

        // .Fl -tty , -no-tty, also behind .It and .Op.
        static IEnumerable<string> Named(IEnumerable<string> lines) => lines.Where(line => line.StartsWith('.')).SelectMany(line => ManOption().Matches(line)).Select(match => match.Groups[1].Value).Distinct();
    }

    [Test]
    public void ManPage_Examples_HaveOptionsOfTheCode() =>
        Assert.That(Examples("vmm-exec.1", ".Dl vmm exec "), Is.SubsetOf(Options(BindingFlags.Default)).And.Not.Empty);

    [Test]
    public void Document_OptionsOfExec_AreThere()
    {
        string document = Read("exec.md");

        // Those of the machine are also those of vmm run.
        Assert.That(Options(BindingFlags.DeclaredOnly).Where(option => !IsIn(option, document)), Is.Empty);
        Assert.That(Options(BindingFlags.Default).Where(option => !IsIn(option, document + Read("run.md"))), Is.Empty);

        static bool IsIn(string option, string text) => Regex.IsMatch(text, $"--{option}(?![a-z-])");
    }

    [Test]
    public void Document_Examples_HaveOptionsOfTheCode()
    {
        string[] options = [.. Examples("exec.md", "    vmm exec ")];

        Assert.That(options, Has.Length.GreaterThanOrEqualTo(10));
        Assert.That(options, Is.SubsetOf(Options(BindingFlags.Default)));
    }

    // As long as they are not hidden.
    private static IEnumerable<string> Options(BindingFlags which) => typeof(ExecOptions).GetProperties(BindingFlags.Public | BindingFlags.Instance | which)
        .Select(property => property.GetCustomAttribute<OptionAttribute>()).Where(option => option is { Hidden: false }).Select(option => option!.LongName);

    // Of the lines that begin so, as far as they are not the command in the guest.
    private static IEnumerable<string> Examples(string name, string beginning) => Read(name).Split('\n').Where(line => line.StartsWith(beginning, StringComparison.Ordinal))
        .SelectMany(line => Option().Matches(line.Split(" -- ")[0])).Select(match => match.Groups[1].Value).Distinct();

    private static string Read(string name) => File.ReadAllText(RepositoryRoot.Combine("docs", name));

    [GeneratedRegex("(?:(?<=Fl )|(?<=, ))-([a-z][a-z-]*)")]
    private static partial Regex ManOption();

    [GeneratedRegex(" --([a-z][a-z-]*)")]
    private static partial Regex Option();
}
