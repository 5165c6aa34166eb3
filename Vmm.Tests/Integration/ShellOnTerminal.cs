using System.Diagnostics;
using System.Text;
using NUnit.Framework;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Integration;

/// <summary>An interactive bash on a terminal of its own, with job control, at which the test sits.</summary>
internal sealed class ShellOnTerminal : IDisposable
{
    private readonly PseudoTerminal _terminal = new();
    private readonly OutputCapture _screen;
    private readonly Process _process;

    /// <summary>Starts it as the leader of a session, whose controlling terminal is the first one that it opens.</summary>
    public ShellOnTerminal()
    {
        _screen = new OutputCapture(_terminal.Read, start: true);
        _process = Process.Start(
            "setsid", ["sh", "-c", "PS1='$ ' exec bash --norc --noprofile --noediting -i < \"$0\" > \"$0\" 2>&1", _terminal.Name]);
    }

    /// <summary>All that has been on the screen so far.</summary>
    public string Screen => _screen.Text;

    /// <summary>Whether keys are passed on as they are typed, unseen.</summary>
    public bool IsRaw => _terminal.IsRaw;

    /// <summary>Types.</summary>
    public void Type(string keys) => _terminal.Write(Encoding.Latin1.GetBytes(keys));

    /// <summary>Waits until <paramref name="text"/> has been on the screen <paramref name="times"/> times.</summary>
    public void WaitForScreen(string text, int times = 1) =>
        Assert.That(_screen.WaitFor(text, times, VmmProcess.Deadline), Is.True, $"\"{text}\" is not on the screen:\n{Screen}");

    /// <summary>Takes the terminal away, which ends the shell and its job.</summary>
    public void Dispose()
    {
        _terminal.HangUp();
        bool ended = _process.WaitForExit(VmmProcess.Deadline);
        if (!ended)
            _process.KillAndWait("the shell, which was killed,");
        _process.Dispose();
        _screen.WaitForEnd(VmmProcess.Deadline);
        _terminal.Dispose();
        Assert.That(ended, Is.True, "the shell did not end");
    }
}
