using System.Diagnostics.CodeAnalysis;
using System.Net;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Net;

/// <summary>The program passt, which makes a guest's connections its own and so needs no rights. It takes the guest's frames by a stream, or works the guest's queues itself, by
/// vhost-user (from 2024-12-11 on; Debian 13 has such a passt, Debian 12 has not).</summary>
public static class PasstProgram
{
    private const string GatewayMac = "02:00:00:00:00:02";      // not that of an interface, which lo has not
    private const int MaxSize = 16 << 20;

    private static readonly string[] s_programs = ["/usr/bin/passt", "/usr/local/bin/passt", "/run/current-system/sw/bin/passt"];

    /// <summary>Whether passt can work the guest's queues, with nothing lost against a stream: it knows how to; and either the guest may reach the host's loopback addresses, or there is no
    /// IPv6. By that passt of 2025 sends datagrams there that are for ::ffff:127.0.0.1, and <c>--no-map-gw</c> does not change it; on a stream we drop them.</summary>
    /// <param name="opensHost">Whether the guest may reach the host's loopback addresses.</param>
    public static bool WorksQueues(bool opensHost) => Find() is { } program && KnowsVhostUser(program) && (opensHost || !HostRoutes.HasDefault || !HostRoutes.HasIpv6);

    /// <summary>What a user can do about what passt said last; begins with a colon, unless it is empty.</summary>
    public static string Advice(string lastLine) => lastLine.StartsWith("Failed to bind", StringComparison.Ordinal)
        ? ": somebody has that port, or this user may not: give another port of the host"
        : "";

    /// <summary>Makes passt of this process once a front-end has connected.</summary>
    /// <param name="number">An inherited socket, connected or listening.</param>
    /// <param name="ports">Where the host's ports lead into the guest.</param>
    /// <param name="opensHost">Whether the guest may reach the host's loopback addresses. If not, there is no IPv6.</param>
    /// <exception cref="VhostException">There is none, or it cannot.</exception>
    /// <exception cref="ErrnoException">The socket is none, or passt cannot be started.</exception>
    [DoesNotReturn]
    public static void Become(int number, IReadOnlyList<ForwardedPort> ports, bool opensHost)
    {
        string program = Require();
        if (!KnowsVhostUser(program))
            throw new VhostException($"{program} knows no --vhost-user: install passt of 2024-12-11 or later, or let its frames come by a stream (vhost_user=off of --net user)");
        bool hasDefaultRoute = HostRoutes.HasDefault;
        using UnixSocket frontEnd = Connection(number);
        ProcessImage.Replace(program, fd => VhostUserArguments(ports, hasDefaultRoute, opensHost, fd), frontEnd);
    }

    /// <summary>Where it is.</summary>
    /// <exception cref="VhostException">It is not installed.</exception>
    internal static string Require() => Find() ?? throw new VhostException($"there is no passt ({string.Join(", ", s_programs)}): install package passt");

    /// <summary>Whether <paramref name="program"/> is a passt that can be a vhost-user back-end. Its help is in the file: to ask it costs more, and passt of 2023 writes its help to the
    /// host's log, line by line, when it does not know an option.</summary>
    internal static bool KnowsVhostUser(string program)
    {
        try
        {
            using RegularFile file = RegularFile.OpenRead(program);
            byte[] bytes = GC.AllocateUninitializedArray<byte>((int)Math.Min(file.Length, MaxSize));
            int length = 0;
            for (int count; length < bytes.Length && (count = file.Read(bytes.AsSpan(length), (ulong)length)) > 0;)
                length += count;
            return bytes.AsSpan(0, length).IndexOf("--vhost-user"u8) >= 0;
        }
        catch (Exception e) when (e is ErrnoException or InvalidDataException)
        {
            return false;   // one that may be run and not read, for example
        }
    }

    /// <summary>Its arguments on a stream: options of 2023-03-09, which Debian 12 has.</summary>
    /// <param name="ports">Where the host's ports lead into the guest.</param>
    /// <param name="hasDefaultRoute">Whether the host has one. passt would not start without; on the loopback interface it serves the host's own
    /// addresses and ports.</param>
    /// <param name="opensHost">Whether the gateway's address is the host's 127.0.0.1 for the guest.</param>
    /// <param name="fd">Its end of the wire.</param>
    internal static string[] Arguments(IReadOnlyList<ForwardedPort> ports, bool hasDefaultRoute, bool opensHost, int fd)
    {
        List<string> arguments = Common(ports, opensHost, fd);
        if (!hasDefaultRoute)
            arguments.AddRange(["--ipv4-only", "--interface", "lo"]);
        return [.. arguments];
    }

    /// <summary>Its arguments as a vhost-user back-end.</summary>
    /// <inheritdoc cref="Arguments"/>
    internal static string[] VhostUserArguments(IReadOnlyList<ForwardedPort> ports, bool hasDefaultRoute, bool opensHost, int fd)
    {
        List<string> arguments = ["--vhost-user", .. Common(ports, opensHost, fd)];
        // Without IPv6 it drops by itself all that Loopback.IsMeant would drop.
        if (!hasDefaultRoute || !opensHost)
            arguments.Add("--ipv4-only");
        if (!hasDefaultRoute)
            arguments.AddRange(["--interface", "lo"]);
        return [.. arguments];
    }

    private static List<string> Common(IReadOnlyList<ForwardedPort> ports, bool opensHost, int fd)
    {
        List<string> arguments =
        [
            "--foreground", "--quiet", "--fd", $"{fd}", "--address", UserNetwork.Address, "--netmask", $"{UserNetwork.PrefixLength}",
            "--gateway", UserNetwork.Gateway, "--dns-forward", UserNetwork.Resolver, "--mtu", $"{UserNetwork.Mtu}",
            "--mac-addr", GatewayMac,
        ];
        // Programs that serve 127.0.0.1 trust whoever comes from there. The resolver works all the same: passt asks it itself.
        if (!opensHost)
            arguments.Add("--no-map-gw");
        foreach (ForwardedPort port in ports)
        {
            string address = port.Address.Equals(IPAddress.Any) ? "" : $"{port.Address}/";
            arguments.AddRange([port.IsUdp ? "--udp-ports" : "--tcp-ports", $"{address}{port.HostPort}:{port.GuestPort}"]);
        }
        return arguments;
    }

    private static string? Find() => Array.Find(s_programs, File.Exists);

    private static UnixSocket Connection(int number)
    {
        if (!UnixListener.IsListening(number))
            return UnixSocket.Adopt(number);
        using UnixListener listener = UnixListener.Adopt(number);
        while (true)
        {
            Poll.Wait([new PollEntry(listener, PollEvents.Readable)], Timeout.Infinite);
            if (listener.TryAccept() is { } socket)
                return socket;
        }
    }
}
