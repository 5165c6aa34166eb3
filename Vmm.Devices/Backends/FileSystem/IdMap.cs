namespace Vmm.Devices.Backends.FileSystem;

/// <summary>How numbers of users, or of groups, of the guest and of the host go together. The first rule that has a number counts; a number
/// that no rule has is the same on both sides.</summary>
public sealed class IdMap
{
    private readonly IdRule[] _rules;

    /// <summary>A map of <paramref name="rules"/>.</summary>
    public IdMap(params IReadOnlyList<IdRule> rules) => _rules = [.. rules];

    /// <summary>The map by which all numbers are the same.</summary>
    public static IdMap Same { get; } = new();

    /// <summary>Translates a number of a user or group in the guest into that on the host.</summary>
    /// <returns>False if the guest may not use it.</returns>
    public bool TryToHost(uint guest, out uint host)
    {
        host = guest;
        foreach (IdRule rule in _rules)
        {
            if (rule.Kind is IdRuleKind.HostToGuest or IdRuleKind.SquashHost || guest - rule.Guest >= rule.Count)
                continue;
            host = rule.Kind == IdRuleKind.SquashGuest ? rule.Host : rule.Host + (guest - rule.Guest);
            return rule.Kind != IdRuleKind.ForbidGuest;
        }
        return true;
    }

    /// <summary>Translates a number of a user or group on the host into that in the guest.</summary>
    public uint ToGuest(uint host)
    {
        foreach (IdRule rule in _rules)
        {
            if (rule.Kind is IdRuleKind.Both or IdRuleKind.HostToGuest && host - rule.Host < rule.Count)
                return rule.Guest + (host - rule.Host);
            if (rule.Kind == IdRuleKind.SquashHost && host - rule.Host < rule.Count)
                return rule.Guest;
        }
        return host;
    }
}

/// <summary>A rule of an <see cref="IdMap"/>.</summary>
/// <param name="Kind">In which direction it holds.</param>
/// <param name="Guest">The first number of the guest's.</param>
/// <param name="Host">The first number of the host's.</param>
/// <param name="Count">How many numbers.</param>
public readonly record struct IdRule(IdRuleKind Kind, uint Guest, uint Host, uint Count);

/// <summary>In which direction a rule holds.</summary>
public enum IdRuleKind
{
    /// <summary>In both.</summary>
    Both,

    /// <summary>Only numbers in the guest's requests are translated.</summary>
    GuestToHost,

    /// <summary>Only the numbers that the guest is told are translated.</summary>
    HostToGuest,

    /// <summary>All numbers that the guest says are one on the host.</summary>
    SquashGuest,

    /// <summary>All numbers that the host has are one for the guest.</summary>
    SquashHost,

    /// <summary>The guest may not use them.</summary>
    ForbidGuest,
}
