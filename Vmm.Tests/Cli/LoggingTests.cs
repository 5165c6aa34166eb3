using NLog;
using NUnit.Framework;
using Vmm.Cli;
using Vmm.Vhost;

namespace Vmm.Tests.Cli;

[NonParallelizable]   // the log level is one for the process
public class LoggingTests
{
    [TearDown]
    public void Restore() => Logging.Start(LogLevel.Warn);

    [Test]
    public void Start_LoggerMadeEarlier_FollowsTheLevel()
    {
        var early = new BoundedLog("Vmm.Tests.Early");
        Logging.Start(LogLevel.Info);
        Assert.That(early.IsDebugEnabled, Is.False);
        Logging.Start(LogLevel.Debug);
        Assert.That(early.IsDebugEnabled, Is.True);
        Logging.Start(LogLevel.Off);
        Assert.That(early.IsDebugEnabled, Is.False);
    }

    [Test]
    public void Defer_LinesBelowTheLevel_SetNothingUp()
    {
        int setUps = 0;
        LogSetup.Defer(LogLevel.Warn, () => setUps++);
        var log = new BoundedLog("Vmm.Tests.Deferred");
        log.Debug("below");
        log.Info("below");
        Assert.That(setUps, Is.Zero);
        log.Warn("the first one");
        log.Warn("and another one");
        Assert.That(setUps, Is.EqualTo(1));
    }

    [Test]
    public void Format_Event_IsOneLineWithLevelAndSource()
    {
        var logEvent = new LogEventInfo(LogLevel.Warn, "Vmm.Devices.Bus", null, "{Count} of\n{Name}", [3, "x"]);
        Assert.That(StandardErrorTarget.Format(logEvent), Is.EqualTo("vmm: warn: Vmm.Devices.Bus: 3 of\\nx"));
    }

    [Test]
    public void Format_EventWithException_AddsItsMessage()
    {
        var logEvent = new LogEventInfo(LogLevel.Error, "A", "lost") { Exception = new IOException("gone") };
        Assert.That(StandardErrorTarget.Format(logEvent), Is.EqualTo("vmm: error: A: lost: IOException: gone"));
    }

    [TestCase("plain", "plain")]
    [TestCase("a\nb\tc", "a\\nb\\tc")]
    [TestCase("\u001b[2J", "\\x1b[2J", TestName = "{m}(an escape sequence)")]
    [TestCase("ü\u0085", "ü\\x85")]
    public void OneLine_ControlCharacters_AreEscaped(string text, string expected) => Assert.That(OneLine.Of(text), Is.EqualTo(expected));
}
