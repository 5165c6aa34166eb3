using Vmm.Devices.Bus;
using Vmm.Devices.Platform;
using Vmm.Kvm;
using Vmm.Serial;

namespace Vmm.Machine;

/// <summary>The devices that every machine has, on their buses, with their interrupt lines. They outlive a reset.</summary>
internal sealed class PlatformDevices : IDisposable
{
    private readonly List<IrqFd> _lines = [];
    private readonly IrqFd _powerButton = new(AddressMap.PowerButtonGsi);
    private readonly ISerialBackend? _serial;
    private readonly Uart16550? _uart;

    /// <summary>Puts the devices on the buses; the console is opened, but nothing is read or written yet.</summary>
    /// <param name="config">What the serial port is connected to, and which devices need an interrupt.</param>
    /// <param name="kvm">What it cannot do is done without.</param>
    /// <param name="events">Where devices report power-off, reset and panic.</param>
    /// <param name="quit">Called when the user leaves the console.</param>
    /// <exception cref="UsageException">The console cannot be what the user asked for.</exception>
    /// <exception cref="VmmException">The console cannot be opened.</exception>
    public PlatformDevices(MachineConfig config, KvmSystem kvm, IMachineEvents events, Action quit)
    {
        _lines.Add(_powerButton);
        Interrupts = new InterruptControllers(config, kvm, Mmio);
        var i8042 = new I8042Reset(events);
        Ports.Attach(AddressMap.I8042DataPort, 1, i8042.DataPort);
        Ports.Attach(AddressMap.I8042CommandPort, 1, i8042.CommandPort);
        Ports.Attach(AddressMap.RtcPort, Rtc.PortCount, new Rtc(TimeProvider.System));
        Ports.Attach(AddressMap.PvpanicPort, 1, new PvPanic(events));
        Ports.Attach(AddressMap.SleepControlPort, AcpiPower.RegisterCount, new AcpiPower(events));
        Ports.Attach(AddressMap.PmTimerPort, AcpiPmTimer.PortCount, new AcpiPmTimer(TimeProvider.System));
        if (Interrupts.AreOfAPc)
            Ports.Attach(AddressMap.Pm1Port, AcpiPm1.PortCount, new AcpiPm1(events));

        _serial = SerialBackends.Create(config.Serial, quit);
        if (_serial is not null)
        {
            var line = new IrqFd(AddressMap.SerialGsi);
            _lines.Add(line);
            _uart = new Uart16550(line, _serial);
            Ports.Attach(AddressMap.SerialPort, Uart16550.RegisterCount, _uart);
        }
    }

    /// <summary>The port I/O space.</summary>
    public IoBus Ports { get; } = new("port");

    /// <summary>The memory-mapped I/O space.</summary>
    public IoBus Mmio { get; } = new("MMIO");

    /// <summary>The interrupt controllers, to be made for each new VM.</summary>
    public InterruptControllers Interrupts { get; }

    /// <summary>The interrupt lines, to be bound to each new VM.</summary>
    public IReadOnlyList<IrqFd> Lines => _lines;

    /// <summary>How many bytes the guest has sent to its serial port, over all resets.</summary>
    public long SerialOutput => _uart?.Transmitted ?? 0;

    /// <summary>Begins to pass console input and output; a terminal becomes raw. Once.</summary>
    public void StartConsole()
    {
        if (_uart is not null)
            _serial?.Start(_uart);
    }

    /// <summary>Presses the power button. A guest that has no driver for it, or not yet, does not notice.</summary>
    public void PressPowerButton() => _powerButton.Trigger();

    /// <summary>Gives a terminal its settings back, before the process is stopped.</summary>
    public void SuspendConsole() => _serial?.Suspend();

    /// <summary>Takes a terminal up again, after the process was stopped.</summary>
    public void ResumeConsole() => _serial?.Resume();

    /// <summary>Takes every device to its power-on state.</summary>
    public void Reset()
    {
        Ports.Reset();
        Mmio.Reset();
    }

    /// <summary>Writes out what the guest has sent, restores the terminal and frees the lines.</summary>
    public void Dispose()
    {
        _serial?.Dispose();
        foreach (IrqFd line in _lines)
            line.Dispose();
    }
}
