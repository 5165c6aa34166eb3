using NUnit.Framework;
using Tmds.Linux;

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

    [Test]
    public void Signal_GuestResetsAllTheTime_EndsIt()
    {
        VmmProcess process = Start("resetloop");
        process.WaitForOutput("start\n", times: 20);

        process.Signal(LibC.SIGTERM);

        Assert.That(process.WaitForEnd().ExitCode, Is.EqualTo(128 + LibC.SIGTERM));
    }
}
