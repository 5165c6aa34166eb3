using NUnit.Framework;
using Vmm.Devices.Bus;

namespace Vmm.Tests.Devices.Bus;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class IoBusTests
{
    private readonly IoBus _bus = new("test");

    [TestCase(0x0FFUL, 1UL, true)]
    [TestCase(0x0FFUL, 2UL, false)]
    [TestCase(0x100UL, 1UL, false)]
    [TestCase(0x104UL, 1UL, false)]
    [TestCase(0x107UL, 4UL, false)]
    [TestCase(0x000UL, 0x1000UL, false)]
    [TestCase(0x108UL, 4UL, true)]
    public void Attach_NextToOrOverAnother_RefusesOverlap(ulong start, ulong length, bool allowed)
    {
        _bus.Attach(0x100, 8, new Recorder());
        if (allowed)
            Assert.DoesNotThrow(() => _bus.Attach(start, length, new Recorder()));
        else
            Assert.Throws<ArgumentException>(() => _bus.Attach(start, length, new Recorder()));
    }

    [TestCase(0UL, 0UL)]
    [TestCase(ulong.MaxValue, 2UL)]
    public void Attach_EmptyOrWrapping_Throws(ulong start, ulong length) =>
        Assert.Throws<ArgumentException>(() => _bus.Attach(start, length, new Recorder()));

    [Test]
    public void Attach_LastAddressOfAll_IsReached()
    {
        var device = new Recorder();
        _bus.Attach(ulong.MaxValue, 1, device);
        _bus.Write(ulong.MaxValue, [7]);
        Assert.That(device.Log, Is.EqualTo(new[] { "write 0+1" }));
    }

    [Test]
    public void ReadAndWrite_InsideDevices_ArriveWithTheirOffsets()
    {
        Recorder low = new(), high = new();
        _bus.Attach(0x200, 4, high);
        _bus.Attach(0x100, 8, low);
        byte[] data = new byte[4];
        _bus.Read(0x104, data);
        _bus.Write(0x203, data.AsSpan(0, 1));
        Assert.That(low.Log, Is.EqualTo(new[] { "read 4+4" }));
        Assert.That(high.Log, Is.EqualTo(new[] { "write 3+1" }));
        Assert.That(data, Is.All.EqualTo(0x5A));
    }

    [TestCase(0x0FFUL, 1)]
    [TestCase(0x0FFUL, 2, Description = "begins before the device")]
    [TestCase(0x107UL, 2, Description = "crosses its end")]
    [TestCase(0x101UL, 8, Description = "crosses its end")]
    [TestCase(0x108UL, 1)]
    [TestCase(ulong.MaxValue, 8, Description = "would wrap")]
    public void Access_NotInsideOneDevice_ReadsAsAllOnes(ulong address, int width)
    {
        var device = new Recorder();
        _bus.Attach(0x100, 8, device);
        byte[] data = new byte[width];
        _bus.Read(address, data);
        _bus.Write(address, data);
        Assert.That(data, Is.All.EqualTo(0xFF));
        Assert.That(device.Log, Is.Empty);
    }

    [Test]
    public void Reset_TwoDevices_ResetsBoth()
    {
        Recorder first = new(), second = new();
        _bus.Attach(1, 1, first);
        _bus.Attach(2, 1, second);
        _bus.Reset();
        Assert.That(first.Log.Concat(second.Log), Is.EqualTo(new[] { "reset", "reset" }));
    }

    private sealed class Recorder : IBusDevice
    {
        public List<string> Log { get; } = [];

        public void Read(ulong offset, Span<byte> data)
        {
            Log.Add($"read {offset}+{data.Length}");
            data.Fill(0x5A);
        }

        public void Write(ulong offset, ReadOnlySpan<byte> data) => Log.Add($"write {offset}+{data.Length}");

        public void Reset() => Log.Add("reset");
    }
}
