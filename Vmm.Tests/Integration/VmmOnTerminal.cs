using System.Diagnostics;
using NUnit.Framework;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Integration;

/// <summary>A vmm that runs on a terminal of its own, at which the test sits.</summary>
internal sealed class VmmOnTerminal : IDisposable
{
    private readonly PseudoTerminal _terminal = new();
    private readonly OutputCapture _screen;
    private readonly string _before;
    private readonly Process _process;

    /// <summary>Starts vmm as the leader of a session of its own, which makes the first terminal it opens its controlling one.</summary>
    public VmmOnTerminal(params string[] arguments)
        : this("2>&1", arguments)
    {
    }

    private VmmOnTerminal(string redirection, string[] arguments)
    {
        _before = _terminal.Attributes;
        _screen = new OutputCapture(_terminal.Read, start: true);
        _process = Process.Start("setsid",
            ["sh", "-c", $"exec \"$@\" < \"$0\" > \"$0\" {redirection}", _terminal.Name, .. VmmProcess.Command, .. arguments]);
    }

    /// <summary>The same, whose standard error is a file.</summary>
    public static VmmOnTerminal WithErrorsIn(string file, params string[] arguments) => new($"2> '{file}'", arguments);

    /// <summary>Its process id.</summary>
    public int Id => _process.Id;

    /// <summary>All that has been on the screen so far.</summary>
    public string Screen => _screen.Text;

    /// <summary>Whether keys are passed on as they are typed, unseen.</summary>
    public bool IsRaw => _terminal.IsRaw;

    /// <summary>Types.</summary>
    public void Type(params ReadOnlySpan<byte> keys) => _terminal.Write(keys);

    /// <summary>Makes it another size, of which vmm is told.</summary>
    public void Resize(ushort rows, ushort columns) => _terminal.SetSize(rows, columns);

    /// <summary>Unplugs the terminal.</summary>
    public void HangUp() => _terminal.HangUp();

    /// <summary>Waits until <paramref name="text"/> has been on the screen <paramref name="times"/> times.</summary>
    public void WaitForScreen(string text, int times = 1) =>
        Assert.That(_screen.WaitFor(text, times, VmmProcess.Deadline), Is.True, $"\"{text}\" is not on the screen:\n{Screen}");

    /// <summary>Waits for the end of vmm, with <paramref name="status"/> and with the terminal as it was before.</summary>
    public void WaitForEnd(int status)
    {
        WaitForExit(status);
        Assert.That(_terminal.Attributes, Is.EqualTo(_before), "the terminal's settings");
    }

    /// <summary>The same, where there may be no terminal any more.</summary>
    public void WaitForExit(int status)
    {
        Assert.That(_process.WaitForExit(VmmProcess.Deadline), Is.True, $"vmm did not end:\n{Screen}");
        Assert.That(_process.ExitCode, Is.EqualTo(status), Screen);
    }

    /// <summary>Kills it if it still runs, and takes the terminal away.</summary>
    public void Dispose()
    {
        _process.KillAndWait("vmm, which was killed,");
        _process.Dispose();
        _terminal.HangUp();
        bool ended = _screen.WaitForEnd(VmmProcess.Deadline);
        _terminal.Dispose();
        Assert.That(ended, Is.True, "the terminal's reader did not end");
    }
}
