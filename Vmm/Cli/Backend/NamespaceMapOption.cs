using System.Globalization;
using Vmm.Devices.Backends.FileSystem;

namespace Vmm.Cli.Backend;

/// <summary>The values of <c>--uid-map</c> and <c>--gid-map</c>: <c>:GUEST:HOST:COUNT:</c>, as virtiofsd has them for its user namespace. There is none here. A user who maps
/// his own number gets the same by a rule.</summary>
internal static class NamespaceMapOption
{
    /// <summary>The rules for <paramref name="joined"/> values (<see cref="RepeatableOptions"/>).</summary>
    /// <param name="option">The option.</param>
    /// <param name="other">The option that says the same in rules.</param>
    /// <param name="joined">The values.</param>
    /// <param name="own">The number of this process's user or group; null for root, who would act for others.</param>
    /// <exception cref="UsageException">A value is none, or needs a user namespace.</exception>
    public static IReadOnlyList<IdRule> Parse(string option, string other, string? joined, uint? own)
    {
        string[] texts = [.. RepeatableOptions.Values(joined)];
        var rules = new List<IdRule>();
        foreach (string text in texts)
        {
            var value = new OptionValue(option, null, text);
            string[] parts = text.Length == 0 ? [] : text[1..].Split(text[0]);
            if (parts is not [string first, string second, string third, ""] || !TryRead(first, out uint guest) || !TryRead(second, out uint host) || !TryRead(third, out uint count))
                throw value.Refuse("is no map: write :GUEST:HOST:COUNT: with numbers");
            if (count != 1 || host != own)
                throw value.Refuse($"needs a user namespace, which is not used here: write {other} map:{guest}:{host}:{count}");
            rules.Add(new IdRule(IdRuleKind.Both, guest, host, count));
        }
        IdMapOption.CheckOverlaps(option, texts, rules);
        return rules;
    }

    private static bool TryRead(string text, out uint number) => uint.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out number);
}
