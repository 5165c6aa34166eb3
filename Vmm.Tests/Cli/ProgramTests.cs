using System.Diagnostics.CodeAnalysis;
using System.Reflection;
using CommandLine;
using NUnit.Framework;
using Vmm.Cli;

namespace Vmm.Tests.Cli;

[NonParallelizable]   // the log level is one for the process
public class ProgramTests
{
    [Test]
    public void Main_EveryVerb_IsKeptFromTrimming()
    {
        IEnumerable<Type?> kept = typeof(Program).GetMethod("Main", BindingFlags.Static | BindingFlags.NonPublic)!
            .GetCustomAttributes<DynamicDependencyAttribute>()
            .Where(dependency => dependency.MemberTypes == DynamicallyAccessedMemberTypes.All)
            .Select(dependency => dependency.Type);
        Type[] verbs = [.. typeof(Program).Assembly.GetTypes().Where(type => type.GetCustomAttribute<VerbAttribute>() is not null)];

        Assert.That(verbs, Is.Not.Empty);
        Assert.That(kept, Is.EquivalentTo(verbs));
        (string Name, Type Options)[] all = [.. Verbs.All, .. Verbs.Backends];
        Assert.That(all.Select(verb => verb.Options), Is.EquivalentTo(verbs));
        Assert.That(all.Select(verb => verb.Name), Is.EqualTo(all.Select(verb => verb.Options.GetCustomAttribute<VerbAttribute>()!.Name)));
    }

    [Test]
    public void Run_NoVerb_ListsTheVerbsAndIsWrongUsage()
    {
        (int exit, string output, string error) = Run([]);
        Assert.That(exit, Is.EqualTo(ExitCode.Usage));
        Assert.That(output, Is.Empty);
        Assert.That(error, Does.Contain("\n  exec ").And.Contain("\n  backend ").And.Contain("Usage: vmm COMMAND"));
    }

    [TestCase("--help")]
    [TestCase("-h")]
    [TestCase("help")]
    public void Run_Help_ListsTheVerbs(params string[] args)
    {
        (int exit, string output, string error) = Run(args);
        Assert.That(exit, Is.EqualTo(ExitCode.Success));
        Assert.That(error, Is.Empty);
        Assert.That(output, Does.Contain("\n  run ").And.Contain("\n  check ").And.Contain("\n  backend ").And.Contain("Usage: vmm COMMAND"));
    }

    [TestCase("help", "run")]
    [TestCase("run", "--help")]
    [TestCase("run", "-h")]
    [TestCase("run", "--kernel", "k", "--help")]
    public void Run_HelpOfRun_ListsItsOptions(params string[] args)
    {
        (int exit, string output, string error) = Run(args);
        Assert.That(exit, Is.EqualTo(ExitCode.Success));
        Assert.That(error, Is.Empty);
        Assert.That(output, Does.Contain("Usage: vmm run"));
        foreach (PropertyInfo property in typeof(RunOptions).GetProperties())
        {
            if (property.GetCustomAttribute<OptionAttribute>() is { } option)
                Assert.That(output, Does.Contain("  --" + option.LongName + (property.PropertyType == typeof(bool) ? " " : "=")));
        }
    }

    [TestCase("--version")]
    [TestCase("version")]
    [TestCase("run", "--version")]
    [TestCase("run", "--kernel", "k", "--version")]
    public void Run_Version_PrintsOneLine(params string[] args)
    {
        (int exit, string output, string error) = Run(args);
        Assert.That(exit, Is.EqualTo(ExitCode.Success));
        Assert.That(error, Is.Empty);
        Assert.That(output, Does.Match(@"\Avmm \d+\.\d+\.\d+\n\z"));
    }

    // The name and the value (or the argument) that the one line has to name, then the arguments.
    [TestCase("rum", "run, check, backend", "rum")]
    [TestCase("'--kernel'", "run, check, backend", "--kernel", "k")]
    [TestCase("nonsense", "run, check, backend", "help", "nonsense")]
    [TestCase("RUN", "run, check, backend", "RUN", "--kernel", "k")]
    [TestCase("--kernel", "missing", "run")]
    [TestCase("--kernel", "missing: write --kernel hello.elf", "run", "hello.elf")]
    [TestCase("--kernel", "missing (see", "run", "--cpus", "1")]
    [TestCase("--kernel", "value is missing", "run", "--kernel")]
    [TestCase("--net", "'foo' is no network: write tap=NAME, tap, fd=N, socket=PATH or user", "run", "--kernel", "k", "--net", "foo")]
    [TestCase("--serial", "truncate='maybe': choose one of on, off, true, false", "run", "--kernel", "k", "--serial", "file=x,truncate=maybe")]
    [TestCase("--serial", "'b' is not of the form key=value", "run", "--kernel", "k", "--serial", "file=a,b")]
    [TestCase("--serial", "file='' is not a path", "run", "--kernel", "k", "--serial", "file=\"\"")]
    [TestCase("--console", "truncate='maybe': choose one of on, off, true, false", "run", "--kernel", "k", "--console", "file=x,truncate=maybe")]
    [TestCase("--cmdline", "character U+00E9 after 'caf'", "run", "--kernel", "k", "--cmdline", "caf\u00e9")]
    [TestCase("--cmdline", "character U+1F427 after ''", "run", "--kernel", "k", "--cmdline", "\U0001f427")]
    [TestCase("--cpus", "value is missing", "run", "--kernel", "k", "--cpus")]
    [TestCase("--kernel", "''", "run", "--kernel", "")]
    [TestCase("--kernel", "''", "run", "--kernel=")]
    [TestCase("--initramfs", "''", "run", "--kernel", "k", "--initramfs", "")]
    [TestCase("--foo", "unknown", "run", "--kernel", "k", "--foo", "3")]
    [TestCase("--foo", "unknown", "run", "--kernel", "k", "--foo=3")]
    [TestCase("--Cpus", "unknown", "run", "--kernel", "k", "--Cpus=3")]
    [TestCase("-x", "unknown", "run", "--kernel", "k", "-x")]
    [TestCase("--=", "understood", "run", "--kernel", "k", "--=3")]
    [TestCase("'extra'", "unexpected", "run", "--kernel", "k", "extra")]
    [TestCase("'extra'", "unexpected", "run", "--kernel", "k", "--", "extra")]
    [TestCase("'-'", "unexpected", "run", "--kernel", "k", "-")]
    [TestCase("'extra'", "unexpected", "check", "extra")]
    [TestCase("--kernel", "unknown", "check", "--kernel", "k")]
    [TestCase("--cpus", "'0'", "run", "--kernel", "k", "--cpus", "0")]
    [TestCase("--cpus", "'-1'", "run", "--kernel", "k", "--cpus=-1")]
    [TestCase("--cpus", "boot='1025'", "run", "--kernel", "k", "--cpus", "boot=1025")]
    [TestCase("--memory", "'huge'", "run", "--kernel", "k", "--memory", "huge=1")]
    [TestCase("--memory", "'12x'", "run", "--kernel", "k", "--memory", "12x")]
    [TestCase("--serial", "'com1'", "run", "--kernel", "k", "--serial", "com1")]
    [TestCase("--serial", "'a\\nb'", "run", "--kernel", "k", "--serial", "a\nb")]
    [TestCase("--on-reboot", "'stop': choose one of restart, exit", "run", "--kernel", "k", "--on-reboot", "stop")]
    [TestCase("--on-panic", "'restart': choose one of exit, halt", "run", "--kernel", "k", "--on-panic", "restart")]
    [TestCase("--decompress", "'me': choose one of host, guest", "run", "--kernel", "k", "--decompress", "me")]
    [TestCase("--entry", "'efi': choose one of auto, linux64, pvh", "run", "--kernel", "k", "--entry", "efi")]
    [TestCase("--log-level", "'loud': choose one of off, error, warn, info, debug, trace", "run", "--kernel", "k", "--log-level", "loud")]
    public void Run_WrongUsage_IsOneLineThatNamesIt(string name, string value, params string[] args)
    {
        (int exit, string output, string error) = Run(args);
        Assert.That(exit, Is.EqualTo(ExitCode.Usage));
        Assert.That(output, Is.Empty);
        Assert.That(error, Does.StartWith("vmm: ").And.EndsWith("\n").And.Contain(name));
        Assert.That(error.Replace(" is not allowed", "", StringComparison.Ordinal), Does.Contain(value));
        Assert.That(error.Count(c => c == '\n'), Is.EqualTo(1));
    }

    [Test]
    public void Run_OptionGivenTwice_NamesIt([Values("kernel", "initramfs", "cmdline", "cpus", "memory", "serial", "on-reboot", "on-panic",
        "decompress", "kernel-cache", "entry", "log-level")] string option)
    {
        string[] kernel = option == "kernel" ? [] : ["--kernel", "k"];
        (int exit, _, string error) = Run(["run", .. kernel, "--" + option, "1", "--" + option, "1"]);
        Assert.That(exit, Is.EqualTo(ExitCode.Usage));
        Assert.That(error, Is.EqualTo($"vmm: --{option}: given more than once (see vmm run --help)\n"));
    }

    [Test]
    public void Report_VmmException_IsOneLineAndFailure() =>
        Assert.That(Report(new VmmException("no\nluck")), Is.EqualTo((ExitCode.Failure, "vmm: no\\nluck\n")));

    [Test]
    public void Report_UnexpectedException_SaysItIsABug()
    {
        Logging.Start(NLog.LogLevel.Warn);
        (int exit, string error) = Report(new InvalidOperationException("oops"));
        Assert.That(exit, Is.EqualTo(ExitCode.Failure));
        Assert.That(error, Is.EqualTo(
            "vmm: InvalidOperationException: oops: this is a bug; run again with --log-level debug for the stack trace\n"));
    }

    [Test]
    public void Report_UnexpectedExceptionAtDebug_AddsTheStackTrace()
    {
        Logging.Start(NLog.LogLevel.Debug);
        try
        {
            Assert.That(Report(new InvalidOperationException("oops")).Error, Does.Contain("\nSystem.InvalidOperationException: oops\n   at "));
        }
        finally
        {
            Logging.Start(NLog.LogLevel.Warn);
        }
    }

    private static (int Exit, string Output, string Error) Run(string[] args)
    {
        using var output = new StringWriter { NewLine = "\n" };
        using var error = new StringWriter { NewLine = "\n" };
        int exit = Program.Run(args, output, error);
        return (exit, output.ToString(), error.ToString());
    }

    private static (int Exit, string Error) Report(Exception exception)
    {
        using var error = new StringWriter { NewLine = "\n" };
        try
        {
            throw exception;
        }
        catch (Exception e)
        {
            return (Program.Report(e, error), error.ToString());
        }
    }
}
