using Vmm.Devices.Platform;

namespace Vmm.Tests.Fakes;

/// <summary>Plays Linux's 8250 driver on a serial port: how it recognises the chip, opens it, and serves its interrupt.</summary>
internal sealed class SerialDriver(Uart16550 uart)
{
    public const int Data = 0, Ier = 1, Iir = 2, Fcr = 2, Lcr = 3, Mcr = 4, Lsr = 5, Msr = 6, Scr = 7;

    private readonly Queue<byte> _toSend = [];
    private readonly Lock _lock = new();

    public List<byte> Received { get; } = [];

    public string ReceivedText()
    {
        lock (_lock)
            return System.Text.Encoding.Latin1.GetString([.. Received]);
    }

    public bool AllSent
    {
        get
        {
            lock (_lock)
                return _toSend.Count == 0 && (In(Lsr) & 0x40) != 0;
        }
    }

    public byte In(int register)
    {
        Span<byte> data = [0];
        uart.Read((ulong)register, data);
        return data[0];
    }

    public void Out(int register, int value) => uart.Write((ulong)register, [(byte)value]);

    /// <summary>The checks of autoconfig() in drivers/tty/serial/8250/8250_port.c, in its order.</summary>
    public string Autoconfigure()
    {
        lock (_lock)
            return Probe();
    }

    /// <summary>What serial8250_do_startup() and the termios after it do; returns what it found wrong, or null.</summary>
    public string? Open()
    {
        lock (_lock)
            return StartUp();
    }

    public void Send(ReadOnlySpan<byte> bytes)
    {
        lock (_lock)
        {
            foreach (byte value in bytes)
                _toSend.Enqueue(value);
            if ((In(Ier) & 0x02) == 0)
                Out(Ier, 0x07);
        }
    }

    /// <summary>serial8250_interrupt(): until the chip says none.</summary>
    public void ServeInterrupt()
    {
        lock (_lock)
        {
            for (byte iir = In(Iir); (iir & 1) == 0; iir = In(Iir))
            {
                byte lsr = In(Lsr);
                while ((lsr & 0x01) != 0)
                {
                    Received.Add(In(Data));
                    lsr = In(Lsr);
                }
                In(Msr);
                if ((lsr & 0x20) == 0)
                    continue;
                for (int i = 0; i < 16 && _toSend.Count != 0; i++)
                    Out(Data, _toSend.Dequeue());
                if (_toSend.Count == 0 && (In(Ier) & 0x02) != 0)
                    Out(Ier, 0x05);
            }
        }
    }

    private string Probe()
    {
        Out(Ier, 0);
        if ((In(Ier) & 0x0F) != 0)
            return "IER does not clear";
        Out(Ier, 0x0F);
        if ((In(Ier) & 0x0F) != 0x0F)
            return "IER does not set";
        Out(Ier, 0);

        Out(Mcr, 0x10 | 0x0A);
        if ((In(Msr) & 0xF0) != 0x90)
            return "no loopback";
        Out(Mcr, 0);

        Out(Lcr, 0xBF);
        Out(Iir, 0);   // EFR of other chips
        Out(Lcr, 0);
        Out(Fcr, 0x01);
        switch (In(Iir) >> 6)
        {
            case 0:
                return "16450";
            case 1:
                return "unknown";
            case 2:
                return "16550";
            default:
                break;
        }
        Out(Lcr, 0x80);
        if (In(Iir) == 0)
            return "16650";
        Out(Lcr, 0xBF);
        if (In(Iir) == 0)
            return "16850";
        Out(Lcr, 0);
        byte mcr = In(Mcr);
        Out(Lcr, 0xE0);
        if (((In(Iir) ^ mcr) & 0x10) != 0)
            return "NS16550A without bank";
        Out(Lcr, 0);
        Out(Mcr, mcr ^ 0x10);
        Out(Lcr, 0xE0);
        bool isSuperIo = ((In(Iir) ^ mcr) & 0x10) != 0;
        Out(Lcr, 0);
        Out(Mcr, mcr);
        if (isSuperIo)
            return "NS16550A";
        Out(Fcr, 0x01 | 0x20);
        int plain = In(Iir) >> 5;
        Out(Fcr, 0x01);
        Out(Lcr, 0x80);
        Out(Fcr, 0x01 | 0x20);
        int latched = In(Iir) >> 5;
        Out(Fcr, 0x01);
        Out(Lcr, 0);
        if (plain == 6 && latched == 7)
            return "16750";
        Out(Ier, 0x40);
        if ((In(Ier) & 0x40) != 0)
            return "XScale";
        Out(Ier, 0);
        return "16550A";
    }

    private string? StartUp()
    {
        Out(Fcr, 0x01);
        Out(Fcr, 0x07);
        Out(Fcr, 0);
        ReadAway();
        if (In(Lsr) == 0xFF)
            return "LSR safety check";
        Out(Lcr, 0x03);
        Out(Ier, 0x02);
        byte first = In(Iir);
        Out(Ier, 0);
        Out(Ier, 0x02);
        byte again = In(Iir);
        Out(Ier, 0);
        if ((first & 1) == 0 && (again & 1) != 0)
            return "THRE interrupt is not raised again (UART_BUG_THRE)";
        Out(Mcr, 0x08);
        Out(Ier, 0x02);
        byte lsr = In(Lsr), iir = In(Iir);
        Out(Ier, 0);
        if ((lsr & 0x40) != 0 && (iir & 1) != 0)
            return "no interrupt when THRI is enabled (UART_BUG_TXEN)";
        ReadAway();
        Out(Fcr, 0x01 | 0x80);
        Out(Ier, 0x05);
        Out(Mcr, 0x0B);
        return null;
    }

    private void ReadAway()
    {
        In(Lsr);
        In(Data);
        In(Iir);
        In(Msr);
    }
}
