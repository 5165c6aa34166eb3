using System.Buffers.Binary;
using NUnit.Framework;
using Vmm.Vhost.Memory;

namespace Vmm.Tests.Acpi;

/// <summary>Offsets and bits as in ACPI 6.5, Tables 5.9 to 5.11.</summary>
public class FadtTests
{
    private byte[] _fadt = [];

    [SetUp]
    public void Build()
    {
        using var machine = new TestMachine(1);
        _fadt = machine.Fadt;
    }

    [Test]
    public void Build_Version_IsAcpi65()
    {
        Assert.That(_fadt, Has.Length.EqualTo(276));
        Assert.That(_fadt[8], Is.EqualTo(6), "major");
        Assert.That(_fadt[131], Is.EqualTo(5), "minor");
    }

    [Test]
    public void Build_Flags_AreOfAReducedMachineWithoutButtons()
    {
        uint flags = BinaryPrimitives.ReadUInt32LittleEndian(_fadt.AsSpan(112));
        Assert.That(flags, Is.EqualTo((1u << 20) | (1u << 10) | (1u << 8) | (1u << 6) | (1u << 5) | (1u << 4) | (1u << 0)));
    }

    [Test]
    public void Build_BootArchitecture_HasAnRtcButNoVgaAnd8042() =>
        Assert.That(BinaryPrimitives.ReadUInt16LittleEndian(_fadt.AsSpan(109)), Is.EqualTo(1 << 2));

    [TestCase(116, 0x602)]
    [TestCase(244, 0x600)]
    [TestCase(256, 0x601)]
    public void Build_Register_IsABytePort(int offset, int port)
    {
        byte[] expected = [1, 8, 0, 1, (byte)port, (byte)(port >> 8), 0, 0, 0, 0, 0, 0];
        Assert.That(_fadt[offset..(offset + 12)], Is.EqualTo(expected));
    }

    [Test]
    public void Build_ResetValue_IsOne() => Assert.That(_fadt[128], Is.EqualTo(1));

    [TestCase(36, 76)]       // FACS, 32-bit DSDT, SCI, the register blocks before the PM timer
    [TestCase(80, 91)]       // the blocks after it, their lengths
    [TestCase(92, 109)]      // more lengths, latencies, RTC alarm and century
    [TestCase(129, 131)]     // ARM
    [TestCase(132, 140)]     // X_FIRMWARE_CTRL
    [TestCase(148, 208)]     // the register blocks again
    [TestCase(220, 244)]
    [TestCase(268, 276)]     // hypervisor vendor
    public void Build_WhatAReducedMachineLacks_IsZero(int start, int end) =>
        Assert.That(_fadt[start..end], Is.All.Zero);

    // Linux takes it from here on a hardware-reduced machine, too.
    [TestCase(false)]
    [TestCase(true)]
    public void Build_PmTimer_IsThereWith32Bits(bool isPc)
    {
        using var machine = new TestMachine(1, isPc: isPc);
        byte[] fadt = machine.Fadt;
        Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(fadt.AsSpan(76)), Is.EqualTo(0x604));
        Assert.That(fadt[91], Is.EqualTo(4), "PM_TMR_LEN");
        Assert.That(fadt[208..220], Is.EqualTo(new byte[] { 1, 32, 0, 3, 0x04, 0x06, 0, 0, 0, 0, 0, 0 }));
        Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(fadt.AsSpan(112)) >> 8 & 1, Is.EqualTo(1), "TMR_VAL_EXT");
    }

    [Test]
    public void Build_PcInterruptControllers_IsNotReducedAndHasThePm1Registers()
    {
        using var machine = new TestMachine(1, isPc: true);
        byte[] fadt = machine.Fadt;
        Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(fadt.AsSpan(112)) >> 20 & 1, Is.Zero, "HW_REDUCED_ACPI");
        Assert.That(BinaryPrimitives.ReadUInt16LittleEndian(fadt.AsSpan(46)), Is.EqualTo(6), "SCI_INT");
        Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(fadt.AsSpan(48)), Is.Zero, "SMI_CMD: always in ACPI mode");
        Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(fadt.AsSpan(56)), Is.EqualTo(0x608), "PM1a_EVT_BLK");
        Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(fadt.AsSpan(64)), Is.EqualTo(0x60C), "PM1a_CNT_BLK");
        Assert.That((fadt[88], fadt[89]), Is.EqualTo(((byte)4, (byte)2)));
        Assert.That(fadt[148..160], Is.EqualTo(new byte[] { 1, 32, 0, 2, 0x08, 0x06, 0, 0, 0, 0, 0, 0 }), "X_PM1a_EVT_BLK");
        Assert.That(fadt[172..184], Is.EqualTo(new byte[] { 1, 16, 0, 2, 0x0C, 0x06, 0, 0, 0, 0, 0, 0 }), "X_PM1a_CNT_BLK");
        Assert.That(fadt[244..268], Is.All.Zero, "the sleep registers of a reduced machine");
        Assert.That(machine.FacsAddress % 64, Is.Zero);
        byte[] facs = machine.Memory.Slice(new GuestAddress(machine.FacsAddress), 64).ToArray();
        Assert.That(TestMachine.Signature(facs), Is.EqualTo("FACS"));
        Assert.That((facs[4], facs[32]), Is.EqualTo(((byte)64, (byte)2)), "length and version");
    }
}
