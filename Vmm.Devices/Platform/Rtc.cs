using Vmm.Devices.Bus;

namespace Vmm.Devices.Platform;

/// <summary>The CMOS real-time clock, at ports 0x70 (index) and 0x71 (data): UTC from the host, and battery-less CMOS RAM
/// (Motorola MC146818A data sheet; century in register 0x32, as PC firmware has it).</summary>
/// <remarks>
/// <para>The clock always shows the host's time: writes to the time and date registers are ignored, so that a guest which keeps its
/// own wrong time starts with the right one after a reboot. SET (register B) holds the registers still, as on the chip.</para>
/// <para>There is no interrupt and no alarm: alarm registers and interrupt enables are stored, register C reads 0.</para>
/// <para>Bit 7 of the index (the NMI mask of PCs) is ignored, the index reads as all ones. A wider access acts on index, then data;
/// beyond it reads as all ones.</para>
/// </remarks>
public sealed class Rtc(TimeProvider time) : IBusDevice
{
    /// <summary>Ports: index and data.</summary>
    public const int PortCount = 2;

    private const int Seconds = 0x00;
    private const int Minutes = 0x02;
    private const int Hours = 0x04;
    private const int DayOfWeek = 0x06;   // 1 = Sunday
    private const int DayOfMonth = 0x07;
    private const int Month = 0x08;
    private const int Year = 0x09;
    private const int StatusA = 0x0A;
    private const int StatusB = 0x0B;
    private const int StatusC = 0x0C;
    private const int StatusD = 0x0D;
    private const int Century = 0x32;
    private const int RegisterCount = 128;

    private const byte UpdateInProgress = 1 << 7;   // A
    private const byte PowerOnStatusA = 0x26;       // 32,768 Hz time base, 1,024 Hz rate: what PC firmware sets
    private const byte Set = 1 << 7;                // B: the registers are held still
    private const byte Binary = 1 << 2;             // B: binary and not BCD
    private const byte TwentyFourHours = 1 << 1;    // B
    private const byte ValidRamAndTime = 1 << 7;    // D
    private const byte Pm = 1 << 7;                 // of the hours, in 12-hour mode

    // The chip promises whoever sees UIP clear at least 244 µs before the registers change.
    private static readonly TimeSpan s_updateLead = TimeSpan.FromMicroseconds(244);

    private readonly Lock _lock = new();
    private readonly byte[] _registers = PowerOn(new byte[RegisterCount]);
    private DateTime _heldTime;
    private int _index;

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        data.Fill(0xFF);
        if (offset < PortCount && (int)offset + data.Length >= PortCount)
        {
            lock (_lock)
                data[1 - (int)offset] = ReadRegister(_index);
        }
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        lock (_lock)
        {
            for (int i = 0; i < data.Length && offset < PortCount; i++, offset++)
            {
                if (offset == 0)
                    _index = data[i] % RegisterCount;
                else
                    WriteRegister(_index, data[i]);
            }
        }
    }

    /// <inheritdoc/>
    public void Reset()
    {
        lock (_lock)
        {
            PowerOn(_registers);
            _index = 0;
        }
    }

    private static byte[] PowerOn(byte[] registers)
    {
        Array.Clear(registers);
        registers[StatusA] = PowerOnStatusA;
        registers[StatusB] = TwentyFourHours;
        return registers;
    }

    private byte ReadRegister(int register)
    {
        DateTime now = Now();
        return register switch
        {
            Seconds => Encode(now.Second),
            Minutes => Encode(now.Minute),
            Hours => EncodeHour(now.Hour),
            DayOfWeek => Encode((int)now.DayOfWeek + 1),
            DayOfMonth => Encode(now.Day),
            Month => Encode(now.Month),
            Year => Encode(now.Year % 100),
            Century => Encode(now.Year / 100),
            StatusA => (byte)(_registers[StatusA] | (IsUpdating(now) ? UpdateInProgress : 0)),
            StatusC => 0,
            StatusD => ValidRamAndTime,
            _ => _registers[register],
        };
    }

    private void WriteRegister(int register, byte value)
    {
        switch (register)
        {
            case Seconds or Minutes or Hours or DayOfWeek or DayOfMonth or Month or Year or Century or StatusC or StatusD:
                break;
            case StatusA:
                _registers[StatusA] = (byte)(value & ~UpdateInProgress);
                break;
            case StatusB:
                if ((value & ~_registers[StatusB] & Set) != 0)
                    _heldTime = time.GetUtcNow().UtcDateTime;
                _registers[StatusB] = value;
                break;
            default:
                _registers[register] = value;
                break;
        }
    }

    private DateTime Now() => (_registers[StatusB] & Set) != 0 ? _heldTime : time.GetUtcNow().UtcDateTime;

    // Bounded by the clock itself: it is set for 244 µs of each second, and never while the registers are held.
    private bool IsUpdating(DateTime now) => (_registers[StatusB] & Set) == 0
        && now.Ticks % TimeSpan.TicksPerSecond >= TimeSpan.TicksPerSecond - s_updateLead.Ticks;

    private byte EncodeHour(int hour)
    {
        if ((_registers[StatusB] & TwentyFourHours) != 0)
            return Encode(hour);
        int twelve = hour % 12 == 0 ? 12 : hour % 12;
        return (byte)(Encode(twelve) | (hour >= 12 ? Pm : 0));
    }

    private byte Encode(int value) => (_registers[StatusB] & Binary) != 0 ? (byte)value : (byte)(((value / 10) << 4) | (value % 10));
}
