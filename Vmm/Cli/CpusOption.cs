using System.Globalization;

namespace Vmm.Cli;

/// <summary>The value of <c>--cpus</c>: <c>N</c> or <c>boot=N</c>.</summary>
internal static class CpusOption
{
    /// <summary>The option's name.</summary>
    public const string Name = "--cpus";

    private const int Max = 254;   // APIC ids are 8 bits without x2APIC: 255 is broadcast, and the I/O APIC takes one

    /// <summary>The number of vCPUs, 1 to 254.</summary>
    /// <exception cref="UsageException">It is not such a number.</exception>
    public static int Parse(string text)
    {
        OptionValue value = text.Contains('=')
            ? KeyValueList.Parse(Name, text, "boot").Find("boot")!.Value
            : new OptionValue(Name, null, text);
        return int.TryParse(value.Text, NumberStyles.None, CultureInfo.InvariantCulture, out int count) && count is >= 1 and <= Max
            ? count
            : throw value.Refuse($"is not a number of CPUs from 1 to {Max}");
    }
}
