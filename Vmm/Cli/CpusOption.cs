using System.Globalization;
using Vmm.Cpu;

namespace Vmm.Cli;

/// <summary>The value of <c>--cpus</c>: <c>N</c>, or <c>[boot=N][,profile=NAME][,nested=on|off][,pmu=on|off][,amx=on|off]</c>.</summary>
internal static class CpusOption
{
    /// <summary>The option's name.</summary>
    public const string Name = "--cpus";

    private const int Max = 1024;   // what KVM has allowed since Linux 5.15

    /// <summary>The number of vCPUs, 1 to 1024, and what they can do. Whether the host has that is seen later.</summary>
    /// <exception cref="UsageException">The value is malformed or contradicts itself.</exception>
    public static (int Count, CpuOptions Options) Parse(string text)
    {
        if (!text.Contains('='))
            return (ParseCount(new OptionValue(Name, null, text)), new CpuOptions());

        KeyValueList list = KeyValueList.Parse(Name, text, "boot", "profile", "nested", "pmu", "amx");
        var options = new CpuOptions
        {
            Profile = list.Find("profile") is { } profile ? ParseProfile(profile) : CpuProfile.Host,
            Nested = IsOn("nested"),
            Pmu = IsOn("pmu"),
            Amx = IsOn("amx"),
        };
        if (options.Amx && options.Profile != CpuProfile.Host)
            throw list.Find("amx")!.Value.Refuse($"cannot be with profile={GuestCpuid.NameOf(options.Profile)}: no profile has what AMX needs; leave one of them out");
        return (list.Find("boot") is { } boot ? ParseCount(boot) : 1, options);

        bool IsOn(string key) => list.Find(key) is { } value && Choice.ParseSwitch(value);
    }

    private static int ParseCount(OptionValue value) =>
        int.TryParse(value.Text, NumberStyles.None, CultureInfo.InvariantCulture, out int count) && count is >= 1 and <= Max
            ? count
            : throw value.Refuse($"is not a number of CPUs from 1 to {Max}");

    private static CpuProfile ParseProfile(OptionValue value) => Choice.Parse(
        value,
        (GuestCpuid.NameOf(CpuProfile.V2), CpuProfile.V2), (GuestCpuid.NameOf(CpuProfile.V3), CpuProfile.V3), (GuestCpuid.NameOf(CpuProfile.V4), CpuProfile.V4));
}
