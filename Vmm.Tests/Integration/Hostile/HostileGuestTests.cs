using NUnit.Framework;

namespace Vmm.Tests.Integration.Hostile;

/// <summary>What a hostile guest can do to the machine that is no virtio device, and to itself.</summary>
public class HostileGuestTests : HostileGuestTest
{
    private const int Sigterm = 15;
    private static readonly TimeSpan s_ownEnd = TimeSpan.FromSeconds(2);    // for what a guest does to itself; most are done in milliseconds

    [Test]
    public void Platform_Attacked_HarmsNobodyElse(
        [Values("ports", "strings", "routes", "apic", "msrs", "nothing")] string attack, [Values("apic", "pc")] string interrupts) =>
        Attack("badplatform", attack, 2, "--interrupts", interrupts, "--rng", "src=/dev/urandom");

    /// <summary>The guest resets, stands still, or cannot be run on; then the VMM ends with one line and the processor's state.</summary>
    [Test]
    public void Guest_WrecksItself_VmmEndsInOrder([Values(
        "fetch-nothing", "fetch-registers", "fetch-end", "stack", "idt", "gdt", "cr3-registers", "cr3-end", "tables", "kernel", "apic-base", "efer",
        "init", "nmi", "smi", "hyperv-reset", "hyperv-crash", "hypercalls")] string how)
    {
        VmmProcess process = StartAttacker("selfharm", how, "--rng", "src=/dev/urandom", "--on-reboot", "exit");
        process.Send("r"u8);
        bool endedItself = process.EndsWithin(s_ownEnd);
        if (!endedItself)
            process.Signal(Sigterm);
        VmmResult result = process.WaitForEnd();

        Assert.That(result.ExitCode, endedItself ? Is.AnyOf(0, 1) : Is.EqualTo(128 + Sigterm), result.Summary);
        Assert.That(result.Errors, result.ExitCode == 1 ? Does.StartWith("vmm: vCPU ") : Is.Not.Null, result.Summary);
        CheckErrors(result.Errors, 40);
        Assert.That(() => ProcFs.ProcessesWithEnvironment(VmmProcess.Mark), Is.Empty.After(5000, 50), "processes");
    }
}
