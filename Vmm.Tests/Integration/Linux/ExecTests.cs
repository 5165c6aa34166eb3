using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using NUnit.Framework;
using Tmds.Linux;
using Vmm.Guest;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration.Linux.Devices;

namespace Vmm.Tests.Integration.Linux;

/// <summary><c>vmm exec</c>, by real guests with Debian's cloud kernel and this machine's files.</summary>
public partial class ExecTests : LinuxTest
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
        string log = Path.Combine(Scratch, "kernel.log");
        VmmResult result = Exec("", ["--workdir", "/usr", "--env", "A=b c", "--user", "nobody:tty", "--dmesg", log], "sh", "-c", """
            echo "$(pwd)|$A|$(id -un):$(id -gn)|$(getent hosts "$(hostname)" | tr -s ' ')"
            cat /sys/class/net/lo/operstate
            awk '$2 ~ "^(/|/proc|/sys|/dev|/dev/pts|/dev/shm|/run|/tmp|/sys/fs/cgroup)$" { print $2, $3 }' /proc/mounts | sort
            cat /proc/self/cgroup
            touch /tmp/x && echo hello > /dev/stderr
            echo "files: $(ulimit -Sn) to $(ulimit -Hn)"
            test -t 0 || echo no terminal
            """);

        Assert.That(result.Output, Does.Contain("files: 1024 to 524288\n"), result.Summary);
        Assert.That(result.Output, Does.StartWith("/usr|b c|nobody:tty|127.0.1.1 vmm\nunknown\n"), result.Summary);
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
        Assert.That(File.ReadAllText(log), Does.Contain("Linux version "));
        Assert.That(result.Errors, Is.EqualTo("hello\n"));
    }

    [Test]
    public void Exec_Attach_IsAnotherCommandInTheSameGuest()
    {
        string name = $"test-{Guid.NewGuid():N}"[..20];
        VmmProcess first = Start(["--name", name], "sh", "-c", "echo first > /tmp/x; echo ready; read -r line; cat /tmp/x; exit 3");

        // It waits for the guest, which has not booted yet.
        VmmProcess second = StartHere("exec", "--attach", name, "--", "sh", "-c", "until test -e /tmp/x; do sleep 0.1; done; cat /tmp/x; hostname; echo second > /tmp/x; exit 4");
        second.EndInput();
        Assert.That(second.WaitForEnd(), Is.EqualTo(new VmmResult(4, $"first\n{name}\n", "")));
        VmmProcess third = StartHere("exec", "--attach", name, "--", "sh", "-c", "trap 'echo told' TERM; echo ready; while :; do sleep 0.1; done");
        third.WaitForOutput("ready");
        third.Signal(LibC.SIGTERM);
        third.WaitForOutput("told");
        Thread.Sleep(600);      // until then it is the same one
        third.Signal(LibC.SIGTERM);
        Assert.That(third.WaitForEnd(), Is.EqualTo(new VmmResult(128 + LibC.SIGTERM, "ready\ntold\n", "")));
        first.Send("go on\n"u8);
        Assert.That(first.WaitForEnd(), Is.EqualTo(new VmmResult(3, "ready\nsecond\n", "")));

        VmmProcess fourth = StartHere("exec", "--attach", name, "--", "true");
        Assert.That(fourth.WaitForEnd().ExitCode, Is.EqualTo(125));
    }

    [TestCase("1")]     // the guest itself (VMADDR_CID_LOCAL)
    [TestCase("3")]     // the guest's own number
    public void Exec_ConnectionToTheAgentFromInside_IsNotServed(string self)
    {
        string modules = LinuxGuest.Artifact("kernels", "cloud", "root", "lib", "modules", new LinuxGuest().Release, "kernel", "net", "vmw_vsock");
        string tool = LinuxGuest.Artifact("guest", "vsock"), name = $"test-{Guid.NewGuid():N}"[..20];
        VmmProcess first = Start(["--name", name, "--bind-ro", modules, "--bind-ro", Path.GetDirectoryName(tool)!], "sh", "-c",
            $"busybox insmod {modules}/vsock_loopback.ko && ({tool} echo 77 & {tool} connect {self} 77 1) && echo ready && read -r line");
        first.WaitForOutput("1 connections\nready");

        // An agent that serves it begins with HELLO, which is not what the tool has sent.
        VmmProcess second = StartHere("exec", "--attach", name, "--user", "nobody", "--", "sh", "-c", $"{tool} connect {self} 1024 1; echo tried");
        second.EndInput();
        VmmResult result = second.WaitForEnd();
        first.EndInput();
        first.WaitForEnd();

        Assert.That((result.ExitCode, result.Output), Is.EqualTo((0, "tried\n")), result.Summary);
        Assert.That(result.Errors, Does.Not.Contain("another answer"), result.Summary);
    }

    [Test]
    public void Exec_MatrixOfAFileThatWasFound_RunsAllTellsOfEachAndWritesNothing()
    {
        string report = Path.Combine(Scratch, "report.xml");
        File.WriteAllText(Path.Combine(Scratch, "vmm.toml"), $"""
            kernel = "{LinuxGuest.Artifact("kernels", "cloud", "vmlinuz")}"
            modules = "{LinuxGuest.Artifact("kernels", "cloud", "root")}"
            cmdline = "{LinuxHost.GuestOptions}"
            bind = ["."]
            [[matrix]]
            name = "good"
            env = {"{ STATUS = 0 }"}
            [[matrix]]
            name = "bad"
            env = {"{ STATUS = 3 }"}
            """);

        using Process process = Process.Start(new ProcessStartInfo(VmmProcess.Command[0],
            [.. VmmProcess.Command.Skip(1), "exec", "--matrix", "--report", report, "--", "sh", "-c", "echo \"this is $STATUS in $(pwd)\"; echo x > written; echo x > report.xml; exit $STATUS"])
        {
            WorkingDirectory = Scratch,
            RedirectStandardOutput = true,
        })!;
        string output = process.StandardOutput.ReadToEnd();
        Assert.That(process.WaitForExit(VmmProcess.Deadline), Is.True);

        Assert.That(process.ExitCode, Is.EqualTo(1), output);
        Assert.That(output, Does.Match("(?m)^ok    good in [0-9.]+ s$").And.Match("(?m)^bad           3 "));
        Assert.That(output, Does.Match($"(?m)^FAIL  bad \\(status 3\\) in [0-9.]+ s\nvmm: {Scratch}/vmm.toml: bind: the guest may only read {Scratch}, .*\nthis is 3 in {Scratch}\n"));
        Assert.That(output, Does.Contain("written: Read-only file system"));
        Assert.That(File.Exists(Path.Combine(Scratch, "written")), Is.False);
        Assert.That(File.ReadAllText(report), Does.Contain("tests=\"2\" failures=\"1\"").And.Contain("this is 0 in "));
    }

    [Test]
    public void Exec_MatrixIsKilled_ItsGuestsAre()
    {
        string config = Path.Combine(Scratch, "matrix.toml");
        File.WriteAllText(config, "[[matrix]]\nname = \"one\"\n[[matrix]]\nname = \"two\"\n");
        VmmProcess matrix = StartHere([.. s_kernel, "--matrix", "--config", config, "--", "sleep", "1000"]);
        string children = $"/proc/{matrix.Id}/task/{matrix.Id}/children";
        string[] guests = [];
        Eventually.True(() => (guests = File.ReadAllText(children).Split(' ', StringSplitOptions.RemoveEmptyEntries)).Length > 0, () => "no guest was started");
        Eventually.True(() => Array.TrueForAll(guests, guest => File.ReadAllText($"/proc/{guest}/cmdline").Contains("--matrix-process", StringComparison.Ordinal)), () => "no guest runs");

        matrix.Signal(LibC.SIGKILL);

        Assert.That(matrix.WaitForEnd().ExitCode, Is.EqualTo(128 + LibC.SIGKILL));
        Eventually.True(() => !Array.Exists(guests, Runs), () => "a guest goes on");

        // One that nobody has waited for yet is there, too, but in state Z.
        static bool Runs(string process)
        {
            try
            {
                string stat = File.ReadAllText($"/proc/{process}/stat");
                return stat[stat.LastIndexOf(')') + 2] != 'Z';
            }
            catch (IOException)
            {
                return false;
            }
        }
    }

    // The agent connects once, and its connection waits in the guest until there is a back-end again. That connects to nobody: it has to be asked for the agent again.
    [TestCase("on")]
    [TestCase("off")]
    public void Exec_VsockBackEndDiesBeforeTheAgentConnects_TheCommandRuns(string sandbox)
    {
        VmmProcess process = StartHere([.. s_kernel, "--dmesg", "-", "--log-level", "info", "--sandbox", sandbox, "--", "echo", "it runs"]);
        process.WaitForErrors("Linux version");
        int backend = ProcFs.ProcessesWithEnvironment(VmmProcess.Mark)
            .Single(id => File.ReadAllText($"/proc/{id}/cmdline").Contains("\0backend\0vsock\0", StringComparison.Ordinal));
        Assert.That(LibC.kill(backend, LibC.SIGKILL), Is.Zero);

        VmmResult result = process.WaitForEnd();
        Assert.That((result.ExitCode, result.Output), Is.EqualTo((0, "it runs\n")), result.Summary);
        Assert.That(result.Errors, Does.Contain("ended with signal 9").And.Contain("the back-end is back"));
    }

    [TestCase("on")]
    [TestCase("off")]
    public void Exec_SignalAsSoonAsSomethingIsThere_LeavesNothing(string sandbox)
    {
        string name = $"test-{Guid.NewGuid():N}"[..20];
        string directory = Path.Combine(GuestDirectory.Places()[0], name);
        for (int i = 0; i < 3; i++)
        {
            VmmProcess process = StartHere([.. s_kernel, "--sandbox", sandbox, "--name", name, "--", "true"]);
            Assert.That(() => Directory.Exists(directory), Is.True.After((int)VmmProcess.Deadline.TotalMilliseconds, 1), "the directory");
            process.Signal(LibC.SIGTERM);

            Assert.That(process.WaitForEnd(), Is.EqualTo(new VmmResult(128 + LibC.SIGTERM, "", "")));
            Assert.That(Directory.Exists(directory), Is.False, $"cycle {i}: the directory is left");
        }
    }

    [Test]
    public void Exec_MuchData_ComesBackUnchanged()
    {
        string input = Path.Combine(Scratch, "input");
        byte[] data = new byte[LinuxHost.IsEmulated && !IsFull ? 20_000_001 : (100 << 20) + 1];
        RandomNumberGenerator.Fill(data);
        File.WriteAllBytes(input, data);
        string output = Path.Combine(Scratch, "output");

        using Process shell = Process.Start("sh", ["-c", "input=$1 output=$2; shift 2; exec \"$@\" < \"$input\" > \"$output\"", "sh", input, output,
            .. VmmProcess.Command, .. s_kernel, "--", "cat"])!;
        Assert.That(shell.WaitForExit(VmmProcess.Deadline), Is.True);

        Assert.That(shell.ExitCode, Is.Zero);
        Assert.That(SHA256.HashData(File.ReadAllBytes(output)), Is.EqualTo(SHA256.HashData(data)));
    }

    // A confined process, too, reads a socket without waiting.
    [Test]
    public void Exec_InputIsASocket_IsTheCommands()
    {
        using var server = new TcpListener(IPAddress.Loopback, 0);
        server.Start();
        Task serve = Task.Run(() =>
        {
            using TcpClient client = server.AcceptTcpClient();
            client.GetStream().Write("over the network\n"u8);
        });
        (int status, string output) = HostCommand.TryRun("bash",
            ["-c", $"cd /; exec \"$@\" < /dev/tcp/127.0.0.1/{((IPEndPoint)server.LocalEndpoint).Port}", "bash", .. VmmProcess.Command, .. s_kernel, "--", "cat"]);

        Assert.That((status, output), Is.EqualTo((0, "over the network\n")));
        Assert.That(serve.Wait(VmmProcess.Deadline));
    }

    [Test]
    public void Exec_InputIsADirectory_IsAnError() => Assert.That(
        Shell("\"$@\" -- cat < /"),
        Is.EqualTo(new VmmResult(125, "", "vmm: cannot read standard input, so that cat did not get all of it: Is a directory\n")));

    // The pipe and the window have all that the command has written. Some time later the guest ends by itself, too.
    [TestCase(3)]
    [TestCase(15)]
    public void Exec_SignalWhileTheReaderIsSlow_HidesNoMissingOutput(int seconds)
    {
        VmmResult result = Shell($$"""
            mkdir {{Scratch}}/shared; mkfifo {{Scratch}}/fifo; exec 3<> {{Scratch}}/fifo
            "$@" --bind {{Scratch}}/shared:/mnt -- sh -c 'head -c 200000 /dev/zero; touch /mnt/done' < /dev/null >&3 & vmm=$!
            until test -e {{Scratch}}/shared/done; do sleep 0.1; done
            sleep {{seconds}}; while kill -TERM $vmm 2> /dev/null; do sleep 3; done; wait $vmm; echo $?
            """);

        Assert.That(result, Is.EqualTo(new VmmResult(0, "143\n", "")));
    }

    // The name of a link that leads there, in the guest as well. And none is needed where another one is given.
    [Test]
    public void Exec_WorkingDirectoryByALinkAndNone_IsAsInAShell()
    {
        VmmResult result = Shell($"""
            mkdir {Scratch}/real; ln -s real {Scratch}/link; cd {Scratch}/link
            "$@" --bind {Scratch} -- sh -c 'echo "$PWD"; cd ..; pwd'; "$@" --bind . -- sh -c 'echo "$PWD"'
            mkdir gone; cd gone; rmdir ../gone; "$@" --workdir /usr -- pwd
            """);

        Assert.That(result, Is.EqualTo(new VmmResult(0, $"{Scratch}/link\n{Scratch}\n{Scratch}/real\n/usr\n", "")));
    }

    [Test]
    public void Exec_BytesThatAreNotUtf8_ArriveAsTheyAre()
    {
        VmmResult result = Shell($$"""
            set -e; d=$(printf '{{Scratch}}/d\377'); mkdir "$d"; cd "$d"
            trap 'cd /; rmdir "$d"' EXIT
            export V=$(printf 'v\376')
            "$@" --bind . --env V -- sh -c 'printf "%s|%s|%s" "$1" "$V" "${PWD##*/}" | od -An -tx1' sh "$(printf 'a\375')"
            """);

        Assert.That(result, Is.EqualTo(new VmmResult(0, " 61 fd 7c 76 fe 7c 64 ff\n", "")));
    }

    [Test]
    public void Exec_OutputThatTheHostsFileDoesNotTake_IsAnError() => Assert.That(
        Shell("\"$@\" -- echo hi > /dev/full"),
        Is.EqualTo(new VmmResult(125, "", "vmm: cannot write to standard output, so that a part of what echo wrote is lost: No space left on device\n")));

    [Test]
    public void Exec_CommandThatCannotRun_IsToldAsAShellDoes()
    {
        Assert.That(Exec("", [], "no-such-command"), Is.EqualTo(
            new VmmResult(127, "", "vmm: cannot run no-such-command: No such file or directory\n")));
        Assert.That(Exec("", [], "/etc/passwd"), Is.EqualTo(new VmmResult(126, "", "vmm: cannot run /etc/passwd: Permission denied\n")));
    }

    [Test]
    public void Exec_SignalToTheVmm_GoesToTheCommand()
    {
        (int Number, string Name)[] signals =
            [(LibC.SIGHUP, "HUP"), (LibC.SIGINT, "INT"), (LibC.SIGQUIT, "QUIT"), (LibC.SIGUSR1, "USR1"), (LibC.SIGUSR2, "USR2")];
        VmmProcess process = Start([], "sh", "-c",
            $"for signal in {string.Join(' ', signals.Select(signal => signal.Name))}; do trap \"echo $signal\" $signal; done; trap 'echo told; exit 5' TERM; echo ready; while :; do sleep 0.1; done");
        process.WaitForOutput("ready");
        foreach ((int number, string name) in signals)
        {
            process.Signal(number);
            process.WaitForOutput($"\n{name}\n");
        }
        process.Signal(LibC.SIGTERM);

        // The shell tells of a sleep that a signal has ended: signals are for all processes of the command.
        VmmResult result = process.WaitForEnd();
        Assert.That((result.ExitCode, result.Output), Is.EqualTo((5, "ready\nHUP\nINT\nQUIT\nUSR1\nUSR2\ntold\n")), result.Summary);
    }

    // Each character that the guest writes to its serial port is an exit of a vCPU, which looks for signals then.
    [Test]
    public void Exec_SignalsToTheVmmWhileTheGuestIsAtItsSerialPort_AllGoToTheCommand()
    {
        const int count = 100;
        VmmProcess process = Start([], "sh", "-c",
            $"nice -n 19 yes > /dev/ttyS0 & n=0; trap 'n=$((n+1)); echo $n' USR1; sleep 1000 & echo ready; while test $n -lt {count}; do wait $!; done; exit 0");
        process.WaitForOutput("ready\n");
        for (int i = 1; i <= count; i++)
        {
            process.Signal(LibC.SIGUSR1);
            process.WaitForOutput($"\n{i}\n");
        }

        Assert.That(process.WaitForEnd().ExitCode, Is.Zero);
    }

    [Test]
    public void Exec_SecondSigterm_EndsTheGuestAndLeavesNothing()
    {
        VmmProcess process = Start([], "sh", "-c", "trap 'echo told' TERM; echo ready; while :; do sleep 0.1; done");
        process.WaitForOutput("ready");
        process.Signal(LibC.SIGTERM);
        process.WaitForOutput("told");
        Thread.Sleep(600);      // until then it is the same one
        process.Signal(LibC.SIGTERM);
        VmmResult result = process.WaitForEnd();

        Assert.That(result, Is.EqualTo(new VmmResult(128 + LibC.SIGTERM, "ready\ntold\n", "")));
        Assert.That(ProcFs.ProcessesWithEnvironment(VmmProcess.Mark), Is.Empty, "processes are left");
        Assert.That(Directory.GetFileSystemEntries(Temporary), Is.Empty, "files are left");
    }

    // timeout sends SIGTERM to the vmm and then to the process group with the vmm in it.
    [Test]
    public void Exec_UnderTimeout_TheCommandIsToldAndEnds()
    {
        VmmResult result = Shell("timeout --preserve-status 40 \"$@\" --quiet -- sh -c 'trap \"sleep 1; echo told; exit 5\" TERM; echo ready; while :; do sleep 0.1; done'");

        Assert.That((result.ExitCode, result.Output), Is.EqualTo((5, "ready\ntold\n")), result.Summary);
    }

    [Test]
    public void Exec_OutputAndErrorToOneFile_KeepTheirOrder()
    {
        VmmResult result = Shell("\"$@\" -- sh -c 'for i in 1 2 3 4 5; do echo out $i; echo error $i >&2; done' 2>&1");

        Assert.That(result, Is.EqualTo(new VmmResult(0, string.Concat(Enumerable.Range(1, 5).Select(i => $"out {i}\nerror {i}\n")), "")));
    }

    [Test]
    public void Exec_StreamsThatAreClosedHere_DoNotEndTheCommand()
    {
        VmmResult result = Shell("\"$@\" -- sh -c 'echo x >&2 && echo y' 2>&-; \"$@\" -- sh -c 'echo x && exit 3' <&- >&- 2>&-");

        Assert.That(result, Is.EqualTo(new VmmResult(3, "y\n", "")));
    }

    [Test]
    public void Exec_Panic_IsToldWithItsTrace()
    {
        VmmResult result = Exec("", [], "sh", "-c", "echo last words; echo c > /proc/sysrq-trigger");

        Assert.That(result.ExitCode, Is.EqualTo(125), result.Summary);
        Assert.That(result.Output, Is.EqualTo("last words\n"));
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
    public void Exec_GuestThatHangs_TimesOut()
    {
        // A task of the highest priority lets nobody else run: not the agent either.
        VmmResult result = Exec("", ["--timeout", "30s", "--quiet"], "sh", "-c",
            "echo -1 > /proc/sys/kernel/sched_rt_runtime_us; echo hanging; sleep 0.5; exec chrt -f 99 sh -c 'while :; do :; done'");

        Assert.That(result, Is.EqualTo(new VmmResult(124, "hanging\n", "vmm: sh took longer than 30 s (--timeout)\n")));
    }

    // It was booted with quiet. The command waits in the kernel, where no signal reaches it (state D), for a file system that nobody thaws.
    [Test]
    public void Exec_DeviceThatIsNotReadyInTime_TimesOut()
    {
        long start = Environment.TickCount64;
        VmmResult result = Exec("", ["--timeout", "3s", "--vhost-user", $"type=rng,socket={Scratch}/socket,server=on,timeout=10m"], "true");

        Assert.That((result.ExitCode, result.Output), Is.EqualTo((124, "")), result.Summary);
        Assert.That(result.Errors, Does.Contain("vmm: the guest's devices were not ready within 3 s (--timeout), and true had not started\n"));
        Assert.That(Environment.TickCount64 - start, Is.LessThan(300_000));
    }

    [Test]
    public void Exec_CommandThatHangsInTheKernel_TimesOutAndShowsWhatThatHasSaidLast()
    {
        string image = Path.Combine(Scratch, "scratch.img");
        HostCommand.Run("sh", "-c", $"truncate -s 64M {image} && PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q {image}");

        VmmResult result = Exec("", ["--timeout", "40s", "--disk", $"path={image}"], "sh", "-c", """
            mount -t ext4 /dev/vda /mnt && fsfreeze -f /mnt && echo '<6>said last' > /dev/kmsg
            (until cut -d' ' -f2-3 /proc/$$/stat | grep '(dd) D'; do sleep 0.1; done) & exec dd if=/dev/zero of=/mnt/file count=1
            """);

        Assert.That((result.ExitCode, result.Output), Is.EqualTo((124, "(dd) D\n")), result.Summary);
        Assert.That(result.Errors, Does.Match("\\Avmm: sh took longer than 40 s \\(--timeout\\)\n(\\[ *[0-9]+\\.[0-9]{6}\\] [^\n]*\n)+\\[ *[0-9]+\\.[0-9]{6}\\] said last\n\\z"));
    }

    [Test]
    public void Exec_OnATerminal_CommandHasOne()
    {
        using var terminal = new VmmOnTerminal([.. s_kernel, "--", "sh", "-c", "test -t 0 && test -t 1 && test -t 2 && echo a terminal; read -r line; echo \"got $line\"; trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done"]);
        terminal.WaitForScreen("a terminal\r\n");
        Assert.That(terminal.IsRaw, Is.True);
        terminal.Type("typed\r"u8);
        terminal.WaitForScreen("typed\r\ngot typed\r\nready\r\n");
        terminal.Resize(33, 77);
        terminal.WaitForScreen("33 77\r\n");
        terminal.Type("\x03"u8);
        terminal.WaitForEnd(128 + LibC.SIGINT);
    }

    [Test]
    public void Exec_TtyAndErrorsToAFile_AreApartOnlyOnATerminal()
    {
        const string script = "test -t 1 && echo a terminal; test -t 2 || echo apart; echo trouble >&2; exit 3";
        string errors = Path.Combine(Scratch, "errors");
        using (VmmOnTerminal terminal = VmmOnTerminal.WithErrorsIn(errors, [.. s_kernel, "--tty", "--workdir", "/", "--", "sh", "-c", script]))
        {
            terminal.WaitForScreen("a terminal\r\napart\r\n");
            terminal.WaitForEnd(3);
        }
        Assert.That(File.ReadAllText(errors), Is.EqualTo("trouble\n"));

        Assert.That(Exec("", ["--tty"], "sh", "-c", script), Is.EqualTo(new VmmResult(3, "a terminal\r\ntrouble\r\n", "")));
    }

    [Test]
    public void Exec_Umask_IsThatOfHereAlsoWithAttach()
    {
        string bound = Directory.CreateDirectory(Path.Combine(Scratch, "bound")).FullName, name = $"test-{Guid.NewGuid():N}"[..20];
        VmmProcess first = Start(["--name", name, "--bind", bound], "sh", "-c", "echo ready; read -r line");
        first.WaitForOutput("ready");
        (int status, string output) = HostCommand.TryRun("sh",
        [
            "-c", "cd / && umask 077 && exec \"$@\"", "sh", .. VmmProcess.Command, "exec", "--attach", name, "--", "sh", "-c", $"umask; cd {bound} && echo secret > file && mkdir directory",
        ]);
        first.EndInput();
        first.WaitForEnd();

        Assert.That((status, output), Is.EqualTo((0, "0077\n")));
        Assert.That(HostCommand.Run("sh", "-c", $"cd {bound} && stat -c '%n %a' directory file"), Is.EqualTo("directory 700\nfile 600\n"));
        Assert.That(Shell("umask 027; exec \"$@\" -- sh -c umask"), Is.EqualTo(new VmmResult(0, "0027\n", "")));
    }

    [Test]
    public void Exec_CtrlBracketThreeTimes_LeavesTheCommandOfAttachAndThenTheGuest()
    {
        string name = $"test-{Guid.NewGuid():N}"[..20];
        using var first = new VmmOnTerminal([.. s_kernel, "--name", name, "--", "sh", "-c", "echo ready; exec sleep 1000"]);
        first.WaitForScreen("ready");
        using (var second = new VmmOnTerminal("exec", "--attach", name, "--", "sh", "-c", "test -t 0 && test -t 2 && echo a terminal; trap 'stty size' WINCH; while :; do sleep 0.1; done"))
        {
            second.WaitForScreen("a terminal");
            second.Resize(33, 77);
            second.WaitForScreen("33 77");
            second.Type("\x1d\x1d\x1d"u8);
            second.WaitForScreen("left by Ctrl-]: the command is killed, and the guest goes on");
            second.WaitForEnd(125);
        }
        first.Type("\x1d\x1d\x1d"u8);
        first.WaitForScreen("left by Ctrl-]: the guest is switched off");
        first.WaitForEnd(125);
    }

    [TestCase("")]
    [TestCase("echo -900 > /proc/self/oom_score_adj; ")]    // as services do that protect themselves: the agent is not killed in their place
    public void Exec_GuestWithoutMemory_IsTold(string before)
    {
        VmmResult result = Exec("", ["--memory", "192M"], "sh", "-c", $"{before}mkfifo /tmp/zeros; cat /dev/zero > /tmp/zeros & exec tail -c 1G /tmp/zeros");

        Assert.That(result, Is.EqualTo(new VmmResult(125, "", "vmm: the guest ran out of memory, and its kernel killed the command: raise --memory\n")));
    }

    [Test]
    public void Exec_OnlyAChildIsKilledForMemory_StatusIsTheCommands()
    {
        VmmResult result = Exec("", ["--memory", "192M"], "sh", "-c", "mkfifo /tmp/zeros; cat /dev/zero > /tmp/zeros & tail -c 1G /tmp/zeros; kill -9 $$");

        Assert.That(result.ExitCode, Is.EqualTo(137), result.Summary);
        Assert.That(result.Errors, Does.EndWith("vmm: the guest ran out of memory, and its kernel killed a process: raise --memory\n"));
    }

    // The guest has memory enough.
    [Test]
    public void Exec_CommandExceedsALimitOfItsOwn_IsKilledAsAShellTells()
    {
        VmmResult result = Exec("", [], "sh", "-c", """
            mkfifo /tmp/zeros; cat /dev/zero > /tmp/zeros &
            cd /sys/fs/cgroup && echo +memory > cgroup.subtree_control && mkdir small && echo 10M > small/memory.max && echo $$ > small/cgroup.procs && exec tail -c 1G /tmp/zeros
            """);

        Assert.That(result, Is.EqualTo(new VmmResult(137, "", "")));
    }

    [Test]
    public void Exec_CommandOfAttachIsKilledForMemory_IsToldThereAndTheFirstHasItsStatus()
    {
        string name = $"test-{Guid.NewGuid():N}"[..20];
        VmmProcess first = Start(["--memory", "192M", "--name", name], "sh", "-c", "echo ready; read -r line; kill -9 $$");
        first.WaitForOutput("ready");
        VmmProcess second = StartHere("exec", "--attach", name, "--", "sh", "-c", "mkfifo /tmp/zeros; cat /dev/zero > /tmp/zeros & exec tail -c 1G /tmp/zeros");
        second.EndInput();

        Assert.That(second.WaitForEnd(), Is.EqualTo(new VmmResult(125, "", "vmm: the guest ran out of memory, and its kernel killed the command: raise --memory\n")));
        first.Send("go on\n"u8);
        Assert.That(first.WaitForEnd(), Is.EqualTo(new VmmResult(137, "ready\n", "vmm: the guest ran out of memory, and its kernel killed a process: raise --memory\n")));
    }

    [Test]
    public void Exec_PanicInAModule_IsTold()
    {
        string modules = LinuxGuest.Artifact("kernels", "cloud", "root", "lib", "modules", new LinuxGuest().Release, "kernel", "drivers", "watchdog");
        // What lies below /tmp here is not in the guest.
        VmmResult result = Exec("", ["--bind-ro", $"{modules}:/mnt"], "sh", "-c",
            "PATH=$PATH:/sbin; cd /mnt && insmod watchdog.ko && insmod softdog.ko soft_margin=1 soft_panic=1 && echo x > /dev/watchdog && sleep 100");

        Assert.That(result.ExitCode, Is.EqualTo(125), result.Summary);
        Assert.That(result.Errors, Does.Contain("panicked before sh had ended: Kernel panic - not syncing: Software Watchdog Timer expired").And.Contain("softdog"));
    }

    [Test]
    public void Exec_AgentIsKilled_IsTold()
    {
        VmmResult result = Exec("", ["--quiet"], "sh", "-c", "kill -9 -1; sleep 100");

        Assert.That(result, Is.EqualTo(new VmmResult(125, "", "vmm: the guest lost its agent, which somebody in it has killed, before sh had ended\n")));
    }

    [Test]
    public void Exec_GuestInTrouble_GoesOn()
    {
        VmmResult result = Exec("", ["--memory", "192M", "--overlay", "size=10M"], "sh", "-c", """
            kill -9 1; sleep 0.5; echo init cannot be killed
            head -c 20M /dev/zero > /var/full || echo the overlay is full
            rm /var/full; echo there is room again > /var/note; cat /var/note
            mkfifo /tmp/zeros; cat /dev/zero > /tmp/zeros & tail -c 1G /tmp/zeros; echo "killed: $?"
            exit 4
            """);

        Assert.That(result.ExitCode, Is.EqualTo(4), result.Summary);
        Assert.That(result.Output, Is.EqualTo("init cannot be killed\nthe overlay is full\nthere is room again\nkilled: 137\n"));
        Assert.That(result.Errors, Does.Contain("No space left on device")
            .And.Match("\nvmm: the guest ran out of memory, and its kernel killed (a process|[0-9]+ processes): raise --memory\n\\z"));
    }

    [Test]
    public void Exec_OutputThatNobodyReadsToItsEnd_EndsTheCommand()
    {
        (int status, string output) = HostCommand.TryRun("bash",
            ["-c", "cd /; \"$@\" < /dev/null | head -n 1; echo \"${PIPESTATUS[0]}\"", "bash", .. VmmProcess.Command, .. s_kernel, "--", "yes"]);

        Assert.That((status, output), Is.EqualTo((0, "y\n141\n")));
    }

    [Category("Full")]
    [Test]
    public void Exec_ProgramOfUnitTests_ReturnsItsStatus()
    {
        string here = TestContext.CurrentContext.TestDirectory;
        // The program as dotnet test starts it.
        (int Status, string Output) Run(string filter)
        {
            VmmResult result = Exec("", ["--memory", "2G", "--bind", here, "--workdir", here, "--env", "DOTNET_TieredPGO=0"],
                "./Vmm.Tests", "--filter", filter, "--no-ansi", "--progress", "off", "--results-directory", "/tmp/results");
            return (result.ExitCode, result.Output);
        }

        (int status, string output) = Run("FullyQualifiedName~Vmm.Tests.Cli.Exec");
        Assert.That(status, Is.Zero, output);
        Assert.That(output, Does.Match("(?m)^  failed: 0$").And.Match("(?m)^  succeeded: [1-9][0-9]+$"));
        Assert.That(Run("FullyQualifiedName~NoSuchTest").Status, Is.EqualTo(8), "no test is there: the status of the test platform");
    }

    // The SDK, in a guest with this machine's files.
    [Category("Full")]
    [Test]
    public void Exec_DotnetTest_ReturnsItsStatus()
    {
        string project = RepositoryRoot.Combine("Vmm.Tests", "Vmm.Tests.csproj");
        if (!Directory.Exists(RepositoryRoot.Combine("Vmm.Tests", "bin", "Release")))
            Assert.Ignore("the tests are not built: dotnet build Vmm.sln -c Release");

        VmmProcess process = Start(["--memory", "3G", "--workdir", RepositoryRoot.Combine(), "--env", "DOTNET_TieredPGO=0", "--env", "DOTNET_CLI_TELEMETRY_OPTOUT=1", "--env", "DOTNET_NOLOGO=1"],
            "dotnet", "test", "--project", project, "-c", "Release", "--no-build", "--no-ansi", "--filter", "FullyQualifiedName~Vmm.Tests.Cli.Exec");
        process.EndInput();
        VmmResult result = process.WaitForEnd(TimeSpan.FromMinutes(20));

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Match("(?m)^  failed: 0$").And.Match("(?m)^  succeeded: [1-9][0-9]+$"));
    }

    [Category("Full")]
    [Test]
    public void Exec_FiftyInARow_LeaveNothing()
    {
        for (int i = 0; i < 50; i++)
            Assert.That(Exec($"input {i}", ["--memory", "256M"], "sh", "-c", $"cat; echo error {i} >&2; exit {i}"), Is.EqualTo(new VmmResult(i, $"input {i}", $"error {i}\n")));
        Assert.That(ProcFs.ProcessesWithEnvironment(VmmProcess.Mark), Is.Empty, "processes are left");
        Assert.That(Directory.GetFileSystemEntries(Temporary), Is.Empty, "files are left");
    }

    [Test]
    public void Exec_FourAtATime_DifferAndLeaveNothing()
    {
        VmmProcess[] all = [.. Enumerable.Range(1, 4).Select(number => Start(
            ["--memory", "256M", "--bind", Scratch, "--cmdline", $"{LinuxHost.GuestOptions} random.trust_cpu=off"], "sh", "-c", $"echo number {number}; cat /proc/sys/kernel/random/uuid; exit {number}"))];
        foreach (VmmProcess process in all)
            process.EndInput();

        HashSet<string> random = [];
        for (int i = 0; i < all.Length; i++)
        {
            VmmResult result = all[i].WaitForEnd();
            Assert.That((result.ExitCode, result.Errors), Is.EqualTo((i + 1, "")));
            Assert.That(result.Output, Does.StartWith($"number {i + 1}\n"));
            Assert.That(random.Add(result.Output.Split('\n')[1]), Is.True, "random numbers");
        }
        Assert.That(ProcFs.ProcessesWithEnvironment(VmmProcess.Mark), Is.Empty, "processes are left");
        Assert.That(Directory.GetFileSystemEntries(Temporary), Is.Empty, "files are left");
    }

    [Test]
    public void Exec_AsAnUnprivilegedUser_HasAllDevicesAndFilesAreTheCallers()
    {
        const string user = "1234";
        Require("passt", "passt");
        LinuxHost.GiveKvmToItsGroup();
        string bound = Directory.CreateDirectory(Path.Combine(Scratch, "bound")).FullName, disk = Path.Combine(Scratch, "disk");
        HostCommand.Run("sh", "-c", $"chmod 0755 {Scratch} && truncate -s 1M {disk} && chown {user}:{user} {bound} {Temporary} {disk}");
        using var server = new TcpListener(IPAddress.Loopback, 0);
        server.Start();
        int port = ((IPEndPoint)server.LocalEndpoint).Port;
        Task<string> received = Task.Run(() =>
        {
            using TcpClient client = server.AcceptTcpClient();
            using var reader = new StreamReader(client.GetStream());
            return reader.ReadToEnd();
        });

        (int status, string output) = HostCommand.TryRun("setpriv",
        [
            "--reuid", user, "--regid", user, "--groups", HostCommand.Run("stat", "-c", "%g", "/dev/kvm").Trim(),
            "env", "-C", "/", $"TMPDIR={Temporary}", $"XDG_RUNTIME_DIR={Temporary}",
            .. VmmProcess.Command, .. s_kernel, "--bind", bound, "--disk", $"path={disk}", "--rng", "src=/dev/urandom", "--net", "user,host=on", "--", "bash", "-c", $"""
                cd {bound}; id -u; echo "sudo of $SUDO_UID"; echo x > file; mkdir directory; echo y > directory/file; ln -s file link; mv file moved; touch /etc/written && echo written
                echo to the disk > /dev/vda && sync; cat /sys/class/misc/hw_random/rng_current
                echo to the network > /dev/tcp/10.0.2.2/{port}
                """,
        ]);

        Assert.That((status, output), Is.EqualTo((0, $"0\nsudo of {user}\nwritten\nvirtio_rng.0\n")));
        Assert.That(HostCommand.Run("sh", "-c", $"cd {bound} && find . -mindepth 1 -printf '%p %U:%G\n' | sort").Split('\n', StringSplitOptions.RemoveEmptyEntries), Is.EqualTo(new[]
        {
            $"./directory {user}:{user}", $"./directory/file {user}:{user}", $"./link {user}:{user}", $"./moved {user}:{user}",
        }));
        Assert.That(File.ReadLines(disk).First(), Is.EqualTo("to the disk"));
        Assert.That(received.Wait(VmmProcess.Deadline) ? received.Result : "nothing", Is.EqualTo("to the network\n"));
        Assert.That(Directory.GetFileSystemEntries(Temporary), Is.Empty, "files are left");
    }

    private VmmResult Exec(string input, string[] options, params string[] command)
    {
        VmmProcess process = Start(options, command);
        process.Send(System.Text.Encoding.UTF8.GetBytes(input));
        process.EndInput();
        return process.WaitForEnd();
    }

    // The script has vmm exec and its options as its arguments.
    private static VmmResult Shell(string script)
    {
        using Process shell = Process.Start(new ProcessStartInfo("sh", ["-c", script, "sh", .. VmmProcess.Command, .. s_kernel])
        {
            WorkingDirectory = "/",
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        shell.StandardInput.Close();
        Task<string> output = shell.StandardOutput.ReadToEndAsync(), errors = shell.StandardError.ReadToEndAsync();
        Assert.That(shell.WaitForExit(VmmProcess.Deadline), Is.True);
        return new VmmResult(shell.ExitCode, output.Result, errors.Result);
    }

    // In a directory that the guest has, too.
    private VmmProcess StartHere(params string[] arguments) => Keep(VmmProcess.Start(arguments, Temporary, directory: "/"));

    private VmmProcess InScratch(params string[] arguments) => Keep(VmmProcess.Start(arguments, Temporary, directory: Scratch));

    private VmmProcess Start(string[] options, params string[] command) =>
        StartHere([.. options.Contains("--cmdline") ? s_kernel[..^2] : s_kernel, .. options, "--", .. command]);
}
