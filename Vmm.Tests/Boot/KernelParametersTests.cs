using NUnit.Framework;
using Vmm.Boot;
using Vmm.Cli;
using Vmm.Machine;

namespace Vmm.Tests.Boot;

public class KernelParametersTests
{
    [TestCase("no-kvmclock", "tsc_early_khz=2099998")]
    [TestCase("console=ttyS0\tno-kvmclock\nquiet", "tsc_early_khz=2099998")]
    [TestCase("nopv quiet", "tsc_early_khz=2099998")]
    [TestCase("console=ttyS0 nopvspin", null)]
    [TestCase("no_kvmclock", "tsc_early_khz=2099998")]
    [TestCase("no-kvmclock-vsyscall", null)]
    [TestCase("no-kvmclock tsc_early_khz=1000000", null)]
    [TestCase("quiet -- no-kvmclock", null)]
    public void Clock_KernelThatMayNotAskKvm_IsToldTheFrequency(string commandLine, string? expected) =>
        Assert.That(KernelParameters.Clock(commandLine, 2_099_998), Is.EqualTo(expected));

    [Test]
    public void Clock_UnknownFrequency_IsNotTold() => Assert.That(KernelParameters.Clock("no-kvmclock", 0), Is.Null);

    [TestCase("quiet", true)]
    [TestCase("quiet swiotlb=65536", false)]
    [TestCase("swiotlb=force", false)]
    [TestCase("quiet -- swiotlb=force", true)]
    [TestCase("xswiotlb=1 swiotlb", true)]
    public void Defaults_ParameterOnTheCommandLine_IsLeftToIt(string commandLine, bool isAdded) =>
        Assert.That(KernelParameters.Defaults(commandLine).Split(' '), isAdded ? Does.Contain("swiotlb=noforce") : Does.Not.Contain("swiotlb=noforce"));

    [TestCase(null, "acpi", "quiet", null)]
    [TestCase(null, "acpi", "nolapic_timer", "--cmdline: nolapic_timer")]
    [TestCase(null, "acpi", "quiet acpi=off noapic", "--cmdline: noapic")]
    [TestCase(null, "acpi", "nolapic-timer", "--cmdline: nolapic_timer")]
    [TestCase(null, "acpi", "pci=noacpi", "--cmdline: pci=noacpi")]
    [TestCase(null, "acpi", "quiet pci=nomsi,noacpi", "--cmdline: pci=noacpi")]
    [TestCase(null, "acpi", "pci=noacpix -- pci=noacpi", null)]
    [TestCase(null, "acpi", "nosmp", "--cmdline: nosmp")]
    [TestCase(null, "acpi", "maxcpus=0", "--cmdline: maxcpus=0")]
    [TestCase(null, "acpi", "maxcpus=01 maxcpus=1", null)]
    [TestCase(null, "acpi", "nolapic_timers -- nolapic_timer", null)]
    [TestCase(null, "cmdline", "quiet", "--virtio-discovery cmdline")]
    [TestCase("pc", "acpi", "quiet", "--interrupts pc")]
    [TestCase("apic", "cmdline", "nolapic_timer", null)]
    public void WhyPc_Configuration_NamesWhatNeedsIt(string? interrupts, string discovery, string commandLine, string? expected)
    {
        var options = new RunOptions { Kernel = "kernel", Interrupts = interrupts, VirtioDiscovery = discovery, CommandLine = commandLine };
        Assert.That(InterruptControllers.WhyPc(RunOptionsReader.Read(options)), Is.EqualTo(expected));
    }
}
