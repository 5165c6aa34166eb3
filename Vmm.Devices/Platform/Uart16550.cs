using Vmm.Devices.Bus;

namespace Vmm.Devices.Platform;

/// <summary>A 16550A serial port with 16-byte FIFOs (National Semiconductor PC16550D data sheet, June 1995): eight one-byte
/// registers. A wider access acts on consecutive registers from the lowest; beyond the last one it reads as all ones.</summary>
/// <remarks>
/// <para>Line speed and framing are stored and have no effect. A byte is transmitted at once. When the host has no room, the
/// transmit FIFO fills and THRE and TEMT stay clear until <see cref="OutputReady"/>: nothing is lost that the guest sends while THRE
/// is set. For the same reason resetting the transmit FIFO drops nothing: what is in it counts as already on the line.</para>
/// <para>The host's bytes come at no speed of their own, so there is never a pause to wait for: a FIFO that holds data, but less than
/// its trigger level, gives the character timeout at once. Errors of the line (parity, framing, break) do not occur; an overrun
/// occurs only in loopback.</para>
/// <para>Thread safe. The interrupt line is an edge: it is triggered whenever an enabled cause rises, also while another one is
/// pending, and for received bytes each time.</para>
/// </remarks>
public sealed partial class Uart16550(IInterruptLine line, IUartOutput output) : IBusDevice
{
    /// <summary>Registers, each one byte wide.</summary>
    public const int RegisterCount = 8;

    private const int FifoSize = 16;

    // A guest without interrupts reads the line status over and over when it waits for input, and hardly ever otherwise.
    private const int PollsThatMeanWaiting = 16;

    private readonly Lock _lock = new();
    private readonly ByteFifo _received = new(FifoSize);
    private readonly ByteFifo _unsent = new(FifoSize);   // empty unless the host lacked room

    private byte _interruptEnable;
    private byte _lineControl;
    private byte _modemControl;
    private byte _modemStatus = Dcd | Dsr | Cts;
    private byte _scratch;
    private ushort _divisor = PowerOnDivisor;
    private bool _fifosEnabled;
    private int _triggerLevel = 1;
    private bool _overrun;
    private bool _transmitInterrupt;   // THR became empty, and the guest has not been told yet
    private byte _signalled;           // causes for which the line was triggered and which still stand
    private bool _hostWaits;           // the last Receive was offered more than it took
    private int _idlePolls;
    private bool _holdsHost;           // RTS was on, and is off
    private long _transmitted;

    /// <summary>Raised when <see cref="Receive"/> took less than it was offered and would now take more. On a vCPU thread, outside the
    /// port's lock; a handler must neither block nor allocate.</summary>
    public event Action? InputReady;

    /// <summary>How many bytes the guest has transmitted, over all resets.</summary>
    public long Transmitted => Volatile.Read(ref _transmitted);

    private bool InLoopback => (_modemControl & Loopback) != 0;

    private bool DivisorLatched => (_lineControl & DivisorLatchAccess) != 0;

    // Linux empties the receive FIFO when it detects and when it opens the port: input that was there before it (a pipe on the host's
    // side has it ready from the start) would be lost. So the host's bytes wait until the guest shows that it wants them. A guest that takes RTS
    // back wants none until it raises RTS again (flow control, Linux's CRTSCTS), whatever else it does.
    private bool GuestListens => RaisesRts || (!InLoopback && !_holdsHost && (EnablesReceiveInterrupt || _idlePolls >= PollsThatMeanWaiting));

    // In loopback the chip's modem outputs are off (data sheet, "Modem Control Register", bit 4).
    private bool RaisesRts => (_modemControl & (Rts | Loopback)) == Rts;

    // All bits at once is how Linux probes which ones the chip has, not a wish for input.
    private bool EnablesReceiveInterrupt => (_interruptEnable & DataCause) != 0 && _interruptEnable != InterruptEnableMask;

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        Signals signals;
        lock (_lock)
        {
            for (int i = 0; i < data.Length; i++)
                data[i] = offset < RegisterCount && (int)offset + i < RegisterCount ? ReadRegister((int)offset + i) : (byte)0xFF;
            signals = Settle();
        }
        Send(signals);
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        Signals signals;
        lock (_lock)
        {
            for (int i = 0; i < data.Length && offset < RegisterCount && (int)offset + i < RegisterCount; i++)
                WriteRegister((int)offset + i, data[i]);
            signals = Settle();
        }
        Send(signals);
    }

    /// <summary>Offers bytes that came in on the line.</summary>
    /// <returns>How many of them, from the first, were taken: as many as the FIFO has room for, and none while the guest does not
    /// listen (neither receive interrupts nor RTS on, and not polling; RTS taken back; or in loopback). If that is not all,
    /// <see cref="InputReady"/> says when to offer the rest.</returns>
    public int Receive(ReadOnlySpan<byte> data)
    {
        int taken = 0;
        Signals signals;
        lock (_lock)
        {
            int room = GuestListens ? (_fifosEnabled ? FifoSize : 1) - _received.Count : 0;
            while (taken < data.Length && taken < room)
                _received.TryPush(data[taken++]);
            _hostWaits = taken < data.Length;
            signals = Settle();
            // Also when data was pending already: an edge that the guest missed does not silence the port for good.
            if (taken > 0 && (_interruptEnable & DataCause) != 0)
                signals |= Signals.Interrupt;
        }
        Send(signals);
        return taken;
    }

    /// <summary>Tells that the output has room again after it had none.</summary>
    public void OutputReady()
    {
        Signals signals;
        lock (_lock)
        {
            if (_unsent.Count == 0)
                return;
            while (_unsent.Count != 0 && output.TryWrite(_unsent.Peek()))
                _unsent.Pop();
            _transmitInterrupt = _unsent.Count == 0;
            signals = Settle();
        }
        Send(signals);
    }

    /// <summary>Takes the registers to their power-on state. Received bytes that the guest has not read are dropped; bytes that wait
    /// for the host to have room are not.</summary>
    public void Reset()
    {
        lock (_lock)
        {
            _received.Clear();
            _interruptEnable = _lineControl = _modemControl = _scratch = 0;
            _modemStatus = Dcd | Dsr | Cts;
            _divisor = PowerOnDivisor;
            _fifosEnabled = _overrun = _transmitInterrupt = false;
            _triggerLevel = 1;
            _signalled = 0;
            _idlePolls = 0;
            _holdsHost = false;
        }
    }

    private byte ReadRegister(int register)
    {
        if (register != LineStatusRegister)
            _idlePolls = 0;
        switch (register)
        {
            case DataRegister:
                return DivisorLatched ? (byte)_divisor : _received.Pop();
            case InterruptEnableRegister:
                return DivisorLatched ? (byte)(_divisor >> 8) : _interruptEnable;
            case InterruptIdRegister:
                return ReadInterruptId();
            case LineControlRegister:
                return _lineControl;
            case ModemControlRegister:
                return _modemControl;
            case LineStatusRegister:
                return ReadLineStatus();
            case ModemStatusRegister:
                byte status = _modemStatus;
                _modemStatus &= ModemLevels;
                return status;
            default:
                return _scratch;
        }
    }

    private void WriteRegister(int register, byte value)
    {
        _idlePolls = 0;
        switch (register)
        {
            case DataRegister when DivisorLatched:
                _divisor = (ushort)((_divisor & 0xFF00) | value);
                break;
            case DataRegister:
                Transmit(value);
                break;
            case InterruptEnableRegister when DivisorLatched:
                _divisor = (ushort)((_divisor & 0xFF) | (value << 8));
                break;
            case InterruptEnableRegister:
                // Enabling the interrupt while THR is empty raises it: drivers start a transmission this way.
                if ((value & ~_interruptEnable & TransmitCause) != 0 && _unsent.Count == 0)
                    _transmitInterrupt = true;
                _interruptEnable = (byte)(value & InterruptEnableMask);
                break;
            case InterruptIdRegister:
                WriteFifoControl(value);
                break;
            case LineControlRegister:
                _lineControl = value;
                break;
            case ModemControlRegister:
                bool raisedRts = RaisesRts;
                _modemControl = (byte)(value & ModemControlMask);
                _holdsHost = !RaisesRts && (raisedRts || _holdsHost);
                UpdateModemStatus();
                break;
            case ScratchRegister:
                _scratch = value;
                break;
            default:
                break;   // line and modem status are read-only
        }
    }

    private void Transmit(byte value)
    {
        _transmitInterrupt = false;
        if (InLoopback)
        {
            int capacity = _fifosEnabled ? FifoSize : 1;
            if (_received.Count >= capacity || !_received.TryPush(value))
                _overrun = true;
        }
        else
        {
            _transmitted++;
            if (_unsent.Count != 0 || !output.TryWrite(value))
                _unsent.TryPush(value);   // a guest that goes on without THRE overruns it and loses the byte, as on the chip
        }
        _transmitInterrupt = _unsent.Count == 0;
    }

    private void WriteFifoControl(byte value)
    {
        bool enable = (value & FifoEnable) != 0;
        if (enable != _fifosEnabled || (enable && (value & FifoResetReceive) != 0))
            _received.Clear();
        _fifosEnabled = enable;
        _triggerLevel = enable ? TriggerLevels[value >> FifoTriggerShift] : 1;
    }

    private byte ReadInterruptId()
    {
        int causes = PendingCauses();
        byte id = NoInterruptId;
        if ((causes & LineCause) != 0)
        {
            id = LineStatusId;
        }
        else if ((causes & DataCause) != 0)
        {
            id = _received.Count >= _triggerLevel ? DataAvailableId : CharacterTimeoutId;
        }
        else if ((causes & TransmitCause) != 0)
        {
            id = TransmitEmptyId;
            _transmitInterrupt = false;
        }
        else if ((causes & ModemCause) != 0)
        {
            id = ModemStatusId;
        }
        return _fifosEnabled ? (byte)(id | FifosEnabledId) : id;
    }

    private byte ReadLineStatus()
    {
        int status = _unsent.Count == 0 ? TransmitHoldingEmpty | TransmitterEmpty : 0;
        if (_received.Count != 0)
            status |= DataReady;
        if (_overrun)
            status |= Overrun;
        _overrun = false;
        // Only a poll that can be waiting for nothing but input counts.
        _idlePolls = status == (TransmitHoldingEmpty | TransmitterEmpty) ? Math.Min(_idlePolls + 1, PollsThatMeanWaiting) : 0;
        return (byte)status;
    }

    private void UpdateModemStatus()
    {
        int levels = Dcd | Dsr | Cts;   // the host is always there and ready
        if (InLoopback)
        {
            levels = ((_modemControl & Rts) != 0 ? Cts : 0) | ((_modemControl & Dtr) != 0 ? Dsr : 0)
                | ((_modemControl & Out1) != 0 ? Ri : 0) | ((_modemControl & Out2) != 0 ? Dcd : 0);
        }
        int changed = (_modemStatus ^ levels) & ModemLevels;
        if ((levels & Ri) != 0)
            changed &= ~Ri;   // the ring indicator counts its trailing edge only
        _modemStatus = (byte)(levels | (_modemStatus & ~ModemLevels) | (changed >> ModemDeltaShift));
    }

    private int PendingCauses()
    {
        int causes = _received.Count != 0 ? DataCause : 0;
        if (_transmitInterrupt)
            causes |= TransmitCause;
        if (_overrun)
            causes |= LineCause;
        if ((_modemStatus & ~ModemLevels) != 0)
            causes |= ModemCause;
        return causes & _interruptEnable;
    }

    // What the world outside has to be told after a change; the callers do it once they have left the lock.
    private Signals Settle()
    {
        int causes = PendingCauses();
        Signals signals = (causes & ~_signalled) != 0 ? Signals.Interrupt : Signals.None;
        _signalled = (byte)causes;
        if (_hostWaits && _received.Count == 0 && GuestListens)
        {
            _hostWaits = false;
            signals |= Signals.InputReady;
        }
        return signals;
    }

    private void Send(Signals signals)
    {
        if ((signals & Signals.Interrupt) != 0)
            line.Trigger();
        if ((signals & Signals.InputReady) != 0)
            InputReady?.Invoke();
    }

    [Flags]
    private enum Signals
    {
        None = 0,
        Interrupt = 1,
        InputReady = 2,
    }
}
