using System.Text;
using NUnit.Framework;
using Vmm.Serial;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Serial;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class TtySerialTerminalTests : IDisposable
{
    private readonly PseudoTerminal _pty = new();
    private readonly string _before;
    private readonly TtySerial _serial;
    private readonly SerialGuest _guest;
    private int _quits;

    public TtySerialTerminalTests()
    {
        _before = _pty.Settings();
        _serial = new TtySerial(_pty.Terminal, _pty.Terminal, () => _quits++);
        _guest = new SerialGuest(_serial);
    }

    public void Dispose()
    {
        _guest.Dispose();
        _serial.Dispose();
        _pty.Dispose();
    }

    private string ReadScreen(string until)
    {
        var screen = new StringBuilder();
        byte[] chunk = new byte[256];
        while (!screen.ToString().Contains(until, StringComparison.Ordinal))
        {
            Span<PollEntry> entries = [new(_pty.User, PollEvents.Readable)];
            Assert.That(Poll.Wait(entries, 30_000), Is.Positive, $"the screen shows: {screen}");
            screen.Append(Encoding.Latin1.GetString(chunk, 0, _pty.User.TryRead(chunk)));
        }
        return screen.ToString();
    }

    [Test]
    public void Start_Terminal_IsRawWithOutputProcessingAsItWas()
    {
        string raw = _pty.Settings();
        foreach (string off in new[] { "-icanon", "-echo", "-isig", "-iexten", "-icrnl", "-ixon" })
            Assert.That(raw, Does.Contain(off));
        Assert.That(raw, Does.Contain(" opost").Or.Contain("\nopost"));
        Assert.That(raw, Does.Contain("min = 1; time = 0"));
    }

    [Test]
    public void Dispose_Terminal_IsAsBefore()
    {
        Assert.That(_pty.Settings(), Is.Not.EqualTo(_before));
        _serial.Dispose();
        Assert.That(_pty.Settings(), Is.EqualTo(_before));
        _serial.Dispose();
        Assert.That(_pty.Settings(), Is.EqualTo(_before));
    }

    [Test]
    public void Type_ControlKeys_GoToTheGuest()
    {
        _pty.User.TryWrite("\u0003\u0004\u001a\u001c\u0013\u0011\r\u0001\u0001\u0001aend"u8);
        Assert.That(_guest.WaitForInput("end"), Is.EqualTo("\u0003\u0004\u001a\u001c\u0013\u0011\r\u0001\u0001end"));
        Assert.That(_quits, Is.Zero);
    }

    [Test]
    public void Type_CtrlAX_Quits()
    {
        _pty.User.TryWrite("ab\u0001xend"u8);
        _guest.WaitForInput("abend");
        Assert.That(_quits, Is.EqualTo(1));
    }

    [Test]
    public void Type_CtrlAXWhileTheGuestReadsNothing_Quits()
    {
        _guest.Uart.Reset();   // hangs
        _pty.User.TryWrite(Encoding.ASCII.GetBytes(new string('k', 1000)));
        _pty.User.TryWrite("\u0001x"u8);
        Eventually.True(() => _quits == 1, () => "not seen");
    }

    // More than the port and the buffer behind it hold, and the terminal's own.
    [Test]
    public void Type_CtrlAXBehindMoreThanAHungGuestTakes_Quits()
    {
        _guest.Uart.Reset();
        for (int i = 0; i < 12; i++)
            TypeAll(new string('k', 1000));
        TypeAll("\u0001x");
        Eventually.True(() => _quits == 1, () => "not seen");
        TypeAll("\u0001");
        TypeAll("x");
        Eventually.True(() => _quits == 2, () => "not seen the second time");
    }

    // As long as the guest reads, nothing is dropped.
    [Test]
    public void Type_MoreThanTheBufferToAGuestThatReads_ArrivesWhole()
    {
        string text = string.Concat(Enumerable.Range(0, 4000).Select(i => $"{i:x4} ")) + "end";
        Task typing = Task.Run(() => TypeAll(text));
        Assert.That(_guest.WaitForInput("end"), Is.EqualTo(text));
        typing.Wait();
    }

    private void TypeAll(string text)
    {
        ReadOnlySpan<byte> left = Encoding.ASCII.GetBytes(text);
        while (!left.IsEmpty)
        {
            int count = _pty.User.TryWrite(left);
            Assert.That(count, Is.Positive);
            left = left[count..];
        }
    }

    [Test]
    public void Type_CtrlAH_PrintsHelpAndNotToTheGuest()
    {
        _pty.User.TryWrite("\u0001h"u8);
        Assert.That(ReadScreen("send Ctrl-A to the guest"), Does.Contain("leave"));
        Assert.That(_guest.Received(), Is.Empty);
    }

    [Test]
    public void Output_Terminal_ShowsWhatTheGuestSends()
    {
        _guest.Send("hello\r\n$ ");
        Assert.That(ReadScreen("$ "), Does.StartWith("hello\r"));
    }

    [Test]
    public void HangUp_Terminal_EndsInputWithoutSpinning()
    {
        _pty.User.Dispose();
        _guest.Send("x");
        Eventually.True(() => _serial.InputWakes > 0, () => "not noticed");
        _serial.Dispose();
        Assert.That(_serial.InputWakes, Is.LessThan(10));
    }
}
