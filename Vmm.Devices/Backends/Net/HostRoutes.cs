using System.Globalization;

namespace Vmm.Devices.Backends.Net;

/// <summary>Where the host's packets go, as the kernel's tables have it (proc_pid_net(5)).</summary>
internal static class HostRoutes
{
    /// <summary>Whether there is a default route of IPv4.</summary>
    public static bool HasDefault => HasDefaultIn("/proc/net/route");

    /// <summary>Whether the host reaches others by IPv6.</summary>
    public static bool HasIpv6 => HasIpv6In("/proc/net/ipv6_route");

    /// <summary>Whether a table of IPv4 routes has a default one: destination and mask are 0.</summary>
    /// <param name="path">The table.</param>
    public static bool HasDefaultIn(string path)
    {
        const int destination = 1, mask = 7;
        return File.Exists(path) && File.ReadLines(path).Skip(1).Select(line => line.Split('\t', StringSplitOptions.TrimEntries))
            .Any(columns => columns.Length > mask && columns[destination] == "00000000" && columns[mask] == "00000000");
    }

    /// <summary>Whether a table of IPv6 routes has one that leads to more than the host itself (lo), what is on its link (fe80::/10) and groups (ff00::/8). The kernel leaves IPv6 out
    /// altogether where it has none.</summary>
    /// <param name="path">The table.</param>
    public static bool HasIpv6In(string path)
    {
        const int destination = 0, device = 9, prefix = 4;
        return File.Exists(path) && File.ReadLines(path).Select(line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries))
            .Any(columns => columns.Length > device && columns[device] != "lo" && columns[destination].Length > prefix
                && int.TryParse(columns[destination].AsSpan(0, prefix), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out int begin)
                && (begin & 0xFFC0) != 0xFE80 && (begin & 0xFF00) != 0xFF00);
    }
}
