using NUnit.Framework;
using Vmm.Devices.Platform;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Devices.Platform;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class Uart16550Tests
{
    private const int Data = SerialDriver.Data, Ier = SerialDriver.Ier, Iir = SerialDriver.Iir, Fcr = SerialDriver.Fcr,
        Lcr = SerialDriver.Lcr, Mcr = SerialDriver.Mcr, Lsr = SerialDriver.Lsr, Msr = SerialDriver.Msr, Scr = SerialDriver.Scr;

    private const int None = 0xC1, ModemStatus = 0xC0, TransmitEmpty = 0xC2, DataAvailable = 0xC4, LineStatus = 0xC6, Timeout = 0xCC;

    private readonly FakeInterruptLine _line = new();
    private readonly FakeUartOutput _output = new();
    private readonly Uart16550 _uart;
    private readonly SerialDriver _guest;

    public Uart16550Tests()
    {
        _uart = new Uart16550(_line, _output);
        _guest = new SerialDriver(_uart);
    }

    private void EnableFifos(int trigger = 1)
    {
        _guest.Out(Fcr, 1 | (trigger switch { 1 => 0, 4 => 1, 8 => 2, _ => 3 } << 6));
        _guest.Out(Mcr, 0x0B);
    }

    private static byte[] Bytes(int count) => [.. Enumerable.Range(1, count).Select(value => (byte)value)];

    [Test]
    public void Read_AfterReset_IsAsTheDataSheetSays()
    {
        foreach (int register in new[] { Ier, Lcr, Mcr, Scr, Data })
            _guest.Out(register, 0x5A);
        _guest.Out(Lcr, 0);
        _guest.Out(Fcr, 0xC1);
        _uart.Reset();
        Assert.That(_guest.In(Ier), Is.Zero);
        Assert.That(_guest.In(Iir), Is.EqualTo(0x01));
        Assert.That(_guest.In(Lcr), Is.Zero);
        Assert.That(_guest.In(Mcr), Is.Zero);
        Assert.That(_guest.In(Lsr), Is.EqualTo(0x60));
        Assert.That(_guest.In(Msr), Is.EqualTo(0xB0));
    }

    [Test]
    public void WriteThenRead_StorageRegisters_KeepTheirBits()
    {
        _guest.Out(Scr, 0xA5);
        _guest.Out(Ier, 0xFF);
        _guest.Out(Mcr, 0xEF);
        _guest.Out(Lcr, 0x83);
        _guest.Out(Data, 0x34);
        _guest.Out(Ier, 0x12);
        Assert.That(_guest.In(Data), Is.EqualTo(0x34));
        Assert.That(_guest.In(Ier), Is.EqualTo(0x12));
        _guest.Out(Lcr, 0x03);
        Assert.That(_guest.In(Scr), Is.EqualTo(0xA5));
        Assert.That(_guest.In(Ier), Is.EqualTo(0x0F));
        Assert.That(_guest.In(Mcr), Is.EqualTo(0x0F));
        Assert.That(_output.Bytes, Is.Empty, "with DLAB set, the first register is the divisor");
    }

    [Test]
    public void Write_Data_IsSentAtOnce()
    {
        _guest.Out(Data, 'h');
        _guest.Out(Data, 'i');
        Assert.That(_output.Bytes, Is.EqualTo("hi"u8.ToArray()));
        Assert.That(_guest.In(Lsr) & 0x60, Is.EqualTo(0x60));
        Assert.That(_line.Edges, Is.Zero);
    }

    [Test]
    public void WideAccess_FourBytes_ActsOnConsecutiveRegisters()
    {
        _uart.Write(Data, [(byte)'x', 0x05, 0x01, 0x03]);
        byte[] data = new byte[4];
        _uart.Read(Ier, data);
        Assert.That(data, Is.EqualTo(new byte[] { 0x05, None, 0x03, 0x00 }));
        _uart.Read(Scr, data);
        Assert.That(data, Is.EqualTo(new byte[] { 0x00, 0xFF, 0xFF, 0xFF }));
        Assert.That(_output.Bytes, Is.EqualTo("x"u8.ToArray()));
    }

    [Test]
    public void TransmitInterrupt_Enabled_RisesAtOnceAndOnEachWrite()
    {
        EnableFifos();
        _guest.Out(Ier, 0x02);
        Assert.That(_line.Edges, Is.EqualTo(1));
        Assert.That(_guest.In(Iir), Is.EqualTo(TransmitEmpty));
        Assert.That(_guest.In(Iir), Is.EqualTo(None), "reading it as the cause clears it");
        _guest.Out(Data, 'a');
        Assert.That(_line.Edges, Is.EqualTo(2));
        _guest.Out(Data, 'b');
        Assert.That(_line.Edges, Is.EqualTo(2), "it was pending already");
        _guest.Out(Ier, 0);
        Assert.That(_guest.In(Iir), Is.EqualTo(None));
    }

    [Test]
    public void Interrupts_AllCauses_AreReportedByPriority()
    {
        EnableFifos(trigger: 4);
        _guest.Out(Mcr, 0x10);
        for (int i = 0; i < 17; i++)
            _guest.Out(Data, i);
        _guest.Out(Mcr, 0x13);   // CTS and DSR change in loopback
        _guest.Out(Ier, 0x0F);
        Assert.That(_guest.In(Iir), Is.EqualTo(LineStatus));
        Assert.That(_guest.In(Lsr) & 0x02, Is.EqualTo(0x02), "overrun");
        Assert.That(_guest.In(Lsr) & 0x02, Is.Zero, "read once");
        Assert.That(_guest.In(Iir), Is.EqualTo(DataAvailable));
        for (int i = 0; i < 13; i++)
            Assert.That(_guest.In(Data), Is.EqualTo(i), "the overrun lost the last byte");
        Assert.That(_guest.In(Iir), Is.EqualTo(Timeout), "three left, below the trigger level");
        for (int i = 13; i < 16; i++)
            Assert.That(_guest.In(Data), Is.EqualTo(i));
        Assert.That(_guest.In(Iir), Is.EqualTo(TransmitEmpty));
        Assert.That(_guest.In(Iir), Is.EqualTo(ModemStatus));
        Assert.That(_guest.In(Msr) & 0x0F, Is.Not.Zero);
        Assert.That(_guest.In(Iir), Is.EqualTo(None));
        Assert.That(_output.Bytes, Is.Empty, "loopback sends nothing out");
    }

    [TestCase(1)]
    [TestCase(4)]
    [TestCase(8)]
    [TestCase(14)]
    public void Receive_AroundTriggerLevel_IsTimeoutBelowAndDataFromThere(int trigger)
    {
        EnableFifos(trigger);
        _guest.Out(Ier, 0x01);
        if (trigger > 1)
        {
            Assert.That(_uart.Receive(Bytes(trigger - 1)), Is.EqualTo(trigger - 1));
            Assert.That(_guest.In(Iir), Is.EqualTo(Timeout));
        }
        Assert.That(_uart.Receive(Bytes(trigger == 1 ? 1 : 2)), Is.Positive);
        Assert.That(_guest.In(Iir), Is.EqualTo(DataAvailable));
    }

    [Test]
    public void Receive_MoreThanTheFifoHolds_TakesSixteenAndAsksForMoreWhenRead()
    {
        int asked = 0;
        _uart.InputReady += () => asked++;
        EnableFifos();
        Assert.That(_uart.Receive(Bytes(20)), Is.EqualTo(16));
        Assert.That(_uart.Receive(Bytes(1)), Is.Zero);
        for (int i = 0; i < 16; i++)
        {
            Assert.That(asked, Is.Zero);
            Assert.That(_guest.In(Data), Is.EqualTo(i + 1));
        }
        Assert.That(asked, Is.EqualTo(1));
        Assert.That(_guest.In(Lsr) & 0x03, Is.Zero, "neither data nor overrun");
    }

    [Test]
    public void Receive_FifosOff_TakesOneByte()
    {
        _guest.Out(Mcr, 0x02);
        _guest.Out(Ier, 0x01);
        Assert.That(_uart.Receive(Bytes(5)), Is.EqualTo(1));
        Assert.That(_guest.In(Iir), Is.EqualTo(0x04));
    }

    [Test]
    public void Receive_AgainWhilePending_TriggersAgain()
    {
        EnableFifos();
        _guest.Out(Ier, 0x01);
        _uart.Receive(Bytes(1));
        _uart.Receive(Bytes(1));
        Assert.That(_line.Edges, Is.EqualTo(2));
    }

    [TestCase(Ier, 0x01)]
    [TestCase(Mcr, 0x02)]
    public void Receive_GuestDoesNotListenYet_WaitsUntilItDoes(int register, int value)
    {
        int asked = 0;
        _uart.InputReady += () => asked++;
        Assert.That(_uart.Receive(Bytes(3)), Is.Zero);
        Assert.That(_guest.Autoconfigure(), Is.EqualTo("16550A"));
        Assert.That(asked, Is.Zero);
        _guest.Out(register, value);
        Assert.That(asked, Is.EqualTo(1));
        Assert.That(_uart.Receive(Bytes(3)), Is.EqualTo(3));
    }

    [Test]
    public void Receive_GuestOnlyPolls_GetsItsInput()
    {
        int asked = 0;
        _uart.InputReady += () => asked++;
        Assert.That(_uart.Receive(Bytes(1)), Is.Zero);
        for (int i = 0; i < 100 && asked == 0; i++)
            _guest.In(Lsr);
        Assert.That(asked, Is.EqualTo(1));
        Assert.That(_uart.Receive(Bytes(1)), Is.EqualTo(1));
        Assert.That(_guest.In(Lsr) & 0x01, Is.EqualTo(1));
        Assert.That(_guest.In(Data), Is.EqualTo(1));
    }

    [Test]
    public void Receive_InLoopback_WaitsForItsEnd()
    {
        int asked = 0;
        _uart.InputReady += () => asked++;
        _guest.Out(Mcr, 0x12);
        Assert.That(_uart.Receive(Bytes(1)), Is.Zero);
        _guest.Out(Mcr, 0x02);
        Assert.That(asked, Is.EqualTo(1));
    }

    [TestCase(0x09, Description = "flow control of Linux's tty")]
    [TestCase(0x1B, Description = "loopback, in which the chip takes its outputs off the line")]
    public void Receive_GuestTookRtsBack_WaitsUntilItIsRaisedAgain(int control)
    {
        EnableFifos();
        _guest.Out(Ier, 0x01);
        int asked = 0;
        _uart.InputReady += () => asked++;
        Assert.That(_uart.Receive(Bytes(3)), Is.EqualTo(3));
        _guest.Out(Mcr, control);
        _guest.Out(Mcr, 0x09);
        Assert.That(_uart.Receive(Bytes(3)), Is.Zero);
        for (int i = 0; i < 3; i++)
            Assert.That(_guest.In(Data), Is.EqualTo(i + 1), "what had come before is there");
        for (int i = 0; i < 100; i++)
            _guest.In(Lsr);
        Assert.That(asked, Is.Zero, "interrupts are on, and the guest polls");
        Assert.That(_uart.Receive(Bytes(3)), Is.Zero);
        _guest.Out(Mcr, 0x0B);
        Assert.That(asked, Is.EqualTo(1));
        Assert.That(_uart.Receive(Bytes(3)), Is.EqualTo(3));
    }

    [Test]
    public void Reset_GuestTookRtsBack_IsForgotten()
    {
        EnableFifos();
        _guest.Out(Mcr, 0);
        _uart.Reset();
        _guest.Out(Ier, 0x01);
        Assert.That(_uart.Receive(Bytes(1)), Is.EqualTo(1));
    }

    [Test]
    public void FifoControl_ResetOrSwitch_EmptiesReceiver()
    {
        EnableFifos();
        _uart.Receive(Bytes(3));
        _guest.Out(Fcr, 0x03);
        Assert.That(_guest.In(Lsr) & 1, Is.Zero);
        _uart.Receive(Bytes(3));
        _guest.Out(Fcr, 0);
        Assert.That(_guest.In(Lsr) & 1, Is.Zero);
    }

    [Test]
    public void Transmit_HostHasNoRoom_HoldsSixteenBytesAndThenGoesOn()
    {
        EnableFifos();
        _guest.Out(Ier, 0x02);
        _guest.In(Iir);
        _output.Room = 2;
        foreach (byte value in Bytes(18))
            _guest.Out(Data, value);
        Assert.That(_guest.In(Lsr) & 0x60, Is.Zero);
        _guest.Out(Fcr, 0x05);   // what waits counts as on the line
        _output.Room = 10;
        _uart.OutputReady();
        Assert.That(_guest.In(Lsr) & 0x60, Is.Zero);
        _guest.In(Iir);
        int before = _line.Edges;
        _output.Room = 10;
        _uart.OutputReady();
        Assert.That(_line.Edges, Is.EqualTo(before + 1));
        Assert.That(_guest.In(Lsr) & 0x60, Is.EqualTo(0x60));
        Assert.That(_guest.In(Iir), Is.EqualTo(TransmitEmpty));
        Assert.That(_output.Bytes, Is.EqualTo(Bytes(18)));
    }

    [Test]
    public void Transmit_RoomBeforeThePortHearsOfIt_KeepsOrder()
    {
        _output.Room = 0;
        _guest.Out(Data, 'a');
        _output.Room = 2;
        _guest.Out(Data, 'b');
        _uart.OutputReady();
        Assert.That(_output.Bytes, Is.EqualTo("ab"u8.ToArray()));
    }

    [Test]
    public void Reset_OutputWaits_KeepsIt()
    {
        _output.Room = 0;
        _guest.Out(Data, 'z');
        _uart.Reset();
        Assert.That(_guest.In(Lsr) & 0x60, Is.Zero);
        _output.Room = 1;
        _uart.OutputReady();
        Assert.That(_output.Bytes, Is.EqualTo("z"u8.ToArray()));
    }

    [TestCase(0x00, 0x00)]
    [TestCase(0x01, 0x20)]
    [TestCase(0x02, 0x10)]
    [TestCase(0x04, 0x40)]
    [TestCase(0x08, 0x80)]
    public void Loopback_ModemControl_ShowsInModemStatus(int control, int status)
    {
        _guest.Out(Mcr, 0x10 | control);
        Assert.That(_guest.In(Msr) & 0xF0, Is.EqualTo(status));
    }

    [Test]
    public void Loopback_RingIndicator_CountsTrailingEdgeOnly()
    {
        _guest.Out(Mcr, 0x10);
        _guest.In(Msr);
        _guest.Out(Mcr, 0x14);
        Assert.That(_guest.In(Msr), Is.EqualTo(0x40));
        _guest.Out(Mcr, 0x10);
        Assert.That(_guest.In(Msr), Is.EqualTo(0x04));
        Assert.That(_guest.In(Msr), Is.Zero);
    }
}
