using System.Diagnostics;
using System.Runtime.Versioning;
using NUnit.Framework;
using Tmds.Linux;
using Vmm.Boot;
using Vmm.Tests.Integration.Linux;

namespace Vmm.Tests.Integration;

/// <summary>The ways a run ends, and their exit statuses.</summary>
public class EndTests : KvmTest
{
    private const string FirstStart = "start, memory is zero, bss is zero, serial port is reset\n";

    [Test]
    public void PowerOff_ByAcpi_Exits0()
    {
        VmmResult result = Run("hello");

        Assert.That(result, Is.EqualTo(new VmmResult(0, "hello from the guest\n", "")));
    }

    [TestCase("acpi")]
    [TestCase("i8042")]
    [TestCase("triple")]
    public void Reset_OnRebootExit_Exits0(string way)
    {
        VmmProcess process = Start("reset", "--cmdline", way, "--on-reboot", "exit");
        process.WaitForOutput(FirstStart);
        process.Send("r"u8);

        VmmResult result = process.WaitForEnd();

        Assert.That(result.Output, Is.EqualTo(FirstStart));
        Assert.That(result.ExitCode, Is.Zero, result.Errors);
    }

    [TestCase("acpi")]
    [TestCase("i8042")]
    [TestCase("triple")]
    public void Reset_Default_StartsAnewWithNothingLeft(string way)
    {
        VmmProcess process = Start("reset", "--cmdline", way);
        process.WaitForOutput(FirstStart);
        process.Send("r"u8);
        process.WaitForOutput("start", times: 2);
        process.Send("p"u8);

        VmmResult result = process.WaitForEnd();

        Assert.That(result.Output, Is.EqualTo(FirstStart + FirstStart));
        Assert.That(result.ExitCode, Is.Zero, result.Errors);
    }

    [Test]
    public void Reset_KernelRemovedMeanwhile_BootsTheSame()
    {
        string kernel = Path.Combine(Scratch, "kernel");
        File.Copy(Payloads.Path("reset"), kernel);
        VmmProcess process = StartVmm("run", "--kernel", kernel, "--cmdline", "acpi");
        process.WaitForOutput(FirstStart);
        File.Delete(kernel);
        File.WriteAllText(kernel, "another file");

        process.Send("r"u8);
        process.WaitForOutput("start", times: 2);
        process.Send("p"u8);

        Assert.That(process.WaitForEnd(), Is.EqualTo(new VmmResult(0, FirstStart + FirstStart, "")));
    }

    [Test]
    public void Panic_Default_Exits3()
    {
        VmmResult result = Run("panic");

        Assert.That(result.Output, Does.StartWith("panic\n"));
        Assert.That(result.ExitCode, Is.EqualTo(3), result.Errors);
    }

    [Test]
    public void Panic_OnPanicHalt_IsHeldUntilASignal()
    {
        VmmProcess process = Start("panic", "--on-panic", "halt");
        process.WaitForErrors("panic");

        Assert.That(process.EndsWithin(TimeSpan.FromSeconds(2)), Is.False, "it was not held");
        process.Signal(LibC.SIGTERM);
        VmmResult result = process.WaitForEnd();

        Assert.That(result.ExitCode, Is.EqualTo(128 + LibC.SIGTERM));
        Assert.That(result.Output, Is.EqualTo("panic\n"), "the guest must not go on");
    }

    // The payload resets as Linux does after a panic. It is Linux for vmm, which runs that on any KVM only by force.
    [TestCase("acpi", "restart")]
    [TestCase("i8042", "restart")]
    [TestCase("triple", "restart")]
    [TestCase("acpi", "exit")]
    [TestCase("acpi panic=30 reboot=acpi", "exit")]
    public void PanicReset_OfLinux_Exits3(string commandLine, string onReboot)
    {
        VmmResult result = Run("panicreset", "--force", "--cmdline", commandLine, "--on-reboot", onReboot);

        Assert.That(result.ExitCode, Is.EqualTo(3), result.Summary);
        Assert.That(result.Output, Is.EqualTo($"command line: panic=-1 reboot=panic_warm {KernelParameters.Defaults(commandLine)} {commandLine}\n"));
        Assert.That(result.Errors, Does.Contain("kernel panicked"));
    }

    // The crash kernel's own reset is no panic by its flag.
    [TestCase("exit")]
    [TestCase("restart")]
    public void PanicReset_AfterACrashKernelHasTakenOver_Exits3(string onReboot)
    {
        VmmResult result = Run("panicreset", "--force", "--cmdline", "acpi cold kdump", "--on-reboot", onReboot);

        Assert.That(result.ExitCode, Is.EqualTo(3), result.Summary);
        Assert.That(result.Errors, Does.Contain("its crash kernel takes over").And.Contain("has ended"));
    }

    [TestCase("acpi cold", "")]
    [TestCase("acpi reboot=warm", "reboot=")]
    [TestCase("acpi reboot=k,panic_hard", "reboot=")]
    public void PanicReset_ItIsAReboot_Exits0(string commandLine, string warning)
    {
        VmmResult result = Run("panicreset", "--force", "--cmdline", commandLine, "--on-reboot", "exit");

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Errors, warning == "" ? Is.Empty : Does.Contain(warning), result.Summary);
        string panic = warning == "" ? "panic=-1 reboot=panic_warm " : "";
        Assert.That(result.Output, Is.EqualTo($"command line: {panic}{KernelParameters.Defaults(commandLine)} {commandLine}\n"));
    }

    [Test]
    public void PanicReset_OnPanicHalt_IsHeldUntilASignal()
    {
        VmmProcess process = Start("panicreset", "--force", "--cmdline", "acpi", "--on-panic", "halt");
        process.WaitForErrors("is held");
        process.Signal(LibC.SIGTERM);

        Assert.That(process.WaitForEnd().ExitCode, Is.EqualTo(128 + LibC.SIGTERM));
    }

    [TestCase(1)]
    [TestCase(2)]
    public void Halt_InterruptsOff_Exits0(int cpus)
    {
        VmmProcess process = Start("halt", "--cpus", $"{cpus}");
        process.EndInput();
        process.WaitForOutput("halt\n");

        Assert.That(process.EndsWithin(TimeSpan.FromSeconds(10)), Is.True, "the VMM did not notice");
        Assert.That(process.WaitForEnd(), Is.EqualTo(new VmmResult(0, "halt\n", "")));
    }

    // So does a Linux kernel that finds early that it cannot go on.
    [TestCase(1)]
    [TestCase(2)]
    public void Halt_BeforeItSaidAnything_Exits3(int cpus)
    {
        VmmResult result = Run("halt", "--cpus", $"{cpus}", "--cmdline", "silent");
        Assert.That(result, Is.EqualTo(new VmmResult(3, "", "vmm: the guest halted with interrupts off before it said or did anything: add console=ttyS0 earlyprintk=ttyS0 to --cmdline to see why, and check --kernel and --initramfs\n")));
    }

    [Test]
    public void Halt_BeforeItSaidAnythingAndStandardErrorIsFull_Exits3()
    {
        using Process shell = Process.Start("/bin/sh", ["-c", $"exec {string.Join(' ', VmmProcess.Command)} run --kernel {Payloads.Path("halt")} --cmdline silent 2> /dev/full < /dev/null"]);
        Assert.That(shell.WaitForExit(VmmProcess.Deadline), Is.True);
        Assert.That(shell.ExitCode, Is.EqualTo(3));
    }

    [Test]
    public void Halt_InterruptsOn_IsWaitedFor()
    {
        VmmProcess process = Start("echo");
        process.WaitForOutput("ready\n");

        Assert.That(process.EndsWithin(TimeSpan.FromSeconds(6)), Is.False, "an idle guest was ended");
        process.Send("still there\x04"u8);

        Assert.That(process.WaitForEnd(), Is.EqualTo(new VmmResult(0, "ready\nstill there\nbytes: 0xb\n", "")));
    }

    [Test]
    public void BadInstruction_KvmCannotEmulateIt_Exits1WithRegisters()
    {
        VmmResult result = Run("badinsn");

        Assert.That(result.Output, Is.EqualTo("bad instruction\n"));
        Assert.That(result.ExitCode, Is.EqualTo(1));
        Assert.That(result.Errors, Does.Contain("KVM_EXIT_INTERNAL_ERROR"));
        Assert.That(result.Errors, Does.Match(@"\brip +0{10}1000[0-9a-f]{2}\b"), "where in the guest it was");
        Assert.That(result.Errors, Does.Match(@"\brbx +00000000d8000000\b"));
        Assert.That(result.Errors, Does.Not.Match(@"^\s+at "), "a stack trace");
    }

    [TestCase("spin")]
    [TestCase("echo")]
    public void Signal_GuestRunsOrHalts_Exits128PlusItsNumber(string payload)
    {
        foreach (int signal in new[] { LibC.SIGTERM, LibC.SIGINT, LibC.SIGHUP })
        {
            VmmProcess process = Start(payload, "--cpus", "2");
            process.WaitForOutput("\n");

            process.Signal(signal);
            VmmResult result = process.WaitForEnd();

            Assert.That(result.ExitCode, Is.EqualTo(128 + signal));
            Assert.That(result.Output.Split('\n'), Has.Length.EqualTo(2), result.Output);
        }
    }

    // QUIT, ABRT, USR2, ALRM, XCPU.
    [TestCase(3)]
    [TestCase(6)]
    [TestCase(12)]
    [TestCase(14)]
    [TestCase(24)]
    public void Signal_AnyThatEndsAProcess_EndsItInGoodOrder(int signal)
    {
        string socket = Path.Combine(Scratch, "serial.sock");
        VmmProcess process = Start("spin", "--serial", $"socket={socket}", "--log-level", "debug");
        process.WaitForErrors("no device");
        Assert.That(File.Exists(socket), Is.True);

        process.Signal(signal);

        Assert.That(process.WaitForEnd().ExitCode, Is.EqualTo(128 + signal));
        Assert.That(File.Exists(socket), Is.False, "the socket is left");
    }

    [Test]
    public void Signal_OfTheKick_FromOutsideDoesNothing()
    {
        VmmProcess process = Start("echo", "--cpus", "2");
        process.WaitForOutput("ready\n");

        for (int i = 0; i < 100; i++)
            process.Signal(LibC.SIGUSR1);
        process.Send("still there\x04"u8);

        Assert.That(process.WaitForEnd(), Is.EqualTo(new VmmResult(0, "ready\nstill there\nbytes: 0xb\n", "")));
    }

    [TestCase(15)]
    [TestCase(2)]
    public void ShutdownTimeout_FirstSignal_PressesThePowerButton(int signal)
    {
        VmmProcess process = Start("powerbutton", "--shutdown-timeout", "300s");
        process.WaitForOutput("ready\n");

        process.Signal(signal);

        Assert.That(process.WaitForEnd(), Is.EqualTo(new VmmResult(0, "ready\npressed\n", "")));
    }

    [Test]
    public void ShutdownTimeout_SecondSignal_EndsTheRunByTheFirst()
    {
        VmmProcess process = Start("powerbutton", "--cmdline", "ignore", "--shutdown-timeout", "300s");
        process.WaitForOutput("ready\n");

        process.Signal(LibC.SIGINT);
        process.WaitForOutput("pressed\n");
        process.Signal(LibC.SIGTERM);

        Assert.That(process.WaitForEnd().ExitCode, Is.EqualTo(128 + LibC.SIGTERM));
    }

    [TestCase("ignore")]
    [TestCase("reset")]
    public void ShutdownTimeout_GuestDoesNotPowerOff_EndsTheRunByTheSignal(string answer)
    {
        VmmProcess process = Start("powerbutton", "--cmdline", answer, "--shutdown-timeout", answer == "ignore" ? "500ms" : "300s");
        process.WaitForOutput("ready\n");

        process.Signal(LibC.SIGTERM);

        Assert.That(process.WaitForEnd(), Is.EqualTo(new VmmResult(128 + LibC.SIGTERM, "ready\npressed\n", "")));
    }

    [Test]
    public void ShutdownTimeout_OtherSignalOrNone_EndsTheRunAtOnce()
    {
        foreach ((int signal, string timeout) in new[] { (LibC.SIGHUP, "300s"), (LibC.SIGTERM, "0") })
        {
            VmmProcess process = Start("powerbutton", "--shutdown-timeout", timeout);
            process.WaitForOutput("ready\n");
            process.Signal(signal);

            Assert.That(process.WaitForEnd(), Is.EqualTo(new VmmResult(128 + signal, "ready\n", "")));
        }
    }

    [Test]
    public void PowerFailure_Signal_PressesThePowerButtonAndEndsNothing()
    {
        const int powerFailure = 30;   // SIGPWR
        VmmProcess process = Start("powerbutton", "--cmdline", "ignore");
        process.WaitForOutput("ready\n");

        process.Signal(powerFailure);
        process.WaitForOutput("pressed\n");
        process.Signal(powerFailure);
        process.WaitForOutput("pressed\n", times: 2);
        process.Signal(LibC.SIGTERM);

        Assert.That(process.WaitForEnd().ExitCode, Is.EqualTo(128 + LibC.SIGTERM));
    }

    [Test]
    public void Signal_GuestResetsAllTheTime_EndsIt()
    {
        VmmProcess process = Start("resetloop");
        process.WaitForOutput("start\n", times: 20);

        process.Signal(LibC.SIGTERM);

        Assert.That(process.WaitForEnd().ExitCode, Is.EqualTo(128 + LibC.SIGTERM));
    }

    [Test]
    public void Reset_WithoutAWordAgainAndAgain_Exits3AndSaysSo()
    {
        VmmResult result = Run("faultloop");

        Assert.That(result.ExitCode, Is.EqualTo(3), result.Errors);
        string[] lines = result.Errors.TrimEnd().Split('\n');
        Assert.That(lines[0], Does.Contain("triple fault at"), "the first one is told");
        Assert.That(lines, Has.Exactly(1).Contain("triple fault"));
        Assert.That(lines[^1], Does.Contain("reset 5 times").And.EndsWith("check --kernel and --initramfs"));
    }

    [Test]
    public void Reset_TripleFaultWithoutAWordAndNotStartedAgain_Exits3AndSaysSo()
    {
        VmmResult result = Run("faultloop", "--on-reboot", "exit");

        Assert.That(result.ExitCode, Is.EqualTo(3), result.Errors);
        Assert.That(result.Errors, Does.Contain("triple fault at").And.EndsWith("vmm: the guest reset by a triple fault before it said or did anything: add console=ttyS0 earlyprintk=ttyS0 to --cmdline to see why, and check --kernel and --initramfs\n"));
    }

    [TestCase("TERM")]
    [TestCase("INT")]
    [TestCase("HUP")]
    public void Signal_EndsTheRun_TheProcessDiesOfIt(string name)
    {
        if (!File.Exists("/usr/bin/strace"))
            Assert.Ignore("strace is missing: run scripts/setup test");
        string trace = Path.Combine(Scratch, "trace"), pid = Path.Combine(Scratch, "pid");
        string command = string.Join(' ', VmmProcess.Command.Select(word => $"'{word}'"));
        using Process shell = Process.Start(new ProcessStartInfo("/bin/sh", ["-c",
            $"strace -f -e trace=none -o '{trace}' sh -c 'echo $$ > {pid}.part; mv {pid}.part {pid}; exec \"$@\"' sh {command} run --kernel '{Payloads.Path("spin")}' < /dev/null"])
        {
            RedirectStandardOutput = true,
        })!;
        Assert.That(shell.StandardOutput.ReadLine(), Does.Contain("spin"));

        using (Process kill = Process.Start("/bin/kill", ["-" + name, File.ReadAllText(pid).Trim()]))
            kill.WaitForExit();
        shell.WaitForExit();

        Assert.That(File.ReadLines(trace).Last(line => line.StartsWith(File.ReadAllText(pid).Trim() + " ", StringComparison.Ordinal)), Does.Contain($"killed by SIG{name}"));
    }

    [Test]
    public void FileSize_MemoryBeyondTheLimit_IsAnErrorThatNamesIt()
    {
        if (!VmmProcess.IsNative)
            Assert.Ignore("the JIT needs files of its own, and does not start under this limit: run scripts/publish-vmm and set VMM_BINARY");
        string command = string.Join(' ', VmmProcess.Command.Select(word => $"'{word}'"));
        using Process shell = Process.Start(new ProcessStartInfo("/bin/sh", ["-c", $"ulimit -f 1; exec {command} run --kernel '{Payloads.Path("hello")}' 2>&1 < /dev/null"])
        {
            RedirectStandardOutput = true,
        })!;
        string output = shell.StandardOutput.ReadToEnd();
        shell.WaitForExit();

        Assert.That(shell.ExitCode, Is.EqualTo(1), output);
        Assert.That(output.TrimEnd().Split('\n'), Has.Length.EqualTo(1));
        Assert.That(output, Does.Contain("ulimit -f"));
    }

    [Test]
    [SupportedOSPlatform("linux")]
    public void Threads_FewerThanItNeeds_IsAnErrorThatNamesTheLimits()
    {
        if (!VmmProcess.IsNative)
            Assert.Ignore("the JIT needs threads of its own: run scripts/publish-vmm and set VMM_BINARY");
        if (Environment.UserName != "root")
            Assert.Ignore("only root can become a user without any other process");
        const UnixFileMode all = UnixFileMode.UserRead | UnixFileMode.UserExecute | UnixFileMode.UserWrite | UnixFileMode.OtherRead | UnixFileMode.OtherExecute;
        File.SetUnixFileMode(Scratch, all);
        string vmm = Path.Combine(Scratch, "vmm"), payload = Path.Combine(Scratch, "payload");
        File.Copy(VmmProcess.Command[0], vmm);
        File.Copy(Payloads.Path("hello"), payload);
        File.SetUnixFileMode(vmm, all);
        File.SetUnixFileMode(payload, all);
        const int user = 54_321, most = 32;

        // With one the runtime itself does not start.
        for (int threads = 2; threads <= most; threads++)
        {
            using Process shell = Process.Start(new ProcessStartInfo("/bin/sh", ["-c",
                $"exec setpriv --reuid={user} --regid=$(stat -c %g /dev/kvm) --clear-groups prlimit --nproc={threads} {vmm} run --cpus 4 --kernel {payload} 2>&1 < /dev/null"])
            {
                RedirectStandardOutput = true,
            })!;
            string output = shell.StandardOutput.ReadToEnd();
            shell.WaitForExit();

            if (shell.ExitCode == 0)
            {
                Assert.That(threads, Is.GreaterThan(4), "there are four vCPUs");
                return;
            }
            Assert.That(shell.ExitCode, Is.EqualTo(1), output);
            Assert.That(output, Does.Contain("pids.max").And.Not.Contain("a bug"), $"{threads} threads");
        }
        Assert.Fail($"{most} threads are not enough");
    }

    [Test]
    public void Run_LinuxKernelWithoutHardwareVirtualisation_IsRefusedUnlessForced()
    {
        if (LinuxHost.WhyNoLinux() is null)
            Assert.Ignore("Linux guests run on this machine");
        string kernel = LinuxGuest.Artifact("kernels", "cloud", "vmlinuz");
        if (!File.Exists(kernel))
            Assert.Ignore("the cloud kernel is missing: run scripts/setup test");

        VmmProcess refused = StartVmm("run", "--kernel", kernel);
        refused.EndInput();
        VmmResult result = refused.WaitForEnd();
        Assert.That(result.ExitCode, Is.EqualTo(1));
        Assert.That(result.Errors, Does.StartWith("vmm: ").And.Contain("--force").And.Contain("vmm check"));
        Assert.That(result.Errors.TrimEnd().Split('\n'), Has.Length.EqualTo(1));

        VmmProcess forced = StartVmm("run", "--kernel", kernel, "--force");
        Assert.That(forced.EndsWithin(TimeSpan.FromSeconds(2)), Is.False);
    }
}
