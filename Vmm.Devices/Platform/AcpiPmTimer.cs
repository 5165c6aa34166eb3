using System.Buffers.Binary;
using Vmm.Devices.Bus;

namespace Vmm.Devices.Platform;

/// <summary>The ACPI power management timer: one register of 32 bits, for reading, that counts up at 3.579545 MHz and starts again at 0 after
/// 20 minutes (ACPI 6.5 §4.8.3.3). A guest measures its TSC by it when nothing tells it the frequency.</summary>
/// <remarks>It has no interrupt: no overflow is reported. A narrower access reads those bytes of the register, writes have no effect.</remarks>
public sealed class AcpiPmTimer(TimeProvider time) : IBusDevice
{
    /// <summary>Ports: one register of 32 bits.</summary>
    public const int PortCount = 4;

    /// <summary>Ticks in a second.</summary>
    public const long Frequency = 3_579_545;

    private readonly long _start = time.GetTimestamp();

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        Span<byte> register = stackalloc byte[PortCount];
        BinaryPrimitives.WriteUInt32LittleEndian(register, Count());
        for (int i = 0; i < data.Length; i++, offset++)
            data[i] = offset < PortCount ? register[(int)offset] : (byte)0xFF;
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
    }

    /// <summary>Does nothing: the timer counts on, and nobody may expect it to begin at 0.</summary>
    public void Reset()
    {
    }

    // Whole seconds apart from the rest: the product of all nanoseconds would overflow 64 bits after 43 minutes.
    private uint Count()
    {
        (long seconds, long rest) = Math.DivRem(time.GetTimestamp() - _start, time.TimestampFrequency);
        return unchecked((uint)(seconds * Frequency + rest * Frequency / time.TimestampFrequency));
    }
}
