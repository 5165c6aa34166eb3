using NUnit.Framework;
using Vmm.Devices.Bus;
using Vmm.Devices.Platform;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Devices.Platform;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class SmallDevicesTests
{
    private readonly FakeMachineEvents _machine = new();

    private static byte Read(IBusDevice device, ulong offset)
    {
        byte[] data = [0x5A];
        device.Read(offset, data);
        return data[0];
    }

    [Test]
    public void I8042_ResetCommand_ResetsMachineOnce()
    {
        var controller = new I8042Reset(_machine);
        controller.CommandPort.Write(0, [0xAA]);
        controller.DataPort.Write(0, [0xFE]);
        Assert.That(_machine.Raised, Is.Empty);
        controller.CommandPort.Write(0, [0xFE]);
        Assert.That(_machine.Raised, Is.EqualTo(new[] { MachineEvent.Reset }));
    }

    [Test]
    public void I8042_Reads_SayNothingToReadAndReadyForCommands()
    {
        var controller = new I8042Reset(_machine);
        Assert.That(Read(controller.CommandPort, 0), Is.Zero);
        Assert.That(Read(controller.DataPort, 0), Is.Zero);
    }

    [TestCase((5 << 2) | (1 << 5), true)]
    [TestCase(5 << 2, false, Description = "not enabled")]
    [TestCase((3 << 2) | (1 << 5), false, Description = "S3")]
    [TestCase(0xFF, false, Description = "type 7")]
    public void AcpiPower_SleepControl_PowersOffForS5Only(int value, bool expected)
    {
        var power = new AcpiPower(_machine);
        power.Write(AcpiPower.SleepControl, [(byte)value]);
        Assert.That(_machine.Raised, Is.EqualTo(expected ? [MachineEvent.PowerOff] : Array.Empty<MachineEvent>()));
        Assert.That(Read(power, AcpiPower.SleepControl), Is.EqualTo(value & 0x1C), "SLP_EN reads 0");
    }

    [Test]
    public void AcpiPower_SleepStatus_NeverSaysWoken()
    {
        var power = new AcpiPower(_machine);
        power.Write(AcpiPower.SleepStatus, [0x80]);
        Assert.That(Read(power, AcpiPower.SleepStatus), Is.Zero);
        Assert.That(_machine.Raised, Is.Empty);
    }

    [Test]
    public void AcpiPower_ResetRegister_ResetsForItsValueOnly()
    {
        var power = new AcpiPower(_machine);
        power.Write(AcpiPower.ResetRegister, [0x02]);
        Assert.That(_machine.Raised, Is.Empty);
        power.Write(AcpiPower.ResetRegister, [AcpiPower.ResetValue]);
        Assert.That(_machine.Raised, Is.EqualTo(new[] { MachineEvent.Reset }));
    }

    [Test]
    public void AcpiPower_WideAccess_ActsOnConsecutiveRegisters()
    {
        var power = new AcpiPower(_machine);
        power.Write(AcpiPower.SleepStatus, [0x00, AcpiPower.ResetValue]);
        Assert.That(_machine.Raised, Is.EqualTo(new[] { MachineEvent.Reset }));
        byte[] data = new byte[4];
        power.Read(0, data);
        Assert.That(data, Is.EqualTo(new byte[] { 0, 0, 0, 0xFF }));
    }

    [Test]
    public void PvPanic_Read_OffersPanickedAndCrashLoaded() =>
        Assert.That(Read(new PvPanic(_machine), 0), Is.EqualTo(3));

    [TestCase(1, MachineEvent.Panic)]
    [TestCase(3, MachineEvent.Panic)]
    [TestCase(2, MachineEvent.CrashKernel)]
    [TestCase(0xFC, null)]
    public void PvPanic_Write_TellsOfThePanic(int value, MachineEvent? expected)
    {
        new PvPanic(_machine).Write(0, [(byte)value]);
        Assert.That(_machine.Raised, Is.EqualTo(expected is { } told ? [told] : Array.Empty<MachineEvent>()));
    }

    [Test]
    public void AnyAccess_EveryDeviceWidthAndOffset_NeverThrows()
    {
        var random = new Random(1);
        var controller = new I8042Reset(_machine);
        IBusDevice[] devices =
        [
            controller.DataPort, controller.CommandPort, new AcpiPower(_machine), new PvPanic(_machine), new Rtc(TimeProvider.System),
            new Uart16550(new FakeInterruptLine(), new FakeUartOutput { Room = 100 }), new IoApic(24, new FakeInterruptRoutes()),
        ];
        byte[] buffer = new byte[8];
        for (int i = 0; i < 200_000; i++)
        {
            IBusDevice device = devices[random.Next(devices.Length)];
            ulong offset = random.Next(20) == 0 ? (ulong)random.NextInt64() : (ulong)random.Next(0x12);
            Span<byte> data = buffer.AsSpan(0, 1 << random.Next(4));
            random.NextBytes(data);
            if (random.Next(2) == 0)
                device.Read(offset, data);
            else
                device.Write(offset, data);
            if (device is Uart16550 uart && random.Next(4) == 0)
                Assert.That(uart.Receive(data), Is.InRange(0, data.Length));
            if (random.Next(1000) == 0)
                device.Reset();
        }
    }
}
