using NUnit.Framework;
using Vmm.Devices.Platform;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Devices.Platform;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class Uart16550DriverTests
{
    private readonly FakeInterruptLine _line = new();
    private readonly FakeUartOutput _output = new();
    private readonly Uart16550 _uart;
    private readonly SerialDriver _driver;

    public Uart16550DriverTests()
    {
        _uart = new Uart16550(_line, _output);
        _driver = new SerialDriver(_uart);
    }

    private void ServeInterrupts()
    {
        while (_line.WaitForEdge(TimeSpan.Zero))
            _driver.ServeInterrupt();
    }

    [Test]
    public void Autoconfigure_Linux_Says16550A() => Assert.That(_driver.Autoconfigure(), Is.EqualTo("16550A"));

    [Test]
    public void Open_Linux_FindsNoBug() => Assert.That(_driver.Open(), Is.Null);

    [Test]
    public void SendAndReceive_ByInterrupts_MovesEverything()
    {
        byte[] sent = new byte[1000], typed = new byte[1000];
        new Random(1).NextBytes(sent);
        new Random(2).NextBytes(typed);
        _driver.Open();
        _driver.Send(sent);
        int offset = 0;
        _uart.InputReady += () => offset += _uart.Receive(typed.AsSpan(offset));
        offset += _uart.Receive(typed);
        ServeInterrupts();
        Assert.That(_output.Bytes, Is.EqualTo(sent));
        Assert.That(_driver.Received, Is.EqualTo(typed));
        Assert.That(_driver.AllSent);
    }

    [Test]
    public void Send_HostRunsFullAgainAndAgain_LosesNothing()
    {
        byte[] sent = new byte[1000];
        new Random(1).NextBytes(sent);
        _output.Room = 0;
        _driver.Open();
        _driver.Send(sent);
        for (int i = 0; i < 1000 && !_driver.AllSent; i++)
        {
            ServeInterrupts();
            _output.Room = 1 + (i % 40);
            _uart.OutputReady();
        }
        Assert.That(_output.Bytes, Is.EqualTo(sent));
    }

    [Test]
    public void Send_Sixteen_TakesOneInterrupt()
    {
        _driver.Open();
        int before = _line.Edges;
        _driver.Send(new byte[16]);
        Assert.That(_line.Edges, Is.EqualTo(before + 1));
    }

    [Test]
    public void RegisterAccess_Always_AllocatesNothing()
    {
        _output.Bytes.Capacity = 10_000;
        _driver.Open();
        byte[] buffer = new byte[1];
        for (int round = 0; round < 2; round++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < 1000; i++)
            {
                _uart.Write(0, buffer);
                _uart.Read((ulong)(i % 8), buffer);
            }
            if (round == 1)
                Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.Zero);
        }
    }
}
