using System.Globalization;
using Vmm.Devices.Backends.FileSystem;

namespace Vmm.Cli.Backend;

/// <summary>The values of <c>--translate-uid</c> and <c>--translate-gid</c>: <c>map:GUEST:HOST:COUNT</c> and the like, as virtiofsd has them.</summary>
internal static class IdMapOption
{
    /// <summary>The map that <paramref name="joined"/> values (<see cref="RepeatableOptions"/>) describe.</summary>
    /// <exception cref="UsageException">One of them is wrong.</exception>
    public static IdMap Parse(string option, string? joined)
    {
        string[] texts = [.. RepeatableOptions.Values(joined)];
        IdRule[] rules = [.. texts.Select(text => ParseRule(new OptionValue(option, null, text)))];
        CheckOverlaps(option, texts, rules);
        return new IdMap(rules);
    }

    /// <summary>Makes sure that no number has two rules for the same direction.</summary>
    /// <param name="option">The option.</param>
    /// <param name="texts">Its values.</param>
    /// <param name="rules">The rules that they are.</param>
    /// <exception cref="UsageException">One has; the message names both rules.</exception>
    public static void CheckOverlaps(string option, IReadOnlyList<string> texts, IReadOnlyList<IdRule> rules)
    {
        for (int i = 1; i < rules.Count; i++)
        {
            for (int j = 0; j < i; j++)
            {
                string? whose = OverlapInGuest(rules[j], rules[i]) ? "guest" : OverlapOnHost(rules[j], rules[i]) ? "host" : null;
                if (whose is not null)
                    throw new UsageException($"{option}: '{texts[j]}' and '{texts[i]}' overlap: a number of the {whose}'s can have one rule only; change one of them, or leave it out");
            }
        }
    }

    private static bool OverlapInGuest(IdRule one, IdRule other) => IsOfGuest(one) && IsOfGuest(other) && Overlap(one.Guest, one.Count, other.Guest, other.Count);

    private static bool OverlapOnHost(IdRule one, IdRule other) => IsOfHost(one) && IsOfHost(other) && Overlap(one.Host, one.Count, other.Host, other.Count);

    // Whether it says what the guest's numbers are on the host, and the other way round.
    private static bool IsOfGuest(IdRule rule) => rule.Kind is not (IdRuleKind.HostToGuest or IdRuleKind.SquashHost);

    private static bool IsOfHost(IdRule rule) => rule.Kind is IdRuleKind.Both or IdRuleKind.HostToGuest or IdRuleKind.SquashHost;

    private static bool Overlap(uint start, uint count, uint otherStart, uint otherCount) =>
        start <= otherStart + (ulong)otherCount - 1 && otherStart <= start + (ulong)count - 1;

    private static IdRule ParseRule(OptionValue value)
    {
        string[] parts = value.Text.Split(':');
        IdRuleKind? kind = parts[0] switch
        {
            "map" => IdRuleKind.Both,
            "guest" => IdRuleKind.GuestToHost,
            "host" => IdRuleKind.HostToGuest,
            "squash-guest" => IdRuleKind.SquashGuest,
            "squash-host" => IdRuleKind.SquashHost,
            "forbid-guest" => IdRuleKind.ForbidGuest,
            _ => null,
        };
        uint[] numbers = new uint[parts.Length - 1];
        bool areNumbers = true;
        for (int i = 0; i < numbers.Length; i++)
            areNumbers &= uint.TryParse(parts[i + 1], NumberStyles.None, CultureInfo.InvariantCulture, out numbers[i]);
        if (kind is null || !areNumbers || numbers.Length != (kind == IdRuleKind.ForbidGuest ? 2 : 3))
        {
            throw value.Refuse("is no rule: write map:GUEST:HOST:COUNT, guest:GUEST:HOST:COUNT, host:HOST:GUEST:COUNT, squash-guest:GUEST:HOST:COUNT, "
                + "squash-host:HOST:GUEST:COUNT or forbid-guest:GUEST:COUNT, with numbers");
        }
        uint count = numbers[^1];
        // Those of the host's come first where the host's numbers are what is translated.
        (uint guest, uint host) = kind switch
        {
            IdRuleKind.HostToGuest or IdRuleKind.SquashHost => (numbers[1], numbers[0]),
            IdRuleKind.ForbidGuest => (numbers[0], 0U),
            _ => (numbers[0], numbers[1]),
        };
        bool isRange = kind is not (IdRuleKind.SquashGuest or IdRuleKind.SquashHost);
        if (count == 0 || !Fits(guest, count, isRange || kind == IdRuleKind.SquashGuest) || !Fits(host, count, isRange || kind == IdRuleKind.SquashHost))
            throw value.Refuse("is an empty range, or one that goes beyond 4294967295");
        return new IdRule(kind.Value, guest, host, count);
    }

    private static bool Fits(uint start, uint count, bool isRange) => !isRange || count - 1 <= uint.MaxValue - start;
}
