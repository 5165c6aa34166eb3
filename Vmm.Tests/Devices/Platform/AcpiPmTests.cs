using System.Buffers.Binary;
using NUnit.Framework;
using Vmm.Devices.Platform;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Devices.Platform;

public class AcpiPmTests
{
    private static readonly DateTime s_start = new(2026, 1, 1);

    // ACPI 6.5 §4.8.3.3; ten days of nanoseconds times 3579545 are more than 64 bits.
    [TestCase(0, 0u)]
    [TestCase(1, 3_579_545u)]
    [TestCase(0.5, 1_789_772u)]
    [TestCase(1199.8, 4_294_738_091u)]
    [TestCase(1199.9, 128_749u)]
    [TestCase(864_000, 350_426_880u)]
    public void PmTimer_Time_CountsAt3579545Hertz(double seconds, uint expected)
    {
        var clock = new FakeClock(s_start);
        var timer = new AcpiPmTimer(clock);
        clock.Utc = s_start.AddTicks((long)(seconds * TimeSpan.TicksPerSecond));

        Span<byte> data = stackalloc byte[4];
        timer.Read(0, data);

        Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(data), Is.EqualTo(expected));
    }

    [Test]
    public void PmTimer_NarrowOrBeyond_ReadsThoseBytes()
    {
        var clock = new FakeClock(s_start);
        var timer = new AcpiPmTimer(clock);
        clock.Utc = s_start.AddSeconds(1);   // 0x369E99

        Span<byte> data = stackalloc byte[2];
        timer.Read(1, data);
        Assert.That(data.ToArray(), Is.EqualTo(new byte[] { 0x9E, 0x36 }));
        timer.Write(0, [0, 0, 0, 0]);
        timer.Reset();
        timer.Read(3, data);
        Assert.That(data.ToArray(), Is.EqualTo(new byte[] { 0x00, 0xFF }));
    }

    [TestCase(0x3400, true)]
    [TestCase(0x1400, false)]    // without SLP_EN
    [TestCase(0x3000, false)]    // S4
    public void Pm1_Control_PowersOffForS5Only(int value, bool expected)
    {
        var machine = new FakeMachineEvents();
        var pm1 = new AcpiPm1(machine);
        pm1.Write(AcpiPm1.ControlBlock, [(byte)value, (byte)(value >> 8)]);

        Assert.That(machine.Raised.Contains(MachineEvent.PowerOff), Is.EqualTo(expected));
        Span<byte> data = stackalloc byte[2];
        pm1.Read(AcpiPm1.ControlBlock, data);
        Assert.That(BinaryPrimitives.ReadUInt16LittleEndian(data), Is.EqualTo(value & 0x1C00 | 1), "SLP_EN reads 0, SCI_EN 1");
    }

    // Linux reads back what it enables (ACPICA, "Could not enable").
    [Test]
    public void Pm1_Enable_IsKeptUntilAResetAndStatusIsNever()
    {
        var pm1 = new AcpiPm1(new FakeMachineEvents());
        Span<byte> data = stackalloc byte[8];
        pm1.Write(AcpiPm1.EventBlock, [0xFF, 0xFF, 0x21, 0x05]);
        pm1.Read(AcpiPm1.EventBlock, data);
        Assert.That(data.ToArray(), Is.EqualTo(new byte[] { 0, 0, 0x21, 0x05, 1, 0, 0xFF, 0xFF }));
        pm1.Reset();
        pm1.Read(AcpiPm1.EventBlock, data);
        Assert.That(data[..4].ToArray(), Is.All.Zero);
    }
}
