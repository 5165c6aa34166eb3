using System.Globalization;

namespace Vmm.Cli.Checks;

/// <summary>What the control groups of this process leave it of something that they count and name alike in both versions, such as threads (Linux
/// Documentation/admin-guide/cgroup-v2.rst, "PID"; cgroup-v1/pids.rst). <see cref="Machine.HostMemory"/> does so for memory and huge pages.</summary>
internal static class ControlGroups
{
    private const string Root = "/sys/fs/cgroup";

    /// <summary>Looks at this process's group and all above it.</summary>
    /// <param name="host">The host.</param>
    /// <param name="controller">The controller, with whose name its files begin.</param>
    /// <returns>What is left, and in which group; null where none has a limit.</returns>
    public static (ulong Amount, string Group)? Left(HostView host, string controller)
    {
        (ulong Amount, string Group)? least = null;
        foreach (string line in host.ReadText("/proc/self/cgroup").Split('\n'))
        {
            string[] parts = line.Split(':', 3);   // hierarchy-ID:controller-list:cgroup-path (cgroups(7))
            bool isUnified = parts is ["0", "", _];
            if (parts.Length != 3 || !(isUnified || parts[1].Split(',').Contains(controller)))
                continue;
            string mount = isUnified ? Root : $"{Root}/{controller}";
            for (string group = parts[2].TrimEnd('/'); ; group = group[..group.LastIndexOf('/')])
            {
                if (Number(host, $"{mount}{group}/{controller}.max") is ulong limit)
                {
                    ulong left = limit - Math.Min(limit, Number(host, $"{mount}{group}/{controller}.current") ?? 0);
                    if (least is not { } found || left < found.Amount)
                        least = (left, group.Length == 0 ? "/" : group);
                }
                if (!group.Contains('/', StringComparison.Ordinal))
                    break;
            }
        }
        return least;
    }

    // "max" is no limit.
    private static ulong? Number(HostView host, string path) =>
        ulong.TryParse(host.ReadText(path).AsSpan().Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out ulong number) ? number : null;
}
