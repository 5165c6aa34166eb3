using System.Buffers.Binary;
using NUnit.Framework;

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
        Assert.That(flags, Is.EqualTo((1u << 20) | (1u << 10) | (1u << 6) | (1u << 5) | (1u << 4) | (1u << 0)));
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

    [TestCase(36, 109)]      // FACS, 32-bit DSDT, SCI, the register blocks, their lengths, RTC alarm and century
    [TestCase(129, 131)]     // ARM
    [TestCase(132, 140)]     // X_FIRMWARE_CTRL
    [TestCase(148, 244)]     // the register blocks again
    [TestCase(268, 276)]     // hypervisor vendor
    public void Build_WhatAReducedMachineLacks_IsZero(int start, int end) =>
        Assert.That(_fadt[start..end], Is.All.Zero);
}
