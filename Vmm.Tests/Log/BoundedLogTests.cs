using System.Diagnostics;
using System.Reflection;
using NLog;
using NLog.Config;
using NLog.Targets;
using NUnit.Framework;
using Vmm.Vhost;

namespace Vmm.Tests.Log;

public sealed class BoundedLogTests
{
    private static readonly long s_second = Stopwatch.Frequency;

    [Test]
    public void TryTake_OneKindWithoutEnd_IsBoundedAndLeavesTheOthersTheirShare()
    {
        var budget = new LineBudget();
        int count = Enumerable.Range(0, 100_000).Count(_ => budget.TryTake("log", "a ring broke", s_second, out long _));
        Assert.That(count, Is.EqualTo(30));
        Assert.That(budget.TryTake("log", "another", s_second, out long leftOut));
        Assert.That(leftOut, Is.EqualTo(100_000 - 30));
        Assert.That(budget.TryTake("log", "another", s_second, out leftOut));
        Assert.That(leftOut, Is.Zero, "told once");
    }

    [Test]
    public void TryTake_ManyKinds_AreBoundedTogether()
    {
        var budget = new LineBudget();
        Assert.That(Enumerable.Range(0, 10_000).Count(i => budget.TryTake("log", $"kind {i % 100}", s_second, out long _)), Is.EqualTo(120));
    }

    [Test]
    public void TryTake_AllIsUsedUp_TheFirstLineOfAKindIsWrittenAllTheSame()
    {
        var budget = new LineBudget();
        for (int i = 0; i < 10_000; i++)
            budget.TryTake("log", $"kind {i % 100}", s_second, out long _);
        Assert.That(budget.TryTake("log", "the disk is gone", s_second, out long _));
        Assert.That(budget.TryTake("log", "the disk is gone", s_second, out long _), Is.False, "only the first");
        Assert.That(budget.TryTake("another log", "the disk is gone", s_second, out long _), "another's kind");
        Assert.That(budget.TryTake("log", "kind 1", 2 * s_second, out long _), "the total is not below nothing");
    }

    [Test]
    public void TryTake_TimePasses_GivesMore()
    {
        var budget = new LineBudget();
        for (int i = 0; i < 40; i++)
            budget.TryTake("log", "a", s_second, out long _);
        Assert.That(budget.TryTake("log", "a", 5 * s_second, out long _), Is.False);
        Assert.That(budget.TryTake("log", "a", 6 * s_second, out long leftOut));
        Assert.That(leftOut, Is.EqualTo(11));
        Assert.That(budget.TryTake("log", "a", 7 * s_second, out long _), Is.False);
        Assert.That(Enumerable.Range(0, 100).Count(_ => budget.TryTake("log", "a", 10_000 * s_second, out long _)), Is.EqualTo(30), "no more than at first");
    }

    [Test]
    public void Warn_ManyTimes_SaysHowManyWereLeftOut()
    {
        using var factory = new LogFactory();
        using var lines = new MemoryTarget { Layout = "${message}" };
        var configuration = new LoggingConfiguration(factory);
        configuration.AddRule(LogLevel.Debug, LogLevel.Fatal, lines);
        factory.Configuration = configuration;
        var log = new BoundedLog(factory.GetLogger("test"), new LineBudget());
        for (int i = 0; i < 1000; i++)
            log.Warn("ring {Ring} broke", i);
        Assert.That(lines.Logs, Has.Count.EqualTo(30));
        for (int i = 0; i < 1000; i++)
            log.Debug("ring {Ring} broke", i);
        Assert.That(lines.Logs, Has.Count.EqualTo(1030));
    }

    // A place that logs by itself would be one that a guest or a peer can flood.
    [TestCase(typeof(BoundedLog))]
    [TestCase(typeof(global::Vmm.Devices.Virtio.VirtioDevice))]
    [TestCase(typeof(global::Vmm.Machine.MachineConfig))]
    public void Loggers_OfAnAssembly_AreBounded(Type one) => Assert.That(
        one.Assembly.GetTypes()
            .Where(type => type != typeof(BoundedLog))
            .SelectMany(type => type.GetFields(BindingFlags.Static | BindingFlags.Instance | BindingFlags.NonPublic | BindingFlags.Public | BindingFlags.DeclaredOnly))
            .Where(field => typeof(ILogger).IsAssignableFrom(field.FieldType))
            .Select(field => $"{field.DeclaringType}.{field.Name}"),
        Is.Empty);
}
