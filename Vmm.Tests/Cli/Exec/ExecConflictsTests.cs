using System.Reflection;
using CommandLine;
using NUnit.Framework;
using Vmm.Cli;
using Vmm.Cli.Exec;
using Vmm.Guest;

namespace Vmm.Tests.Cli.Exec;

public sealed class ExecConflictsTests
{
    // What has a meaning for one more command in a guest that runs.
    private static readonly string[] s_ofCommand =
        ["attach", "env", "user", "workdir", "tty", "no-tty", "timeout", "quiet", "sandbox", "log-level"];

    private static IEnumerable<PropertyInfo> Options => typeof(ExecOptions).GetProperties().Where(property => NameOf(property) is not null);

    [Test]
    public void Check_AttachAndEachOption_GoTogetherOnlyWhereItIsOfTheCommand()
    {
        foreach (PropertyInfo property in Options)
        {
            var options = new ExecOptions { Attach = "it" };
            property.SetValue(options, property.PropertyType == typeof(bool) ? true : "x");
            string name = NameOf(property)!;

            if (s_ofCommand.Contains(name))
                Assert.That(() => ExecConflicts.Check(options), Throws.Nothing, name);
            else
                Assert.That(() => ExecConflicts.Check(options), Throws.TypeOf<UsageException>().With.Message.EqualTo($"--attach and --{name} cannot stand together: the guest runs already"), name);
        }
    }

    [Test]
    public void Check_EachOptionAlone_IsAllowed()
    {
        foreach (PropertyInfo property in Options.Where(property => NameOf(property) != "report"))
        {
            var options = new ExecOptions();
            property.SetValue(options, property.PropertyType == typeof(bool) ? true : "x");

            Assert.That(() => ExecConflicts.Check(options), Throws.Nothing, NameOf(property));
        }
    }

    [TestCase("--matrix and --name cannot", "--matrix", "--name", "x")]
    [TestCase("--matrix and --dmesg FILE cannot", "--matrix", "--dmesg", "x")]
    [TestCase("--matrix and --port cannot", "--matrix", "--port", "1:1")]
    [TestCase("--matrix and --only cannot", "--matrix", "--only", "x")]
    [TestCase("--matrix and --dry-run cannot", "--matrix", "--dry-run")]
    [TestCase("--matrix and --no-config cannot", "--matrix", "--no-config")]
    [TestCase("--only and --no-config cannot", "--only", "x", "--no-config")]
    [TestCase("--config and --no-config cannot", "--config", "x", "--no-config")]
    [TestCase("--rw and --overlay cannot", "--rw", "--overlay", "1G")]
    [TestCase("--quiet and --verbose cannot", "--quiet", "--verbose")]
    [TestCase("--tty and --no-tty cannot", "--tty", "--no-tty")]
    [TestCase("--report: has no effect", "--report", "x")]
    public void Check_WhatContradictsItself_IsRefused(string problem, params string[] args) =>
        Assert.That(() => ExecConflicts.Check((ExecOptions)Verbs.Parse(["exec", .. args])), Throws.TypeOf<UsageException>().With.Message.StartsWith(problem));

    [TestCase("--matrix", "--dmesg", "-", "--report", "x", "--config", "y")]
    [TestCase("--only", "x", "--dry-run", "--name", "y")]
    public void Check_WhatGoesTogether_IsAllowed(params string[] args) =>
        Assert.That(() => ExecConflicts.Check((ExecOptions)Verbs.Parse(["exec", .. args])), Throws.Nothing);

    [Test]
    public void Report_CommandInAGuestThatRunsIsLeft_SaysThatTheGuestGoesOn()
    {
        using var errors = new StringWriter();
        var report = new ExecReport(new GuestCommand(), isQuiet: true, null, null) { Errors = errors };

        Assert.That(report.Tell(null, new CommandEnd(CommandEndKind.Left)), Is.EqualTo(ExitCode.ExecFailure));
        Assert.That(errors.ToString(), Is.EqualTo("vmm: left by Ctrl-]: the command is killed, and the guest goes on\n"));
    }

    private static string? NameOf(PropertyInfo property) => property.GetCustomAttribute<OptionAttribute>()?.LongName;
}
