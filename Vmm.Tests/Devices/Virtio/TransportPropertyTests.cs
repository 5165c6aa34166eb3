using FsCheck;
using FsCheck.Fluent;
using NUnit.Framework;
using Vmm.Devices.Virtio;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Register = Vmm.Devices.Virtio.VirtioMmioRegister;

namespace Vmm.Tests.Devices.Virtio;

/// <summary>Random programs of register writes, as a hostile driver might run them, against a model.</summary>
public class TransportPropertyTests
{
    private static readonly int[] s_registers =
    [
        0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x60, 0x64, 0x70, 0x80, 0x84, 0x90, 0x94, 0xA0, 0xA4, 0xAC, 0xC0, 0xFC, 0x00, 0x34, 0x200,
    ];

    private static readonly uint[] s_values =
    [
        0, 1, 2, 3, 4, 5, 7, 8, 11, 15, 16, 64, 128, 131, 256, 0x1000, 0x2000, 0x3000, 0xFFFF0, 0x100, 0x101, uint.MaxValue,
    ];

    // The steps of a good driver, so that random programs get beyond the first of them.
    private static readonly (int Offset, uint Value)[] s_steps =
    [
        (Register.Status, 1), (Register.Status, 3), (Register.DriverFeaturesSel, 0), (Register.DriverFeatures, 5),
        (Register.DriverFeaturesSel, 1), (Register.DriverFeatures, (uint)(VirtioFeatures.Version1 >> 32)),
        (Register.Status, 11), (Register.QueueSel, 0), (Register.QueueNum, 16), (Register.QueueDescLow, 0x1000),
        (Register.QueueDriverLow, 0x2000), (Register.QueueDeviceLow, 0x3000), (Register.QueueReady, 1), (Register.Status, 15),
    ];

    private static readonly Gen<(int Offset, uint Value)> s_anything = Gen.Elements(s_registers).SelectMany(
        offset => Gen.OneOf(Gen.Elements(s_values), Gen.Choose(int.MinValue, int.MaxValue).Select(value => (uint)value)),
        (offset, value) => (offset, value));

    // A prefix of the good steps with something left out, then anything, several times over.
    private static readonly Gen<(int Offset, uint Value)[]> s_program = Gen.Choose(0, s_steps.Length)
        .SelectMany(
            length => Gen.Choose(0, 3 * s_steps.Length),
            (length, leftOut) => s_steps.Take(length).Where((_, i) => i != leftOut))
        .SelectMany(_ => s_anything.ArrayOf(), (steps, rest) => steps.Concat(rest))
        .ListOf(3)
        .Select(parts => parts.SelectMany(part => part).ToArray());

    [Test]
    public void Write_AnyProgram_DoesWhatTheModelDoes()
    {
        using GuestMemory memory = GuestMemory.Create([(new(0), 1 << 20)]);
        int running = 0, broken = 0;
        Prop.ForAll(s_program.ToArbitrary(), program =>
        {
            var device = new FakeVirtioDevice();
            using var transport = new VirtioMmioTransport(device, memory);
            var driver = new VirtioDriver(transport);
            var model = new TransportModel();
            foreach ((int offset, uint value) in program)
            {
                driver[offset] = value;
                model.Write(offset, value);
                Compare(driver, model, $"after 0x{offset:x} = 0x{value:x} in {string.Join(' ', program)}");
            }
            running += (model.Status & 0x4F) == 0xF ? 1 : 0;
            broken += (model.Status & 0x40) != 0 ? 1 : 0;
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(2000));

        // Else the programs would show nothing.
        Assert.That(running, Is.GreaterThan(10));
        Assert.That(broken, Is.GreaterThan(10));
    }

    private static void Compare(VirtioDriver driver, TransportModel model, string when)
    {
        Assert.That(driver[Register.Status], Is.EqualTo(model.Status), $"Status {when}");
        Assert.That(driver[Register.InterruptStatus], Is.EqualTo(model.InterruptStatus), $"InterruptStatus {when}");
        Assert.That(driver[Register.DeviceFeatures], Is.EqualTo(model.DeviceFeatures), $"DeviceFeatures {when}");
        Assert.That(driver[Register.QueueNumMax], Is.EqualTo(model.QueueNumMax), $"QueueNumMax {when}");
        Assert.That(driver[Register.QueueReady], Is.EqualTo(model.QueueReady), $"QueueReady {when}");
        Assert.That(driver[Register.ShmLenLow], Is.EqualTo(model.ShmLenLow), $"ShmLenLow {when}");
        Assert.That(driver[Register.MagicValue], Is.EqualTo(0x74726976), $"MagicValue {when}");
    }
}
