using System.Text;
using Vmm.Devices.Platform;
using Vmm.Serial;

namespace Vmm.Tests.Fakes;

/// <summary>A guest with an opened serial port on a back-end: its interrupts are served on a thread.</summary>
internal sealed class SerialGuest : IDisposable
{
    private readonly FakeInterruptLine _line = new();
    private readonly Thread _cpu;
    private volatile bool _stopped;

    public SerialGuest(ISerialBackend backend)
    {
        Uart = new Uart16550(_line, backend);
        Driver = new SerialDriver(Uart);
        Driver.Open();
        _cpu = new Thread(Run) { IsBackground = true };
        _cpu.Start();
        backend.Start(Uart);
    }

    public Uart16550 Uart { get; }

    public SerialDriver Driver { get; }

    public void Send(string text) => Driver.Send(Encoding.Latin1.GetBytes(text));

    /// <summary>Waits for input that ends in <paramref name="text"/>; returns everything so far.</summary>
    public string WaitForInput(string text)
    {
        Eventually.True(() => Received().EndsWith(text, StringComparison.Ordinal), () => $"the guest got: {Received()}");
        return Received();
    }

    public string Received() => Driver.ReceivedText();

    public void Dispose()
    {
        _stopped = true;
        _cpu.Join();
    }

    private void Run()
    {
        while (!_stopped)
        {
            if (_line.WaitForEdge(TimeSpan.FromMilliseconds(20)))
                Driver.ServeInterrupt();
        }
    }
}
