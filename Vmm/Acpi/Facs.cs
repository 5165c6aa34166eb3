namespace Vmm.Acpi;

/// <summary>The Firmware ACPI Control Structure (ACPI 6.5 §5.2.10). It holds the global lock, which only the guest takes here, and the address at
/// which a sleeping system wakes, which stays 0: the machine does not sleep. It has neither the header nor the checksum of other tables.</summary>
internal static class Facs
{
    /// <summary>What its address is a multiple of.</summary>
    public const int Alignment = 64;

    private const int Size = 64;
    private const int VersionOffset = 32;
    private const byte Version = 2;               // since ACPI 4.0

    /// <summary>Makes the FACS.</summary>
    public static TableBuffer Build()
    {
        var facs = new TableBuffer();
        facs.Ascii("FACS", 4);
        facs.DWord(Size);
        facs.Zeroes(Size - facs.Length);
        facs.Written[VersionOffset] = Version;
        return facs;
    }
}
