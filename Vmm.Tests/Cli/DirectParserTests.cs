using System.Reflection;
using CommandLine;
using NUnit.Framework;
using Vmm.Cli;
using Vmm.Cli.Exec;

namespace Vmm.Tests.Cli;

/// <summary>Command lines that are read without the parser's library: as that reads them, or not at all.</summary>
public sealed class DirectParserTests
{
    [TestCase(typeof(RunOptions))]
    [TestCase(typeof(ExecOptions))]
    public void TrySet_EachOption_SetsItAndNoOther(Type type)
    {
        var names = new HashSet<string>();
        foreach (PropertyInfo property in type.GetProperties())
        {
            if (property.GetCustomAttribute<OptionAttribute>()?.LongName is not string name)
                continue;
            names.Add(name);
            var options = (IDirectOptions)Activator.CreateInstance(type)!;
            bool isSwitch = property.PropertyType == typeof(bool);

            Assert.That(isSwitch ? options.TrySwitch(name) : options.TrySet(name, "value"), Is.True, name);
            Assert.That(isSwitch ? options.TrySet(name, "value") : options.TrySwitch(name), Is.False, name);
            Assert.That(property.GetValue(options), isSwitch ? Is.True : Is.EqualTo("value"), name);
            var fresh = (IDirectOptions)Activator.CreateInstance(type)!;
            property.SetValue(fresh, property.GetValue(options));
            Assert.That(Show(options), Is.EqualTo(Show(fresh)), name);
        }
        Assert.That(names, Has.Count.GreaterThan(20));
    }

    // A | stands for the character: a test with that in its name is not run.
    [TestCase("run", "--kernel", "k", "--disk", "path=a|path=b")]
    [TestCase("run", "--kernel", "k", "--disk", "path=a", "--disk=path=b|path=c")]
    [TestCase("exec", "--env", "A=b|C=d")]
    public void Parse_ValueWithTheCharacterBetweenValues_IsRefused(params string[] words)
    {
        string[] args = Array.ConvertAll(words, word => word.Replace('|', '\x1f'));

        Assert.That(() => Verbs.Parse(args), Throws.TypeOf<UsageException>().With.Message.Contains("has the control character 0x1F in it"));
        Assert.That(() => Verbs.ParseByLibrary(args), Throws.TypeOf<UsageException>().With.Message.Contains("has the control character 0x1F in it"));
    }

    // A name alone takes the value from here, whatever is in it.
    [Test]
    public void Parse_VariableWithThatCharacter_SaysHowToGiveIt() =>
        Assert.That(() => Verbs.Parse(["exec", "--env", "TEXT=a\x1f=b"]), Throws.TypeOf<UsageException>().With.Message.Contains("(export TEXT), and write --env TEXT"));

    [TestCase("run", "--kernel", "k")]
    [TestCase("run", "--kernel=k", "--cmdline=", "--force")]
    [TestCase("run", "--kernel", "--cpus", "--cmdline", "-x", "--memory", "")]
    [TestCase("run", "--kernel=a=b", "--cmdline", "a \t=\"b\" ", "--log-level=debug")]
    [TestCase("run", "--net", "tap", "--kernel", "k", "--net=user", "--disk", "path=a", "--net", "--net", "--disk=path=b,c")]
    [TestCase("run", "--net=", "--kernel", "k", "--net", "")]
    [TestCase("exec")]
    [TestCase("exec", "--")]
    [TestCase("exec", "--", "--kernel", "k", "--")]
    [TestCase("exec", "--kernel", "k", "--rw", "--bind", "a", "--bind=b", "--env", "A=1", "--env=B", "--", "make", "-j", "2")]
    public void Parse_CommandLineThatIsRight_IsReadAsTheLibraryReadsIt(params string[] args)
    {
        object direct = Verbs.Parse(args);
        object library = Verbs.ParseByLibrary(args);

        Assert.That(direct.GetType(), Is.EqualTo(library.GetType()));
        Assert.That(Show(direct), Is.EqualTo(Show(library)));
        Assert.That(((IVerbOptions)direct).Rest, Is.Empty, "it was read directly");
    }

    [TestCase("--kernel", "k", "--kernel", "k")]
    [TestCase("--kernel")]
    [TestCase("--cpus", "2")]
    [TestCase("--kernel", "k", "more")]
    [TestCase("--kernel", "k", "--force=on")]
    [TestCase("--kernel", "k", "--force", "--force")]
    [TestCase("--kernel", "k", "--help")]
    [TestCase("--kernel", "k", "-h")]
    [TestCase("--kernel", "k", "--")]
    [TestCase("--kernel", "k", "--kern", "k")]
    public void TryParse_AnythingElse_IsLeftToTheLibrary(params string[] args) =>
        Assert.That(DirectParser.TryParse(new RunOptions(), args, ["--net"], "kernel"), Is.False);

    private static string[] Show(object options) =>
    [
        .. options.GetType().GetProperties().Where(property => property.Name != nameof(IVerbOptions.Rest)).OrderBy(property => property.Name, StringComparer.Ordinal)
            .Select(property => $"{property.Name}={(property.GetValue(options) is IEnumerable<string> list ? string.Join('|', list) : property.GetValue(options) ?? "null")}"),
    ];
}
