using System.Text;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>Which names extended attributes have on the host. The first rule that has a name counts.</summary>
public sealed class XattrMap
{
    private const string Marker = "user.virtiofs.";

    private readonly XattrRule[] _rules;

    /// <summary>A map of <paramref name="rules"/>, of which the last ones are to have every name.</summary>
    public XattrMap(params IReadOnlyList<XattrRule> rules) => _rules = [.. rules];

    /// <summary>The map of a share where nothing is said: names that begin with "trusted.", for which a program of the host's must be root with CAP_SYS_ADMIN, are kept as
    /// "user.virtiofs.trusted.": overlayfs in a guest needs them. All others are the same on both sides. Names of the host's that begin so are hidden.</summary>
    public static XattrMap Default { get; } = new(
        new XattrRule(XattrRuleKind.Prefix, XattrScope.All, "trusted.", Marker),
        new XattrRule(XattrRuleKind.Bad, XattrScope.Client, Marker, ""),
        new XattrRule(XattrRuleKind.Bad, XattrScope.Server, "", Marker),
        new XattrRule(XattrRuleKind.Bad, XattrScope.Server, "", "trusted."),
        new XattrRule(XattrRuleKind.Ok, XattrScope.All, "", ""));

    /// <summary>Whether POSIX ACLs have the same names on both sides. With other names the host's kernel does not check them, and a new file does not inherit the default ACL of its
    /// directory.</summary>
    public bool KeepsAcls => Keeps("system.posix_acl_access"u8) && Keeps("system.posix_acl_default"u8);

    /// <summary>Reads the rules of virtiofsd's option: <c>:TYPE:SCOPE:KEY:PREPEND:</c> one after the other, or <c>:map:KEY:PREPEND:</c>. The character that begins a rule
    /// stands between its parts.</summary>
    /// <exception cref="FormatException">They are none; the message says what is wrong.</exception>
    public static XattrMap Parse(string text)
    {
        var rules = new List<XattrRule>();
        int at = 0;
        bool isComplete = false;
        while (at < text.Length)
        {
            if (char.IsWhiteSpace(text[at]))
            {
                at++;
                continue;
            }
            if (isComplete)
                throw new FormatException("there is a rule behind :map:, which is the last");
            char separator = text[at++];
            string type = Next(text, separator, ref at);
            if (type == "map")
            {
                string key = Next(text, separator, ref at), prefix = Next(text, separator, ref at);
                AddMap(rules, key, prefix);
                isComplete = true;
                continue;
            }
            XattrRuleKind kind = type switch
            {
                "prefix" => XattrRuleKind.Prefix,
                "ok" => XattrRuleKind.Ok,
                "bad" => XattrRuleKind.Bad,
                "unsupported" => XattrRuleKind.Unsupported,
                _ => throw new FormatException($"'{type}' is no type: write prefix, ok, bad, unsupported or map"),
            };
            XattrScope scope = Next(text, separator, ref at) switch
            {
                "client" => XattrScope.Client,
                "server" => XattrScope.Server,
                "all" => XattrScope.All,
                string other => throw new FormatException($"'{other}' is no scope: write client, server or all"),
            };
            rules.Add(new XattrRule(kind, scope, Next(text, separator, ref at), Next(text, separator, ref at)));
        }
        return rules.Count > 0 ? new XattrMap(rules) : throw new FormatException("there is no rule");
    }

    /// <summary>What the host is asked for when the guest says <paramref name="name"/>.</summary>
    /// <param name="name">The name without a null byte.</param>
    /// <param name="target">Takes the host's name and a null byte.</param>
    /// <returns>0, or a negated error number: EPERM for a name that a rule forbids, or that none has.</returns>
    internal int ToHost(ReadOnlySpan<byte> name, Span<byte> target)
    {
        foreach (XattrRule rule in _rules)
        {
            if (rule.Scope == XattrScope.Server || !name.StartsWith(rule.Key))
                continue;
            if (rule.Kind == XattrRuleKind.Bad)
                return -Errnos.Eperm;
            if (rule.Kind == XattrRuleKind.Unsupported)
                return -Errnos.Eopnotsupp;
            ReadOnlySpan<byte> prefix = rule.Kind == XattrRuleKind.Prefix ? rule.Prepend : [];
            if (prefix.Length + name.Length >= target.Length)
                return -Errnos.Erange;
            prefix.CopyTo(target);
            name.CopyTo(target[prefix.Length..]);
            target[prefix.Length + name.Length] = 0;
            return 0;
        }
        return -Errnos.Eperm;   // as QEMU's virtiofsd; what has no rule may not be used
    }

    /// <summary>What the guest sees of an attribute that the host has.</summary>
    /// <param name="name">The host's name without a null byte.</param>
    /// <returns>A part of it; empty if the guest does not see it.</returns>
    internal ReadOnlySpan<byte> ToGuest(ReadOnlySpan<byte> name)
    {
        foreach (XattrRule rule in _rules)
        {
            if (rule.Scope == XattrScope.Client || !name.StartsWith(rule.Prepend))
                continue;
            // A prefix rule has put its prefix before the guest's name. What follows the prefix is the guest's name if it begins with the rule's key.
            if (rule.Kind == XattrRuleKind.Prefix)
            {
                if (name[rule.Prepend.Length..].StartsWith(rule.Key))
                    return name[rule.Prepend.Length..];
                continue;
            }
            return rule.Kind == XattrRuleKind.Ok ? name : [];
        }
        return [];
    }

    private bool Keeps(ReadOnlySpan<byte> name)
    {
        Span<byte> host = stackalloc byte[64];
        return ToHost(name, host) == 0 && host.StartsWith(name) && host[name.Length] == 0 && ToGuest(name).SequenceEqual(name);
    }

    private static void AddMap(List<XattrRule> rules, string key, string prefix)
    {
        if (prefix.Length == 0)
            throw new FormatException(":map: has no prefix");
        rules.Add(new XattrRule(XattrRuleKind.Prefix, XattrScope.All, key, prefix));
        if (key.Length == 0)
        {
            rules.Add(new XattrRule(XattrRuleKind.Bad, XattrScope.All, "", ""));
            return;
        }
        rules.Add(new XattrRule(XattrRuleKind.Bad, XattrScope.Client, prefix, ""));
        rules.Add(new XattrRule(XattrRuleKind.Bad, XattrScope.Server, "", key));
        rules.Add(new XattrRule(XattrRuleKind.Ok, XattrScope.All, "", ""));
    }

    private static string Next(string text, char separator, ref int at)
    {
        int end = text.IndexOf(separator, at);
        if (end < 0)
            throw new FormatException($"a rule ends without its '{separator}'");
        string part = text[at..end];
        at = end + 1;
        return part;
    }
}

/// <summary>A rule of an <see cref="XattrMap"/>.</summary>
/// <param name="Kind">What happens to a name.</param>
/// <param name="Scope">On which way.</param>
/// <param name="KeyText">What the guest's names begin with.</param>
/// <param name="PrependText">What stands before them on the host; what the host's names begin with.</param>
public sealed record XattrRule(XattrRuleKind Kind, XattrScope Scope, string KeyText, string PrependText)
{
    internal byte[] Key { get; } = Encoding.UTF8.GetBytes(KeyText);

    internal byte[] Prepend { get; } = Encoding.UTF8.GetBytes(PrependText);
}

/// <summary>What a rule does with the name of an attribute.</summary>
public enum XattrRuleKind
{
    /// <summary>It gets a prefix.</summary>
    Prefix,

    /// <summary>It stays.</summary>
    Ok,

    /// <summary>The guest gets EPERM, or does not see it.</summary>
    Bad,

    /// <summary>The guest gets EOPNOTSUPP, or does not see it.</summary>
    Unsupported,
}

/// <summary>On which way a rule holds.</summary>
public enum XattrScope
{
    /// <summary>From the guest to the host: get, set and remove.</summary>
    Client,

    /// <summary>From the host to the guest: lists.</summary>
    Server,

    /// <summary>Both.</summary>
    All,
}
