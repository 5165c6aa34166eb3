using NUnit.Framework;
using Vmm.Acpi;
using Vmm.Vhost.Memory;

namespace Vmm.Tests.Acpi;

public class AcpiTablesTests
{
    [TestCase(1, 0)]
    [TestCase(2, 1)]
    [TestCase(32, 16)]
    [TestCase(254, 16)]
    [TestCase(300, 16)]
    public void Write_AnyMachine_AllTablesAreFoundWholeAndAligned(int cpus, int slots)
    {
        using var machine = new TestMachine(cpus, slots);

        Assert.That(machine.RsdpAddress, Is.EqualTo(0xE0000));
        (ulong Address, byte[] Bytes, string Signature, byte Revision)[] tables =
        [
            (machine.DsdtAddress, machine.Dsdt, "DSDT", 2),
            (machine.FadtAddress, machine.Fadt, "FACP", 6),
            (machine.MadtAddress, machine.Madt, "APIC", 6),
            (machine.XsdtAddress, machine.Xsdt, "XSDT", 1),
        ];
        ulong end = machine.RsdpAddress + 36;
        foreach ((ulong address, byte[] bytes, string signature, byte revision) in tables)
        {
            Assert.That(TestMachine.Signature(bytes), Is.EqualTo(signature));
            Assert.That(bytes[8], Is.EqualTo(revision), signature);
            Assert.That(TestMachine.Sum(bytes), Is.Zero, signature);
            Assert.That(address % 8, Is.Zero, signature);
            Assert.That(address, Is.GreaterThanOrEqualTo(end), signature);
            end = address + (ulong)bytes.Length;
        }
        Assert.That(end, Is.LessThanOrEqualTo(0x10_0000));
    }

    [Test]
    public void Write_Rsdp_HasBothChecksumsAndNoRsdt()
    {
        using var machine = new TestMachine(1);
        byte[] rsdp = machine.Rsdp;

        Assert.That(machine.RsdpAddress % 16, Is.Zero);
        Assert.That(rsdp.AsSpan(0, 8).SequenceEqual("RSD PTR "u8));
        Assert.That(TestMachine.Sum(rsdp.AsSpan(0, 20)), Is.Zero);
        Assert.That(rsdp[15], Is.EqualTo(2));
        Assert.That(BitConverter.ToUInt32(rsdp, 16), Is.Zero);
        Assert.That(BitConverter.ToUInt32(rsdp, 20), Is.EqualTo(36));
        Assert.That(TestMachine.Sum(rsdp), Is.Zero);
    }

    [Test]
    public void Write_Xsdt_ListsFadtAndMadt()
    {
        using var machine = new TestMachine(1);
        Assert.That(machine.Xsdt, Has.Length.EqualTo(36 + 2 * 8));
    }

    [TestCase(4000)]                 // too long
    [TestCase(5000)]                 // too many names
    [TestCase(int.MaxValue)]
    public void Write_TooManyCpus_SaysSo(int cpus)
    {
        VmmException? error = Assert.Throws<VmmException>(() => new TestMachine(cpus).Dispose());
        Assert.That(error?.Message, Does.Contain($"{cpus} CPUs").And.Contain("fewer CPUs"));
    }

    [Test]
    public void Write_EveryCountOfCpus_FitsOrSaysSo()
    {
        for (int cpus = 2900; cpus <= 4097; cpus += 7)
        {
            try
            {
                using var machine = new TestMachine(cpus, 16);
                Assert.That(machine.XsdtAddress + (ulong)machine.Xsdt.Length, Is.LessThanOrEqualTo(0x10_0000));
            }
            catch (VmmException)
            {
                // Too many is an answer; a table cut off or an index out of range is not.
            }
        }
    }

    [TestCase(0)]
    [TestCase(-1)]
    public void Write_NoCpu_Throws(int cpus) =>
        Assert.Throws<ArgumentOutOfRangeException>(() => new TestMachine(cpus).Dispose());

    [TestCase(0xD000_0000UL, 0U, 8U)]
    [TestCase(0xFFFF_F001UL, 0x1000U, 8U)]
    [TestCase(ulong.MaxValue, 0x1000U, 8U)]
    [TestCase(0xD000_0000UL, 0x1000U, 24U)]
    [TestCase(0xD000_0000UL, 0x1000U, uint.MaxValue)]
    public void Write_BadSlot_Throws(ulong address, uint length, uint gsi)
    {
        using GuestMemory memory = GuestMemory.Create([(new GuestAddress(0), 1 << 20)]);
        var config = new AcpiConfig { Cpus = 1, VirtioSlots = [new VirtioMmioSlot(0, new GuestAddress(address), length, gsi)] };
        Assert.Throws<ArgumentException>(() => AcpiTables.Write(memory, config));
    }

    [Test]
    public void Write_TwoSlotsWithOneUid_Throws()
    {
        using GuestMemory memory = GuestMemory.Create([(new GuestAddress(0), 1 << 20)]);
        AcpiConfig config = TestMachine.Config(1, 2);
        config = config with { VirtioSlots = [config.VirtioSlots[0], config.VirtioSlots[1] with { Uid = 0 }] };
        Assert.Throws<ArgumentException>(() => AcpiTables.Write(memory, config));
    }

    [Test]
    public void Write_NoRamThere_Throws()
    {
        using GuestMemory memory = GuestMemory.Create([(new GuestAddress(0), AddressMap.AcpiTablesStart)]);
        Assert.Throws<GuestMemoryException>(() => AcpiTables.Write(memory, TestMachine.Config(1, 0)));
    }
}
