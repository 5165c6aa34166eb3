using System.Globalization;
using NUnit.Framework;

namespace Vmm.Tests.Integration;

/// <summary>Ports, memory, interrupts, clock and CPUs as a guest sees them.</summary>
public class AccessTests : KvmTest
{
    [Test]
    public void Ports_Unclaimed_ReadAllOnes()
    {
        VmmResult result = Run("ports");

        Assert.That(result.Output, Is.EqualTo("""
            in 8: 0xff
            in 16: 0xffff
            in 32: 0xffffffff
            in 32 after out: 0xffffffff
            insb: all ones
            insw: all ones
            insl: all ones
            outs: done
            rep outsb works

            """));
        Assert.That(result.ExitCode, Is.Zero, result.Errors);
    }

    [Test]
    public void Memory_NoDevice_ReadsAllOnes()
    {
        VmmResult result = Run("mmio");

        Assert.That(result.Output, Is.EqualTo("""
            read 8: 0xff
            read 16: 0xffff
            read 32: 0xffffffff
            read 64: 0xffffffffffffffff
            read 64 across a page: 0xffffffffffffffff
            copied: 0xffffffffffffffff 0xffffffffffffffff
            read 64 after writes: 0xffffffffffffffff
            read 64 across the end of RAM: 0xffffffff12345678

            """));
        Assert.That(result.ExitCode, Is.Zero, result.Errors);
    }

    [Test]
    public void Unclaimed_LogLevelDebug_IsLoggedOnceAnAddress()
    {
        VmmResult ports = Run("ports", "--log-level", "debug");
        VmmResult memory = Run("mmio", "--log-level", "debug");

        Assert.That(Lines(ports.Errors, "0xa00").Length, Is.EqualTo(1), ports.Errors);
        Assert.That(Lines(memory.Errors, "0xd8000000").Length, Is.EqualTo(1), memory.Errors);
    }

    [Test]
    public void Unclaimed_Default_IsNotLogged()
    {
        Assert.That(Run("ports").Errors, Is.Empty);
        Assert.That(Run("mmio").Errors, Is.Empty);
    }

    // Without ACPI's discovery the machine has a PC's interrupt controllers.
    [TestCase("acpi")]
    [TestCase("cmdline")]
    public void Interrupts_GuestHalted_WakeIt(string discovery)
    {
        VmmResult result = Run("interrupt", "--virtio-discovery", discovery);

        Assert.That(result.Output, Is.EqualTo("""
            serial interrupt, cause 0x2
            *
            serial interrupt after a byte, cause 0x2
            timer interrupt
            serial interrupts while masked: 0x0
            level-triggered interrupts

            """));
        Assert.That(result.ExitCode, Is.Zero, result.Errors);
    }

    [Test]
    public void Clock_Read_IsTheHosts()
    {
        VmmProcess process = Start("rtc");
        process.WaitForOutput("\n");
        DateTime host = DateTime.UtcNow;
        VmmResult result = process.WaitForEnd();

        DateTime guest = DateTime.ParseExact(result.Output, "yyyy-MM-dd HH:mm:ss\n", CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal
            | DateTimeStyles.AdjustToUniversal);
        Assert.That(guest, Is.EqualTo(host).Within(TimeSpan.FromSeconds(3)));
    }

    [TestCase(1)]
    [TestCase(2)]
    [TestCase(3)]
    [TestCase(4)]
    public void Cpus_StartedByInitAndSipi_SayTheirApicIds(int count)
    {
        VmmResult result = Run("smp", "--cpus", $"boot={count}");

        string others = string.Concat(Enumerable.Range(1, count - 1).Select(id => $"cpu 0x{id:x}: runs, apic id 0x{id:x}\n"));
        Assert.That(result.Output, Is.EqualTo($"boot cpu: apic id 0x0\n{others}no more cpus\n"));
        Assert.That(result.ExitCode, Is.Zero, result.Errors);
    }

    [TestCase(255)]
    [TestCase(300)]
    public void Cpus_MoreThanXApicCanName_AreStartedAndInterrupted(int count)
    {
        VmmResult result = Run("x2apic", "--cpus", $"boot={count}");

        Assert.That(result.Output, Is.EqualTo($"others: 0x{count - 1:x}\nlast: 0x{count - 1:x}\ninterrupted: 0x{count - 1:x}\n"), result.Errors);
        Assert.That(result.ExitCode, Is.Zero, result.Errors);
    }

    private static string[] Lines(string text, string part) =>
        text.Split('\n').Where(line => line.Contains(part, StringComparison.OrdinalIgnoreCase)).ToArray();
}
