using System.Globalization;
using System.Text.RegularExpressions;
using NUnit.Framework;

namespace Vmm.Tests.Integration.Linux;

/// <summary>What a guest says of its machine (firmware/guest/report).</summary>
internal sealed partial class GuestReport
{
    private const long Kibi = 1024;

    private static readonly TimeSpan s_clockTolerance = TimeSpan.FromSeconds(3);

    private readonly VmmResult _result;
    private readonly ILookup<string, string> _facts;

    /// <summary>Reads it from what the guest wrote.</summary>
    public GuestReport(VmmResult result)
    {
        _result = result;
        _facts = result.Output.Split('\n').Select(line => line.TrimEnd('\r').Split('=', 2)).Where(fact => fact.Length == 2)
            .ToLookup(fact => fact[0], fact => fact[1]);
    }

    /// <summary>The script that makes a guest report.</summary>
    public static string Script => File.ReadAllText(RepositoryRoot.Combine("firmware", "guest", "report"));

    /// <summary>Everything must be what <paramref name="guest"/> was given.</summary>
    /// <param name="guest">The guest.</param>
    /// <param name="now">The host's time when the guest told its own.</param>
    public void Check(LinuxGuest guest, DateTimeOffset now) => Assert.Multiple(() =>
    {
        That(_facts["release"], Is.EqualTo(new[] { guest.Release }), "kernel");
        That(_facts["cpus"], Is.EqualTo(new[] { $"{guest.Cpus}" }), "CPUs");
        That(_facts["core"].Distinct(), Has.Exactly(guest.Cpus).Items, "cores");
        That(_facts["package"], Is.All.EqualTo("0"), "packages");
        That(_facts["clocksource"], Is.EqualTo(new[] { "kvm-clock" }), "clock source");
        That(_facts["interrupt"], Has.Exactly(1).Matches(@"^ *[0-9]+:( +[0-9]+)+ +IO-APIC .*ttyS0$"), "serial port's interrupt");
        That(_facts["kernel"].Where(line => !ExpectedMessage().IsMatch(line)), Is.Empty, "kernel's messages");
        CheckMemory(MemorySize(guest.Memory));
        CheckTime("clock", now);
        CheckTime("rtc", now);
    });

    // Linux does not count what it takes for itself at boot: the kernel, and a share for struct page and other tables.
    private void CheckMemory(long given)
    {
        const long kernel = 52 * Kibi * Kibi;
        long total = Number("memory") * Kibi;
        That(total, Is.InRange((given * 0.96) - kernel, given), "memory");
    }

    private void CheckTime(string name, DateTimeOffset now) =>
        That(DateTimeOffset.FromUnixTimeSeconds(Number(name)), Is.EqualTo(now).Within(s_clockTolerance), name);

    private long Number(string name) =>
        long.TryParse(_facts[name].SingleOrDefault(), NumberStyles.None, CultureInfo.InvariantCulture, out long number) ? number : -1;

    private void That<T>(T actual, NUnit.Framework.Constraints.IResolveConstraint expression, string what) =>
        Assert.That(actual, expression, $"{what}; {_result.Summary}");

    // SIZE, or size=SIZE,...
    private static long MemorySize(string option)
    {
        Match match = Size().Match(option);
        long number = long.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture);
        return number * Kibi * Kibi * (match.Groups[2].Value == "G" ? Kibi : 1);
    }

    [GeneratedRegex("^(?:size=)?([0-9]+)([MG])")]
    private static partial Regex Size();

    // The machine has no PCI, and Linux needs no bounce buffers in it (swiotlb=noforce). Others only sound like trouble, and the last two say that the host was slow.
    [GeneratedRegex("PCI: Fatal: No config space access function found|PCI: System does not support PCI|software IO TLB: No low mem"
        + "|PCI: Using host bridge windows from ACPI; .* and report a bug|AMD IOMMUv2 functionality not available on this system - This is not a bug"
        + "|hrtimer: interrupt took [0-9]+ ns|clocksource: Long readout interval, skipping watchdog check")]
    private static partial Regex ExpectedMessage();
}
