using System.Buffers.Binary;

namespace Vmm.Acpi;

/// <summary>What all ACPI tables but the RSDP have in common: a header with length and checksum (ACPI 6.5 §5.2.6).</summary>
internal static class SystemDescriptionTable
{
    /// <summary>Bytes of the header.</summary>
    public const int HeaderSize = 36;

    /// <summary>Offset of the checksum, a byte.</summary>
    public const int ChecksumOffset = 9;

    /// <summary>Who made the tables, as the OEM and as the creator.</summary>
    public const string Vendor = "VMM";

    private const int LengthOffset = 4;
    private const uint OemRevision = 1;
    private const uint CreatorRevision = 1;

    /// <summary>Begins a table: the header, whose length and checksum <see cref="End"/> fills in.</summary>
    /// <param name="signature">Four ASCII characters.</param>
    /// <param name="revision">The revision of this kind of table.</param>
    public static TableBuffer Begin(string signature, byte revision)
    {
        var table = new TableBuffer();
        table.Ascii(signature, 4);
        table.DWord(0);
        table.Byte(revision);
        table.Byte(0);
        table.Ascii(Vendor, 6, ' ');
        table.Ascii(Vendor, 8, ' ');
        table.DWord(OemRevision);
        table.Ascii(Vendor, 4, ' ');
        table.DWord(CreatorRevision);
        return table;
    }

    /// <summary>Completes the header of <paramref name="table"/>, which must not change any more.</summary>
    public static void End(TableBuffer table)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(table.Written[LengthOffset..], (uint)table.Length);
        table.Written[ChecksumOffset] = Checksum(table.Written);
    }

    /// <summary>The byte that makes the sum of <paramref name="bytes"/> and itself 0, modulo 256.</summary>
    public static byte Checksum(ReadOnlySpan<byte> bytes)
    {
        byte sum = 0;
        foreach (byte value in bytes)
            sum += value;
        return (byte)-sum;
    }
}
