using NUnit.Framework;
using Vmm.Devices.Platform;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Devices.Platform;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class RtcTests
{
    private const byte Set = 0x80, Binary = 0x04, TwentyFourHours = 0x02;

    private readonly FakeClock _clock = new(new DateTime(2026, 2, 28, 21, 43, 59));   // a Saturday
    private readonly Rtc _rtc;

    public RtcTests() => _rtc = new Rtc(_clock);

    private byte Read(byte register)
    {
        byte[] data = [0];
        _rtc.Write(0, [register]);
        _rtc.Read(1, data);
        return data[0];
    }

    private void Write(byte register, byte value)
    {
        _rtc.Write(0, [register]);
        _rtc.Write(1, [value]);
    }

    private byte[] ReadTime() => [.. new byte[] { 0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, 0x32 }.Select(Read)];

    [TestCase(TwentyFourHours, new byte[] { 0x59, 0x43, 0x21, 0x07, 0x28, 0x02, 0x26, 0x20 })]
    [TestCase(0, new byte[] { 0x59, 0x43, 0x89, 0x07, 0x28, 0x02, 0x26, 0x20 })]
    [TestCase(Binary | TwentyFourHours, new byte[] { 59, 43, 21, 7, 28, 2, 26, 20 })]
    [TestCase(Binary, new byte[] { 59, 43, 0x80 | 9, 7, 28, 2, 26, 20 })]
    public void Read_EachMode_GivesUtcInItsEncoding(int mode, byte[] expected)
    {
        Write(0x0B, (byte)mode);
        Assert.That(ReadTime(), Is.EqualTo(expected));
    }

    [TestCase(0, 0x12)]
    [TestCase(1, 0x01)]
    [TestCase(11, 0x11)]
    [TestCase(12, 0x92)]
    [TestCase(13, 0x81)]
    [TestCase(23, 0x91)]
    public void Read_TwelveHourMode_NoonAndMidnightAreTwelve(int hour, int expected)
    {
        _clock.Utc = new DateTime(2026, 1, 1, hour, 0, 0, DateTimeKind.Utc);
        Write(0x0B, 0);
        Assert.That(Read(0x04), Is.EqualTo(expected));
    }

    [Test]
    public void Read_AfterReset_IsBcdAndTwentyFourHours() => Assert.That(Read(0x0B), Is.EqualTo(TwentyFourHours));

    [Test]
    public void Read_StatusA_UpdateIsInProgressOnlyJustBeforeTheSecond()
    {
        DateTime second = _clock.Utc;
        foreach ((int microseconds, bool updating) in new[] { (0, false), (500_000, false), (999_700, false), (999_800, true), (1_000_000, false) })
        {
            _clock.Utc = second.AddMicroseconds(microseconds);
            Assert.That((Read(0x0A) & 0x80) != 0, Is.EqualTo(updating), $"at {microseconds} µs");
        }
    }

    [Test]
    public void Read_WhileSet_TimeStandsStillAndNoUpdateIsInProgress()
    {
        Write(0x0B, Set | TwentyFourHours);
        _clock.Utc = _clock.Utc.AddMinutes(1).AddMicroseconds(999_900);
        Assert.That(Read(0x02), Is.EqualTo(0x43));
        Assert.That(Read(0x0A) & 0x80, Is.Zero);
        Write(0x0B, TwentyFourHours);
        Assert.That(Read(0x02), Is.EqualTo(0x44));
    }

    [Test]
    public void Write_TimeRegisters_AreIgnored()
    {
        byte[] before = ReadTime();
        foreach (byte register in new byte[] { 0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, 0x32 })
            Write(register, 0xFF);
        Assert.That(ReadTime(), Is.EqualTo(before));
    }

    [Test]
    public void Read_StatusCAndD_NoInterruptAndValid()
    {
        Write(0x0C, 0xFF);
        Write(0x0D, 0x40);
        Assert.That(Read(0x0C), Is.Zero);
        Assert.That(Read(0x0D), Is.EqualTo(0x80), "Linux takes bit 6 for a clock that does not work");
    }

    [Test]
    public void Write_Ram_IsKeptAndNmiBitOfIndexIgnored()
    {
        Write(0x0F, 0x0A);
        Write(0x7F, 0x55);
        Assert.That(Read(0x80 | 0x0F), Is.EqualTo(0x0A));
        Assert.That(Read(0xFF), Is.EqualTo(0x55));
    }

    [Test]
    public void WideAccess_IndexAndData_ActsOnBoth()
    {
        _rtc.Write(0, [0x40, 0x77]);
        byte[] data = new byte[4];
        _rtc.Read(0, data);
        Assert.That(data, Is.EqualTo(new byte[] { 0xFF, 0x77, 0xFF, 0xFF }));
    }
}
