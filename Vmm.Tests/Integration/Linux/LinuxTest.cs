using NUnit.Framework;

namespace Vmm.Tests.Integration.Linux;

/// <summary>A test that boots Linux, on hardware KVM or in the emulated KVM host. A boot takes 5 to 15 s there, so each should
/// show as much as it can.</summary>
[Category("Linux")]
public abstract class LinuxTest : VmmTest
{
    [OneTimeSetUp]
    public void CheckMachine()
    {
        if ((LinuxHost.WhyNoLinux() ?? LinuxGuest.WhyMissing()) is string reason)
            Assert.Ignore(reason);
    }

    /// <summary>Boots <paramref name="guest"/>.</summary>
    private protected VmmProcess Boot(LinuxGuest guest) => StartVmm(guest.Prepare(Scratch));

    /// <summary>Boots <paramref name="guest"/> and waits until its VMM ends.</summary>
    private protected VmmResult Run(LinuxGuest guest)
    {
        VmmProcess process = Boot(guest);
        process.EndInput();
        return process.WaitForEnd();
    }

    /// <summary>Boots <paramref name="guest"/> and has it say what it sees of its machine: all of it must be as it should.</summary>
    /// <param name="guest">The guest; what it runs is given here.</param>
    /// <param name="whileRunning">What else to look at, while the guest is up.</param>
    private protected void BootAndCheck(LinuxGuest guest, Action<VmmProcess>? whileRunning = null)
    {
        VmmProcess process = Boot(guest with { Script = GuestReport.Script + "read -r answer\n", Interactive = true });
        process.WaitForOutput("\nclock=");
        DateTimeOffset now = DateTimeOffset.UtcNow;
        process.WaitForOutput("\nend=");
        whileRunning?.Invoke(process);
        process.Send("end\n"u8);
        VmmResult result = process.WaitForEnd();

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain(LinuxGuest.Ended(0)), result.Summary);
        new GuestReport(result).Check(guest, now);
    }
}
