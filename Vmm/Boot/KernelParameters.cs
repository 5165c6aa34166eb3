namespace Vmm.Boot;

/// <summary>Words on Linux's command line that decide what machine the kernel needs (Linux Documentation/admin-guide/kernel-parameters.txt).</summary>
internal static class KernelParameters
{
    private const string NoAcpi = "pci=noacpi";

    // With any of these Linux takes its tick from an 8254, and with most of them its interrupts through an 8259.
    private static readonly string[] s_needPc = ["nolapic_timer", "noapictimer", "nolapic", "disableapic", "noapic", "nosmp", "maxcpus=0", "acpi=off", "acpi=noirq", NoAcpi];

    private static readonly string[] s_limitMemory = ["mem=", "memmap=", "hugepagesz="];

    // What Linux is told for the sake of its start, and why: docs/kernel-parameters.md.
    private static readonly string[] s_defaults = ["swiotlb=noforce"];

    /// <summary>What Linux is told besides so that it starts faster, as words to put in front of <paramref name="commandLine"/>. A parameter that is on the command
    /// line already, with whatever value, is not among them.</summary>
    public static string Defaults(string commandLine) =>
        string.Join(' ', s_defaults.Where(word => !HasStart(commandLine, word[..(word.IndexOf('=', StringComparison.Ordinal) + 1)])));

    /// <summary>A word of <paramref name="commandLine"/> with which Linux needs the interrupt controllers and the timer of a PC; null without one.</summary>
    public static string? NeedsPc(string commandLine) => Array.Find(s_needPc, word => Has(commandLine, word) || (word == NoAcpi && ListOf(commandLine, "pci=").Contains("noacpi")));

    /// <summary>Whether nothing of the kernel may be placed at random.</summary>
    public static bool HasNoKaslr(string commandLine) => Has(commandLine, "nokaslr");

    /// <summary>Whether <paramref name="commandLine"/> takes memory away from the kernel, or wants huge pages that a kernel in their middle would be in the way of.
    /// Linux's own decompressor minds these, too.</summary>
    public static bool LimitsMemory(string commandLine) => Array.Exists(s_limitMemory, word => HasStart(commandLine, word));

    /// <summary>The parameter that tells the frequency of the TSC to a Linux which may not ask KVM for it (no-kvmclock, nopv), or null. Intel's processors tell it by
    /// CPUID and others by a timer to compare with, but a busy host is too slow for that comparison, and without a result Linux has no clock at all and hangs.</summary>
    /// <param name="commandLine">The user's command line.</param>
    /// <param name="tscKilohertz">The frequency; 0 where the host does not know it.</param>
    public static string? Clock(string commandLine, uint tscKilohertz) =>
        tscKilohertz != 0 && (Has(commandLine, "no-kvmclock") || Has(commandLine, "nopv")) && !commandLine.Contains("tsc_early_khz=", StringComparison.Ordinal)
            ? $"tsc_early_khz={tscKilohertz}"
            : null;

    /// <summary>What a parameter says whose value is a list with commas: the parts of all lists that <paramref name="commandLine"/> has for it.</summary>
    /// <param name="commandLine">The command line.</param>
    /// <param name="name">The parameter with its equals sign, without - and _.</param>
    public static IEnumerable<string> ListOf(string commandLine, string name) =>
        Words(commandLine).Where(word => word.StartsWith(name, StringComparison.Ordinal)).SelectMany(word => word[name.Length..].Split(','));

    private static bool Has(string commandLine, string word) => HasAny(commandLine, word, isStart: false);

    private static bool HasStart(string commandLine, string start) => HasAny(commandLine, start, isStart: true);

    private static bool HasAny(string commandLine, string wanted, bool isStart) =>
        Words(commandLine).Any(word => AreEqual(isStart ? word.AsSpan(0, Math.Min(word.Length, wanted.Length)) : word, wanted));

    // What follows "--" is for init.
    private static IEnumerable<string> Words(string commandLine) =>
        commandLine.Split([' ', '\t', '\n'], StringSplitOptions.RemoveEmptyEntries).TakeWhile(word => word != "--");

    // To Linux '-' and '_' are the same in the name of a parameter (parameq of kernel/params.c).
    private static bool AreEqual(ReadOnlySpan<char> one, ReadOnlySpan<char> other)
    {
        if (one.Length != other.Length)
            return false;
        for (int i = 0; i < one.Length; i++)
        {
            if ((one[i] == '-' ? '_' : one[i]) != (other[i] == '-' ? '_' : other[i]))
                return false;
        }
        return true;
    }
}
