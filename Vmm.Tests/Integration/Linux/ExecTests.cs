using System.Diagnostics;
using System.Security.Cryptography;
using NUnit.Framework;
using Tmds.Linux;

namespace Vmm.Tests.Integration.Linux;

/// <summary><c>vmm exec</c>, by real guests with Debian's cloud kernel and this machine's files.</summary>
public class ExecTests : LinuxTest
{
    private static readonly string[] s_kernel =
    [
        "exec", "--kernel", LinuxGuest.Artifact("kernels", "cloud", "vmlinuz"), "--modules", LinuxGuest.Artifact("kernels", "cloud", "root"),
        "--cmdline", LinuxHost.GuestOptions,
    ];

    [Test]
    public void Exec_Command_HasItsStreamsAndStatus()
    {
        VmmResult result = Exec("some input", [], "sh", "-c", "cat; uname -r; echo to stderr >&2; exit 7");

        Assert.That(result, Is.EqualTo(new VmmResult(7, $"some input{new LinuxGuest().Release}\n", "to stderr\n")));
    }

    [Test]
    public void Exec_Guest_IsAsItShouldBe()
    {
        VmmResult result = Exec("", ["--workdir", "/usr", "--env", "A=b c", "--user", "nobody"], "sh", "-c", """
            echo "$(pwd)|$A|$(id -un)|$(hostname)"
            cat /sys/class/net/lo/operstate
            awk '$2 ~ "^(/|/proc|/sys|/dev|/dev/pts|/dev/shm|/run|/tmp|/sys/fs/cgroup)$" { print $2, $3 }' /proc/mounts | sort
            cat /proc/self/cgroup
            touch /tmp/x && echo hello > /dev/stderr
            test -t 0 || echo no terminal
            """);

        Assert.That(result.Output, Does.StartWith("/usr|b c|nobody|vmm\nunknown\n"), result.Summary);
        Assert.That(result.Output, Does.Contain("""
            / overlay
            /dev devtmpfs
            /dev/pts devpts
            /dev/shm tmpfs
            /proc proc
            /run tmpfs
            /sys sysfs
            /sys/fs/cgroup cgroup2
            /tmp tmpfs
            0::/exec-
            """));
        Assert.That(result.Output, Does.EndWith("no terminal\n"));
        Assert.That(result.Errors, Is.EqualTo("hello\n"));
    }

    [Test]
    public void Exec_WhatIsWritten_StaysInTheGuestUnlessBound()
    {
        string bound = Directory.CreateDirectory(Path.Combine(Scratch, "bound")).FullName, unbound = Path.Combine("/var", $"vmm-test-{Guid.NewGuid():N}");
        File.WriteAllText(Path.Combine(bound, "in"), "from the host\n");

        VmmResult result = Exec("", ["--bind", bound, "--bind", $"{bound}:/mnt/again"], "sh", "-c",
            $"cat {bound}/in; echo x > {unbound} && cat {unbound} && rm /etc/hostname && echo from the guest > /mnt/again/out");

        Assert.That(result, Is.EqualTo(new VmmResult(0, "from the host\nx\n", "")));
        Assert.That(File.Exists(unbound), Is.False);
        Assert.That(File.Exists("/etc/hostname"), Is.True);
        Assert.That(File.ReadAllText(Path.Combine(bound, "out")), Is.EqualTo("from the guest\n"));
    }

    [Test]
    public void Exec_MuchData_ComesBackUnchanged()
    {
        string input = Path.Combine(Scratch, "input");
        byte[] data = new byte[LinuxHost.IsEmulated ? 20_000_001 : 100_000_001];
        RandomNumberGenerator.Fill(data);
        File.WriteAllBytes(input, data);
        string output = Path.Combine(Scratch, "output");

        using Process shell = Process.Start("sh", ["-c", "input=$1 output=$2; shift 2; exec \"$@\" < \"$input\" > \"$output\"", "sh", input, output,
            .. VmmProcess.Command, .. s_kernel, "--", "cat"])!;
        Assert.That(shell.WaitForExit(VmmProcess.Deadline), Is.True);

        Assert.That(shell.ExitCode, Is.Zero);
        Assert.That(SHA256.HashData(File.ReadAllBytes(output)), Is.EqualTo(SHA256.HashData(data)));
    }

    [Test]
    public void Exec_CommandThatCannotRun_IsToldAsAShellDoes()
    {
        Assert.That(Exec("", [], "no-such-command"), Is.EqualTo(
            new VmmResult(127, "", "vmm: cannot run no-such-command: No such file or directory\n")));
    }

    [Test]
    public void Exec_SignalToTheVmm_GoesToTheCommand()
    {
        VmmProcess process = Start([], "sh", "-c", "trap 'echo told; exit 5' TERM; echo ready; while :; do sleep 0.1; done");
        process.WaitForOutput("ready");
        process.Signal(LibC.SIGTERM);
        VmmResult result = process.WaitForEnd();

        Assert.That(result, Is.EqualTo(new VmmResult(5, "ready\ntold\n", "")));
    }

    [Test]
    public void Exec_SecondSigterm_EndsTheGuestAndLeavesNothing()
    {
        VmmProcess process = Start([], "sh", "-c", "trap 'echo told' TERM; echo ready; while :; do sleep 0.1; done");
        process.WaitForOutput("ready");
        process.Signal(LibC.SIGTERM);
        process.WaitForOutput("told");
        process.Signal(LibC.SIGTERM);
        VmmResult result = process.WaitForEnd();

        Assert.That(result, Is.EqualTo(new VmmResult(128 + LibC.SIGTERM, "ready\ntold\n", "")));
        Assert.That(ProcFs.ProcessesWithEnvironment(VmmProcess.Mark), Is.Empty, "processes are left");
        Assert.That(Directory.GetFileSystemEntries(Temporary), Is.Empty, "files are left");
    }

    [Test]
    public void Exec_Panic_IsToldWithItsTrace()
    {
        VmmResult result = Exec("", [], "sh", "-c", "echo c > /proc/sysrq-trigger");

        Assert.That(result.ExitCode, Is.EqualTo(125), result.Summary);
        Assert.That(result.Errors, Does.StartWith(
            "vmm: the guest's kernel panicked before sh had ended: Kernel panic - not syncing: sysrq triggered crash\n").And.Contain("Call Trace:"));
        Assert.That(Directory.GetFileSystemEntries(Temporary), Is.Empty, "files are left");
    }

    [Test]
    public void Exec_PanicBeforeInit_IsTold()
    {
        VmmResult result = Exec("", ["--cmdline", $"{LinuxHost.GuestOptions} rdinit=/none root=/dev/none", "--quiet"], "true");

        Assert.That(result.ExitCode, Is.EqualTo(125), result.Summary);
        Assert.That(result.Errors, Does.Match(
            "\\Avmm: the guest's kernel panicked before true had ended: Kernel panic - not syncing: VFS: Unable to mount root fs[^\n]*\n\\z"));
    }

    [Test]
    public void Exec_PowerOffInside_IsTold()
    {
        VmmResult result = Exec("", ["--quiet"], "sh", "-c", "echo o > /proc/sysrq-trigger; sleep 100");

        Assert.That(result, Is.EqualTo(new VmmResult(125, "", "vmm: the guest powered off before sh had ended\n")));
    }

    [Test]
    public void Exec_LongerThanItMay_TimesOut()
    {
        VmmResult result = Exec("", ["--timeout", "30s", "--quiet"], "sleep", "1000");

        Assert.That(result, Is.EqualTo(new VmmResult(124, "", "vmm: sleep took longer than 30 s (--timeout)\n")));
    }

    [Test]
    public void Exec_OnATerminal_CommandHasOne()
    {
        using var terminal = new VmmOnTerminal([.. s_kernel, "--", "sh", "-c", "test -t 0 && test -t 1 && test -t 2 && echo a terminal; read -r line; echo \"got $line\"; cat"]);
        terminal.WaitForScreen("a terminal\r\n");
        Assert.That(terminal.IsRaw, Is.True);
        terminal.Type("typed\r"u8);
        terminal.WaitForScreen("typed\r\ngot typed\r\n");
        terminal.Type("\x03"u8);
        terminal.WaitForEnd(128 + LibC.SIGINT);
    }

    [Test]
    public void Exec_GuestWithoutMemory_IsTold()
    {
        VmmResult result = Exec("", ["--memory", "192M"], "sh", "-c", "exec tail -c 1G /dev/zero");

        Assert.That(result, Is.EqualTo(new VmmResult(125, "", "vmm: the guest ran out of memory, and its kernel killed the command: raise --memory\n")));
    }

    private VmmResult Exec(string input, string[] options, params string[] command)
    {
        VmmProcess process = Start(options, command);
        process.Send(System.Text.Encoding.UTF8.GetBytes(input));
        process.EndInput();
        return process.WaitForEnd();
    }

    private VmmProcess Start(string[] options, params string[] command) =>
        StartVmm([.. options.Contains("--cmdline") ? s_kernel[..^2] : s_kernel, .. options, "--", .. command]);
}
