using System.Diagnostics;
using System.Globalization;
using NUnit.Framework;
using Tmds.Linux;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Integration;

/// <summary>vmm on a terminal: raw while the guest runs, and as it was before on every way out.</summary>
public class TerminalTests : KvmTest
{
    private const byte CtrlA = 1;
    private const byte CtrlC = 3;
    private const byte CtrlD = 4;

    [TestCase("hello", "", 0)]
    [TestCase("halt", "", 0)]
    [TestCase("panic", "", 3)]
    [TestCase("badinsn", "", 1)]
    [TestCase("hello", "--cpus nonsense", 2)]
    [TestCase("hello", "--initramfs /nowhere/initramfs", 1)]
    public void Ends_ByItself_RestoresTheTerminal(string payload, string options, int status)
    {
        StartOnTerminal(payload, options.Split(' ', StringSplitOptions.RemoveEmptyEntries)).WaitForEnd(status);
    }

    [Test]
    public void Screen_GuestWrites_ShowsThatOnly()
    {
        const string line = "hello from the guest\r\n";
        VmmOnTerminal vmm = StartOnTerminal("hello");

        vmm.WaitForEnd(0);
        vmm.WaitForScreen(line);
        // Run by the JIT, the option parser's look at the window's width makes the runtime set up the keypad first.
        Assert.That(vmm.Screen, VmmProcess.IsNative ? Is.EqualTo(line) : Does.EndWith(line));
    }

    [TestCase("SIGTERM")]
    [TestCase("SIGINT")]
    [TestCase("SIGHUP")]
    [TestCase("SIGQUIT")]
    [TestCase("SIGABRT")]
    [TestCase("SIGUSR2")]
    public void Ends_BySignal_RestoresTheTerminal(string name)
    {
        int signal = name switch
        {
            "SIGTERM" => LibC.SIGTERM,
            "SIGINT" => LibC.SIGINT,
            "SIGQUIT" => LibC.SIGQUIT,
            "SIGABRT" => LibC.SIGABRT,
            "SIGUSR2" => LibC.SIGUSR2,
            _ => LibC.SIGHUP,
        };
        VmmOnTerminal vmm = StartOnTerminal("spin");
        vmm.WaitForScreen("spin");
        Assert.That(vmm.IsRaw, Is.True);

        Assert.That(LibC.kill(vmm.Id, signal), Is.Zero);

        vmm.WaitForEnd(128 + signal);
    }

    [Test]
    public void Ends_ByCtrlAX_RestoresTheTerminal()
    {
        VmmOnTerminal vmm = StartOnTerminal("spin");
        vmm.WaitForScreen("spin");

        vmm.Type(CtrlA, (byte)'x');

        vmm.WaitForEnd(0);
    }

    // The end of a device waits up to 5 s for its back-end.
    [Test]
    public void Ends_ByCtrlAXWhileABackendDoesNotStop_TakesAMoment()
    {
        string path = Path.Combine(Scratch, "rng");
        using FakeBackend backend = new FakeBackend(path)
        {
            Features = VirtioFeatures.Version1 | VirtioFeatures.VhostUserProtocolFeatures | 5,
            Script = (message, _) => message.Header.Request == (uint)VhostUserRequest.GetVringBase,
        }.Start();
        VmmOnTerminal vmm = StartOnTerminal("virtio", "--vhost-user", $"type=rng,socket={path}");
        vmm.WaitForScreen("status 0xf");

        vmm.Type(CtrlA, (byte)'x');
        long start = Stopwatch.GetTimestamp();
        Eventually.True(() => backend.All(1, VhostUserRequest.GetVringBase).Length > 0, () => vmm.Screen);
        vmm.WaitForEnd(0);
        Assert.That(Stopwatch.GetElapsedTime(start), Is.LessThan(TimeSpan.FromSeconds(4)));
    }

    [Test]
    public void Resets_TerminalStaysRaw_UntilTheEnd()
    {
        VmmOnTerminal vmm = StartOnTerminal("reset", "--cmdline", "acpi");
        vmm.WaitForScreen("start");
        vmm.Type((byte)'r');
        vmm.WaitForScreen("start", times: 2);
        Assert.That(vmm.IsRaw, Is.True);
        vmm.Type((byte)'p');

        vmm.WaitForEnd(0);
    }

    [Test]
    public void HangUp_TerminalGone_EndsTheRun()
    {
        VmmOnTerminal vmm = StartOnTerminal("spin");
        vmm.WaitForScreen("spin");

        vmm.HangUp();

        vmm.WaitForExit(128 + LibC.SIGHUP);
    }

    [Test]
    public void Keys_CtrlC_GoesToTheGuest()
    {
        VmmOnTerminal vmm = StartOnTerminal("echo");
        vmm.WaitForScreen("ready");

        vmm.Type((byte)'a', CtrlC, (byte)'b');
        vmm.WaitForScreen("a\x03" + "b");
        vmm.Type(CtrlD);

        vmm.WaitForScreen("bytes: 0x3");
        vmm.WaitForEnd(0);
    }

    [Test]
    public void Keys_CtrlA_IsTheVmmsOwn()
    {
        VmmOnTerminal vmm = StartOnTerminal("echo");
        vmm.WaitForScreen("ready");

        vmm.Type(CtrlA, (byte)'h');
        vmm.WaitForScreen("Ctrl-A x");
        vmm.Type(CtrlA, (byte)'a');
        vmm.WaitForScreen("\x01");
        vmm.Type(CtrlD);

        vmm.WaitForScreen("bytes: 0x1");
        vmm.WaitForEnd(0);
    }

    // By the key that is ours, by the signal of the terminal's stop character, and by one that nobody can handle.
    [TestCase("Ctrl-A z")]
    [TestCase("SIGTSTP")]
    [TestCase("SIGSTOP")]
    public void Stop_InAShell_IsRawAgainInTheForeground(string how)
    {
        if (!File.Exists("/bin/bash"))
            Assert.Ignore("bash is missing");
        string pid = Path.Combine(Scratch, "pid");
        string command = string.Join(' ', VmmProcess.Command.Select(word => $"'{word}'"));
        using var shell = new ShellOnTerminal();
        shell.Type($"sh -c 'echo $$ > {pid}.part; mv {pid}.part {pid}; exec \"$@\"' sh {command} run --kernel '{Payloads.Path("echo")}'\n");
        shell.WaitForScreen("ready");
        int process = int.Parse(File.ReadAllText(pid), CultureInfo.InvariantCulture);
        Assert.That(() => shell.IsRaw, Is.True.After(Patience, 10), "raw at the start");

        for (int i = 1; i <= 2; i++)
        {
            if (how == "Ctrl-A z")
                shell.Type("\x01z");
            else
                Assert.That(LibC.kill(process, how == "SIGTSTP" ? LibC.SIGTSTP : LibC.SIGSTOP), Is.Zero);
            shell.WaitForScreen("Stopped", times: i);
            shell.Type($"echo shell-{i}-$((40 + 2))\n");
            shell.WaitForScreen($"shell-{i}-42");
            shell.Type("fg\n");
            Assert.That(() => shell.IsRaw && ProcFs.State(process) != 'T', Is.True.After(Patience, 10), $"raw after fg {i}:\n{shell.Screen}");
            shell.Type($"key-{i}\r");
            shell.WaitForScreen($"key-{i}\r");
        }
        shell.Type("\x04");
        shell.WaitForScreen("bytes: 0xc");
        Assert.That(() => shell.IsRaw, Is.False.After(Patience, 10), "the shell's again at the end");
        shell.Type("echo status-$?\n");
        shell.WaitForScreen("status-0");
    }

    private const int Patience = 60_000;   // milliseconds

    private VmmOnTerminal StartOnTerminal(string payload, params string[] options) =>
        Keep(new VmmOnTerminal(["run", "--kernel", Payloads.Path(payload), .. options]));
}
