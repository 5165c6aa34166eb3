using System.Buffers.Binary;
using Vmm.Devices.Bus;

namespace Vmm.Devices.Platform;

/// <summary>The I/O APIC of a PC (Intel 82093AA): says which message each of its inputs sends to the local APICs. It sees no
/// interrupt; to send the message when a line pulses is up to <paramref name="routes"/>.</summary>
/// <remarks>A line pulses (<see cref="IInterruptLine"/>) and is never held, so there is no level to remember and no end of an interrupt
/// to wait for: Remote IRR and the delivery status read 0, and a pulse at a masked input is lost, as an edge is on the chip
/// (82093AA, redirection table, bit 16: "ignored (i.e., not delivered or held pending)"). It is not made up for when the input is unmasked, since a guest of the
/// chip expects none. Linux loses nothing: it masks an edge input only when it has taken an interrupt that it remembers, and calls the handler after it has
/// unmasked the input (handle_edge_irq, and check_irq_resend after disable_irq); the handler looks at all that happened before.
/// A register is accessed at its first byte. A narrower write clears the rest of it; what is wider, and every other offset, reads 0
/// and is not written.</remarks>
/// <param name="inputs">Number of inputs, 1 to 120.</param>
/// <param name="routes">What becomes of their pulses.</param>
public sealed class IoApic(int inputs, IInterruptRoutes routes) : IBusDevice
{
    /// <summary>Bytes of address space.</summary>
    public const uint Size = 0x100;

    private const int Select = 0x00;         // IOREGSEL: which register is in the window
    private const int Window = 0x10;         // IOWIN

    private const byte IdRegister = 0x00;
    private const byte VersionRegister = 0x01;
    private const byte ArbitrationRegister = 0x02;
    private const byte FirstEntry = 0x10;    // two registers for each input

    private const uint IdMask = 0x0F00_0000;
    private const uint Version = 0x11;
    private const int LastEntryShift = 16;

    // An entry's low half; delivery status (12) and Remote IRR (14) are read-only.
    private const uint LogicalDestination = 1 << 11;
    private const uint Masked = 1 << 16;
    private const uint LowMask = 0x1_AFFF;

    // Its high half: bits 31:24 are bits 7:0 of the destination, and bits 23:17 are its bits 14:8. Those are reserved on the chip: a guest writes them
    // that CPUID tells of KVM_FEATURE_MSI_EXT_DEST_ID (KVM's cpuid.rst).
    private const uint HighMask = 0xFFFE_0000;
    private const uint ExtendedDestinationMask = 0x00FE_0000;

    // A message: bits 7:0 of the destination are in bits 19:12 of its address, the others in bits 63:40; vector, delivery mode and trigger mode
    // are where an entry has them.
    private const uint MessageAddress = 0xFEE0_0000;
    private const uint MessageLogicalDestination = 1 << 2;
    private const uint MessageData = 0x87FF;
    private const uint MessageAsserts = 1 << 14;

    private readonly Lock _lock = new();
    private readonly Entry[] _entries = PowerOn(new Entry[inputs]);
    private byte _selected;
    private uint _id;

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        Span<byte> value = stackalloc byte[sizeof(ulong)];
        value.Clear();
        lock (_lock)
        {
            if (offset == Select)
                value[0] = _selected;
            else if (offset == Window)
                BinaryPrimitives.WriteUInt32LittleEndian(value, ReadSelected());
        }
        value[..data.Length].CopyTo(data);
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        lock (_lock)
        {
            if (offset == Select)
            {
                _selected = data[0];
            }
            else if (offset == Window)
            {
                Span<byte> value = stackalloc byte[sizeof(uint)];
                value.Clear();
                data[..Math.Min(data.Length, sizeof(uint))].CopyTo(value);
                WriteSelected(BinaryPrimitives.ReadUInt32LittleEndian(value));
            }
        }
    }

    /// <summary>Masks every input. The routes are not told: they were those of a machine that is no more.</summary>
    public void Reset()
    {
        lock (_lock)
        {
            PowerOn(_entries);
            _selected = 0;
            _id = 0;
        }
    }

    private static Entry[] PowerOn(Entry[] entries)
    {
        Array.Fill(entries, new Entry(Masked, 0));
        return entries;
    }

    // Less than 0 where the selected register is none of an entry's.
    private int SelectedInput => _selected >= FirstEntry && _selected < FirstEntry + 2 * _entries.Length ? (_selected - FirstEntry) / 2 : -1;

    private uint ReadSelected()
    {
        switch (_selected)
        {
            case IdRegister or ArbitrationRegister:
                return _id;
            case VersionRegister:
                return Version | (uint)(_entries.Length - 1) << LastEntryShift;
            default:
                int input = SelectedInput;
                if (input < 0)
                    return 0;
                return _selected % 2 == 0 ? _entries[input].Low : _entries[input].High;
        }
    }

    private void WriteSelected(uint value)
    {
        if (_selected == IdRegister)
            _id = value & IdMask;
        int input = SelectedInput;
        if (input < 0)
            return;
        Entry before = _entries[input];
        Entry after = _selected % 2 == 0 ? before with { Low = value & LowMask } : before with { High = value & HighMask };
        _entries[input] = after;
        // A new route is expensive, and most writes make none: a guest masks what is masked, and writes an entry in two halves.
        if (after.Message != before.Message)
            routes.Set(input, after.Message);
    }

    /// <summary>An entry of the redirection table: what becomes of an input.</summary>
    private readonly record struct Entry(uint Low, uint High)
    {
        /// <summary>What the input sends; nothing while it is masked.</summary>
        public InterruptMessage? Message => (Low & Masked) != 0
            ? null
            : new InterruptMessage(
                MessageAddress | High >> 24 << 12 | ((Low & LogicalDestination) != 0 ? MessageLogicalDestination : 0)
                    | (ulong)(High & ExtendedDestinationMask) << 23,
                (Low & MessageData) | MessageAsserts);
    }
}
