using NUnit.Framework;
using Tmds.Linux;

namespace Vmm.Tests.Integration.Linux;

/// <summary>The ways in which Linux ends or restarts its machine. That it powers off is in every other test.</summary>
public class PowerTests : LinuxTest
{
    private static readonly TimeSpan s_longEnough = TimeSpan.FromSeconds(3);

    [Test]
    public void Reboot_Default_StartsAgain()
    {
        VmmProcess process = Boot(new LinuxGuest
        {
            Interactive = true,
            Script = """
                echo ready
                read -r answer
                [ "$answer" != reboot ] || reboot -f
                echo "answer: $answer"
                """,
        });
        process.WaitForOutput("ready");
        process.Send("reboot\n"u8);
        process.WaitForOutput("ready", times: 2);
        process.Send("go on\n"u8);
        VmmResult result = process.WaitForEnd();

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain("answer: go on\r\n"), result.Summary);
        Assert.That(result.Errors, Is.Empty, result.Summary);
    }

    // reboot=: Linux Documentation/admin-guide/kernel-parameters.txt. By itself Linux asks the BIOS; the last way it tries is the triple fault.
    [TestCase("reboot -f", "", false)]
    [TestCase("echo b > /proc/sysrq-trigger", "reboot=a", false)]
    [TestCase("echo b > /proc/sysrq-trigger", "reboot=k", false)]
    [TestCase("echo b > /proc/sysrq-trigger", "reboot=t", true)]
    public void Reboot_OnRebootExit_Exits0(string script, string commandLine, bool tripleFault)
    {
        VmmResult result = Run(new LinuxGuest
        {
            Script = $"echo ready; {script}; sleep 10",
            CommandLine = commandLine,
            Options = ["--on-reboot", "exit", "--log-level", "info"],
        });

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain("ready").And.Not.Contain(LinuxGuest.Ended(0)), result.Summary);
        Assert.That(result.Errors, tripleFault ? Does.Contain("triple fault") : Does.Not.Contain("triple fault"), result.Summary);
    }

    [Test]
    public void Panic_Default_Exits3()
    {
        VmmResult result = Run(new LinuxGuest { Cpus = 2, Script = "echo c > /proc/sysrq-trigger" });

        Assert.That(result.ExitCode, Is.EqualTo(3), result.Summary);
        Assert.That(result.Output, Does.Contain("Kernel panic - not syncing: sysrq triggered crash"), result.Summary);
    }

    // None of them has the pvpanic driver when it panics. The user's own panic= counts.
    [TestCase("rdinit=/etc/passwd init=/nonexistent panic=0 panic=2", true, "Requested init /nonexistent failed", "exit")]
    [TestCase("root=/dev/nothing", false, "VFS: Unable to mount root fs", "restart")]
    public void Panic_BeforeAnyDriver_Exits3(string commandLine, bool hasInitramfs, string expected, string onReboot)
    {
        List<string> arguments = [.. new LinuxGuest { CommandLine = commandLine, Options = ["--on-reboot", onReboot] }.Prepare(Scratch)];
        // The guest of the tests asks for panic=-1, which is the default.
        arguments[arguments.IndexOf("--cmdline") + 1] = arguments[arguments.IndexOf("--cmdline") + 1].Replace("panic=-1 ", "", StringComparison.Ordinal);
        if (!hasInitramfs)
            arguments.RemoveRange(arguments.IndexOf("--initramfs"), 2);
        VmmProcess process = StartVmm([.. arguments]);
        process.EndInput();
        VmmResult result = process.WaitForEnd();

        Assert.That(result.ExitCode, Is.EqualTo(3), result.Summary);
        Assert.That(result.Output, Does.Contain("Kernel panic - not syncing: ").And.Contain(expected), result.Summary);
    }

    [Test]
    public void Panic_DriverRemoved_Exits3()
    {
        VmmResult result = Run(new LinuxGuest
        {
            Cpus = 2,
            Script = "rmmod pvpanic-mmio && echo c > /proc/sysrq-trigger",
            Options = ["--on-reboot", "exit", "--virtio-discovery", "cmdline"],
        });

        Assert.That(result.ExitCode, Is.EqualTo(3), result.Summary);
        Assert.That(result.Output, Does.Contain("Kernel panic - not syncing: sysrq triggered crash"), result.Summary);
    }

    [Test]
    public void Panic_OnPanicHalt_IsHeldUntilASignal()
    {
        VmmProcess process = Boot(new LinuxGuest { Cpus = 2, Script = "echo c > /proc/sysrq-trigger", Options = ["--on-panic", "halt"] });
        process.WaitForErrors("the guest is held as it panicked");
        Assert.That(process.EndsWithin(s_longEnough), Is.False, "the VMM ended");
        process.Signal(LibC.SIGTERM);
        VmmResult result = process.WaitForEnd();

        Assert.That(result.ExitCode, Is.EqualTo(128 + LibC.SIGTERM), result.Summary);
    }

    [Test]
    public void PowerButton_ShutdownTimeout_GuestPowersOff()
    {
        VmmProcess process = Boot(new LinuxGuest
        {
            // The guest still has its devices while it powers off: a driver can be started again.
            Script = """
                modprobe -a button evdev virtio_mmio virtio-rng && exec 3< /dev/input/event0 && echo ready && head -c 24 <&3 > /dev/null && echo pressed
                echo LNRO0005:00 > /sys/bus/platform/drivers/virtio-mmio/unbind
                echo LNRO0005:00 > /sys/bus/platform/drivers/virtio-mmio/bind
                echo random=$(head -c 16 /dev/hwrng | wc -c)
                """,
            Options = ["--shutdown-timeout", "300s", "--rng", "src=/dev/urandom"],
        });
        process.EndInput();
        process.WaitForOutput("ready");
        process.Signal(LibC.SIGTERM);
        VmmResult result = process.WaitForEnd();

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain("pressed").And.Contain("random=16").And.Contain(LinuxGuest.Ended(0)), result.Summary);
        Assert.That(result.Errors, Is.Empty, result.Summary);
    }

    [Test]
    public void Halt_AllCpusStopped_Exits0()
    {
        VmmResult result = Run(new LinuxGuest { Cpus = 2, Script = "echo ready; halt -f", Options = ["--log-level", "info"] });

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain("ready").And.Not.Contain(LinuxGuest.Ended(0)), result.Summary);
        Assert.That(result.Errors, Does.Contain("the guest has halted"), result.Summary);
    }
}
