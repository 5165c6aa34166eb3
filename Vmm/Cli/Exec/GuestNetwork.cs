using System.Net;
using System.Net.Sockets;
using System.Text;
using Vmm.Devices.Backends.Net;

namespace Vmm.Cli.Exec;

/// <summary>The keys that <c>--net</c> has only with <c>vmm exec</c>: <c>ip=ADDRESS/PREFIX</c>, the guest's address, and <c>gateway=ADDRESS</c>, by which it
/// reaches all others. The rest is for the device. With <c>user</c> they are those of the user network.</summary>
/// <param name="Device">The value without them.</param>
/// <param name="Address">The address with its prefix; null for none.</param>
/// <param name="Gateway">The gateway; empty for none.</param>
/// <param name="Resolver">What resolves names; null for what the root's files say.</param>
internal sealed record GuestNetwork(string Device, string? Address, string Gateway, string? Resolver = null)
{
    private const int MaxPrefix = 32;

    /// <summary>Takes <paramref name="text"/>, a value of <c>--net</c>, apart.</summary>
    /// <exception cref="UsageException">An address is none.</exception>
    public static GuestNetwork Parse(string text)
    {
        var device = new StringBuilder();
        string? address = null, gateway = null;
        foreach (string part in Parts(text))
        {
            if (part.StartsWith("ip=", StringComparison.Ordinal))
                address = ParseAddress(part["ip=".Length..]);
            else if (part.StartsWith("gateway=", StringComparison.Ordinal))
                gateway = ParseGateway(part["gateway=".Length..]);
            else
                device.Append(device.Length == 0 ? "" : ",").Append(part);
        }
        if (gateway is not null && address is null)
            throw new OptionValue(NetOption.Name, "gateway", gateway).Refuse("has no effect without ip=ADDRESS/PREFIX");
        if (!NetOption.IsUser(device.ToString()))
            return new GuestNetwork(device.ToString(), address, gateway ?? "");
        return address is null
            ? new GuestNetwork(text, $"{UserNetwork.Address}/{UserNetwork.PrefixLength}", UserNetwork.Gateway, UserNetwork.Resolver)
            : throw new OptionValue(NetOption.Name, "ip", address).Refuse($"is not possible beside user: the guest is {UserNetwork.Address} there");
    }

    // At commas that are not in quotes.
    private static IEnumerable<string> Parts(string text)
    {
        int start = 0;
        bool isQuoted = false;
        for (int i = 0; i < text.Length; i++)
        {
            if (text[i] == '"')
                isQuoted = !isQuoted;
            if (text[i] != ',' || isQuoted)
                continue;
            yield return text[start..i];
            start = i + 1;
        }
        yield return text[start..];
    }

    private static string ParseAddress(string text)
    {
        string[] parts = text.Split('/');
        return parts.Length == 2 && IsAddress(parts[0]) && uint.TryParse(parts[1], out uint prefix) && prefix <= MaxPrefix
            ? text
            : throw new OptionValue(NetOption.Name, "ip", text).Refuse("is no IPv4 address with a prefix: write ip=10.0.0.2/24");
    }

    private static string ParseGateway(string text) => IsAddress(text)
        ? text
        : throw new OptionValue(NetOption.Name, "gateway", text).Refuse("is no IPv4 address: write gateway=10.0.0.1");

    private static bool IsAddress(string text) =>
        text.Count(character => character == '.') == 3 && IPAddress.TryParse(text, out IPAddress? address) && address.AddressFamily == AddressFamily.InterNetwork;
}
