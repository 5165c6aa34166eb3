using Vmm.Vhost.Memory;

namespace Vmm.Acpi;

/// <summary>The Extended System Description Table: lists the other tables, but for the DSDT (ACPI 6.5 §5.2.8).</summary>
internal static class Xsdt
{
    private const byte Revision = 1;

    /// <summary>Makes the XSDT for <paramref name="tables"/>.</summary>
    public static TableBuffer Build(ReadOnlySpan<GuestAddress> tables)
    {
        TableBuffer xsdt = SystemDescriptionTable.Begin("XSDT", Revision);
        foreach (GuestAddress table in tables)
            xsdt.QWord(table.Value);
        SystemDescriptionTable.End(xsdt);
        return xsdt;
    }
}
