using System.Buffers.Binary;
using NUnit.Framework;
using Vmm.Acpi;

namespace Vmm.Tests.Acpi;

/// <summary>Offsets as in ACPI 6.5 §5.2.12.</summary>
public class MadtTests
{
    private const int FirstEntry = 44;

    [TestCase(1)]
    [TestCase(2)]
    [TestCase(32)]
    [TestCase(254)]
    [TestCase(255)]
    public void Build_UpTo255Cpus_HasALocalApicForEach(int cpus)
    {
        using var machine = new TestMachine(cpus);
        byte[] madt = machine.Madt;

        Assert.That(madt, Has.Length.EqualTo(FirstEntry + cpus * 8 + 12 + 6));
        Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(madt.AsSpan(36)), Is.EqualTo(0xFEE0_0000));
        Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(madt.AsSpan(40)), Is.Zero, "PCAT_COMPAT");
        for (int cpu = 0; cpu < cpus; cpu++)
        {
            byte[] expected = [0, 8, (byte)cpu, (byte)cpu, 1, 0, 0, 0];
            int entry = FirstEntry + cpu * 8;
            Assert.That(madt[entry..(entry + 8)], Is.EqualTo(expected));
        }
    }

    [TestCase(true, 1)]
    [TestCase(false, 0)]
    public void Build_PcInterruptControllers_AreSaidToBeThere(bool there, int expected)
    {
        byte[] madt = Madt.Build(new AcpiConfig { Cpus = 1, HasPcInterruptControllers = there }).Written.ToArray();
        Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(madt.AsSpan(40)), Is.EqualTo(expected), "PCAT_COMPAT");
    }

    [Test]
    public void Build_PcInterruptControllers_HasTheSciActiveHigh()
    {
        using var machine = new TestMachine(1, isPc: true);
        int entry = FirstEntry + 8 + 12;
        Assert.That(machine.Madt[entry..(entry + 10)], Is.EqualTo(new byte[] { 2, 10, 0, 6, 6, 0, 0, 0, 0x0D, 0 }));
    }

    [Test]
    public void Build_AfterTheCpus_HasTheIoApicAndTheNmi()
    {
        using var machine = new TestMachine(1);
        byte[] ioApic = [1, 12, 0, 0, 0x00, 0x00, 0xC0, 0xFE, 0, 0, 0, 0];
        byte[] nmi = [4, 6, 0xFF, 0, 0, 1];
        Assert.That(machine.Madt[(FirstEntry + 8)..], Is.EqualTo(ioApic.Concat(nmi)));
    }

    [Test]
    public void Build_Cpu255_HasALocalX2Apic()
    {
        using var machine = new TestMachine(256);
        byte[] x2Apic = [9, 16, 0, 0, 255, 0, 0, 0, 1, 0, 0, 0, 255, 0, 0, 0];
        byte[] nmi = [10, 12, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0];
        int entry = FirstEntry + 255 * 8;
        Assert.That(machine.Madt[entry..(entry + 16)], Is.EqualTo(x2Apic));
        Assert.That(machine.Madt[^12..], Is.EqualTo(nmi));
    }
}
