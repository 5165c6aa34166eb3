using System.Globalization;
using Vmm.Devices.Backends.FileSystem;

namespace Vmm.Cli.Backend;

/// <summary>The values of <c>--translate-uid</c> and <c>--translate-gid</c>: <c>map:GUEST:HOST:COUNT</c> and the like, as virtiofsd has them.</summary>
internal static class IdMapOption
{
    /// <summary>The map that <paramref name="joined"/> values (<see cref="RepeatableOptions"/>) describe.</summary>
    /// <exception cref="UsageException">One of them is wrong.</exception>
    public static IdMap Parse(string option, string? joined) =>
        new([.. RepeatableOptions.Values(joined).Select(text => ParseRule(new OptionValue(option, null, text)))]);

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
