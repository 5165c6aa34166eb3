using NLog;
using NUnit.Framework;
using Vmm.Cli;
using Vmm.Vhost;
using Vmm.Vhost.Native;

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
    [TestCase("a\u202egnp.exe", "a\\u202egnp.exe", TestName = "{m}(the other direction)")]
    [TestCase("\u2066\u200d\u00ad\ufeff", "\\u2066\\u200d\\u00ad\\ufeff", TestName = "{m}(format)")]
    [TestCase("\U000e0041", "\\U000e0041", TestName = "{m}(a tag)")]
    [TestCase("a\u2028b\u2029", "a\\u2028b\\u2029", TestName = "{m}(separators)")]
    [TestCase("\U0001f427 日本 e\u0301", "\U0001f427 日本 e\u0301", TestName = "{m}(text)")]
    public void OneLine_ControlCharacters_AreEscaped(string text, string expected) => Assert.That(OneLine.Of(text), Is.EqualTo(expected));

    // A file name need not be text: a terminal takes the byte 0x9B for the start of a sequence.
    [Test]
    public void OneLine_BytesThatAreNoText_AreEscaped() =>
        Assert.That(OneLine.Of(ByteText.Decode([(byte)'a', 0x9B, (byte)'m']) + "\ud800"), Is.EqualTo("a\\x9bm\\ud800"));
}
