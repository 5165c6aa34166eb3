using System.Globalization;
using System.Net;
using Vmm.Devices.Backends.Net;

namespace Vmm.Cli;

/// <summary>A port of the host's that leads into the guest: <c>[udp:][ADDRESS:]HOST:GUEST</c>. Without an address it is one of 127.0.0.1: a guest is not
/// for everybody on the network unless the user says so.</summary>
internal static class PortValue
{
    private const string Udp = "udp:", Tcp = "tcp:";

    /// <summary>The ports of a list with + between them.</summary>
    /// <exception cref="UsageException">One is malformed, or given twice.</exception>
    public static IReadOnlyList<ForwardedPort> ParseAll(OptionValue value)
    {
        List<ForwardedPort> ports = [];
        foreach (string part in value.Text.Split('+'))
        {
            ForwardedPort port = Parse(value with { Text = part });
            if (ports.Exists(other => other.HostPort == port.HostPort && other.IsUdp == port.IsUdp && other.Address.Equals(port.Address)))
                throw value.Refuse($"has port {port.HostPort} of {port.Address} twice");
            ports.Add(port);
        }
        return ports;
    }

    /// <summary>Refuses what passt cannot do: an answer from a UDP port goes to the gateway's address, which leads to the host only if that is open to the guest.</summary>
    /// <param name="ports">The ports.</param>
    /// <param name="option">The option that they were given by.</param>
    /// <param name="remedy">How the host is opened.</param>
    /// <exception cref="UsageException">One is of UDP.</exception>
    public static void RefuseUdp(IReadOnlyList<ForwardedPort> ports, string option, string remedy)
    {
        if (ports.FirstOrDefault(port => port.IsUdp) is { } udp)
            throw new UsageException($"{option}: '{udp}' needs {remedy}: without it passt does not bring the answers back. The guest then reaches all that serves this host's 127.0.0.1");
    }

    /// <summary>One port.</summary>
    /// <exception cref="UsageException">It is malformed.</exception>
    public static ForwardedPort Parse(OptionValue value)
    {
        bool isUdp = value.Text.StartsWith(Udp, StringComparison.Ordinal);
        string text = isUdp || value.Text.StartsWith(Tcp, StringComparison.Ordinal) ? value.Text[Udp.Length..] : value.Text;
        string[] parts = text.Split(':');
        if (parts.Length < 2)
            throw Malformed(value);
        string address = string.Join(':', parts[..^2]);
        IPAddress? where = IPAddress.Loopback;
        if (address.Length > 0 && (!IPAddress.TryParse(address, out where) || (address.Contains(':', StringComparison.Ordinal) && !address.StartsWith('['))))
            throw value.Refuse("has no address before its ports: write 127.0.0.1:8080:80 or [::1]:8080:80");
        return new ForwardedPort(where, ParsePort(value, parts[^2]), ParsePort(value, parts[^1]), isUdp);
    }

    private static int ParsePort(OptionValue value, string text) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int port) && port is > 0 and <= IPEndPoint.MaxPort ? port : throw Malformed(value);

    private static UsageException Malformed(OptionValue value) => value.Refuse("is not HOST:GUEST, two ports from 1 to 65535, such as 8080:80 or udp:5353:53");
}
