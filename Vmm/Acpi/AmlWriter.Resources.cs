namespace Vmm.Acpi;

/// <content>Resource descriptors, for _CRS (ACPI 6.5 §6.4).</content>
internal sealed partial class AmlWriter
{
    // Small descriptors have their length in the tag's low three bits; large ones in a word after the tag.
    private const byte IoPortTag = 0x47;
    private const byte EndTag = 0x79;
    private const byte Memory32FixedTag = 0x86;
    private const byte ExtendedInterruptTag = 0x89;

    private const byte Decode16 = 1 << 0;
    private const byte ReadWrite = 1 << 0;
    private const byte ResourceConsumer = 1 << 0;
    private const byte EdgeTriggered = 1 << 1;    // active high and exclusive are the zeroes of the bits that follow

    /// <summary>Opens a resource template, a buffer of the descriptors that are written next. It cannot be nested.</summary>
    public Template ResourceTemplate()
    {
        table.Byte(BufferOp);
        return new Template(this, table.Length);
    }

    /// <summary>Describes <paramref name="count"/> ports from <paramref name="first"/> on, at no other place (ACPI 6.5 §6.4.2.5).</summary>
    public void Io(ushort first, byte count)
    {
        table.Byte(IoPortTag);
        table.Byte(Decode16);
        table.Word(first);      // lowest and
        table.Word(first);      // highest base
        table.Byte(1);          // alignment
        table.Byte(count);
    }

    /// <summary>Describes readable and writable memory, registers that is, below 4 GiB (ACPI 6.5 §6.4.3.4).</summary>
    public void Memory32Fixed(uint address, uint length)
    {
        table.Byte(Memory32FixedTag);
        table.Word(9);
        table.Byte(ReadWrite);
        table.DWord(address);
        table.DWord(length);
    }

    /// <summary>Describes the interrupt <paramref name="gsi"/>: edge-triggered, active high, not shared (ACPI 6.5 §6.4.3.6).</summary>
    public void Interrupt(uint gsi)
    {
        table.Byte(ExtendedInterruptTag);
        table.Word(6);
        table.Byte(ResourceConsumer | EdgeTriggered);
        table.Byte(1);          // how many
        table.DWord(gsi);
    }

    private void CloseTemplate(int start)
    {
        table.Byte(EndTag);
        table.Byte(SystemDescriptionTable.Checksum(table.Written[start..]));

        // In front of a buffer's bytes goes their number, an integer.
        Span<byte> size = stackalloc byte[AmlInteger.MaxSize];
        table.Insert(start, size[..AmlInteger.Encode(size, (ulong)(table.Length - start))]);
        Close(start);
    }

    /// <summary>An open resource template; disposing of it adds the end tag, the size and the length.</summary>
    public readonly struct Template(AmlWriter writer, int start) : IDisposable
    {
        /// <inheritdoc/>
        public void Dispose() => writer.CloseTemplate(start);
    }
}
