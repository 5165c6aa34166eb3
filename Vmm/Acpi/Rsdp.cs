using System.Diagnostics;
using Vmm.Vhost.Memory;

namespace Vmm.Acpi;

/// <summary>The Root System Description Pointer: says where the XSDT is (ACPI 6.5 §5.2.5.3).</summary>
internal static class Rsdp
{
    /// <summary>Its bytes.</summary>
    public const int Size = 36;

    private const byte Revision = 2;              // since ACPI 2.0: with an XSDT
    private const int ChecksumOffset = 8;
    private const int ChecksummedBytes = 20;      // the whole of ACPI 1.0's RSDP, which the first checksum covers
    private const int ExtendedChecksumOffset = 32;

    /// <summary>Makes the RSDP for an XSDT at <paramref name="xsdt"/>. There is no RSDT.</summary>
    public static TableBuffer Build(GuestAddress xsdt)
    {
        var rsdp = new TableBuffer();
        rsdp.Ascii("RSD PTR ", 8);
        rsdp.Byte(0);
        rsdp.Ascii(SystemDescriptionTable.Vendor, 6, ' ');
        rsdp.Byte(Revision);
        rsdp.DWord(0);
        rsdp.DWord(Size);
        rsdp.QWord(xsdt.Value);
        rsdp.Byte(0);
        rsdp.Zeroes(3);
        Debug.Assert(rsdp.Length == Size);

        // In this order: the extended checksum covers the first one too.
        rsdp.Written[ChecksumOffset] = SystemDescriptionTable.Checksum(rsdp.Written[..ChecksummedBytes]);
        rsdp.Written[ExtendedChecksumOffset] = SystemDescriptionTable.Checksum(rsdp.Written);
        return rsdp;
    }
}
