namespace Vmm.Devices.Platform;

// Register offsets and bits (National Semiconductor PC16550D data sheet, June 1995, table II and §8).
public sealed partial class Uart16550
{
    private const int DataRegister = 0;              // RBR on read, THR on write; divisor latch low with DLAB
    private const int InterruptEnableRegister = 1;   // IER; divisor latch high with DLAB
    private const int InterruptIdRegister = 2;       // IIR on read, FCR on write
    private const int LineControlRegister = 3;
    private const int ModemControlRegister = 4;
    private const int LineStatusRegister = 5;
    private const int ModemStatusRegister = 6;
    private const int ScratchRegister = 7;

    // IER; the same bits serve as the set of pending causes.
    private const byte DataCause = 1 << 0;
    private const byte TransmitCause = 1 << 1;
    private const byte LineCause = 1 << 2;
    private const byte ModemCause = 1 << 3;
    private const byte InterruptEnableMask = 0x0F;   // the rest reads 0: a set bit would make the driver see another chip

    // IIR, by falling priority.
    private const byte LineStatusId = 0x06;
    private const byte DataAvailableId = 0x04;
    private const byte CharacterTimeoutId = 0x0C;
    private const byte TransmitEmptyId = 0x02;
    private const byte ModemStatusId = 0x00;
    private const byte NoInterruptId = 0x01;
    private const byte FifosEnabledId = 0xC0;

    // FCR
    private const byte FifoEnable = 1 << 0;
    private const byte FifoResetReceive = 1 << 1;
    private const int FifoTriggerShift = 6;

    private const byte DivisorLatchAccess = 1 << 7;   // LCR, DLAB

    // MCR
    private const byte Dtr = 1 << 0;
    private const byte Rts = 1 << 1;
    private const byte Out1 = 1 << 2;
    private const byte Out2 = 1 << 3;
    private const byte Loopback = 1 << 4;
    private const byte ModemControlMask = 0x1F;

    // LSR
    private const byte DataReady = 1 << 0;
    private const byte Overrun = 1 << 1;
    private const byte TransmitHoldingEmpty = 1 << 5;
    private const byte TransmitterEmpty = 1 << 6;

    // MSR: levels in the high nibble, what changed since the last read in the low one.
    private const byte Cts = 1 << 4;
    private const byte Dsr = 1 << 5;
    private const byte Ri = 1 << 6;
    private const byte Dcd = 1 << 7;
    private const byte ModemLevels = Cts | Dsr | Ri | Dcd;
    private const int ModemDeltaShift = 4;

    private const ushort PowerOnDivisor = 12;   // 9600 baud; not 0, by which a guest that asks for the speed would divide

    private static ReadOnlySpan<byte> TriggerLevels => [1, 4, 8, 14];
}
