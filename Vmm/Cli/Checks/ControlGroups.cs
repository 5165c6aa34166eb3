using System.Globalization;

namespace Vmm.Cli.Checks;

/// <summary>What the control groups of this process leave it of something that they count (Linux Documentation/admin-guide/cgroup-v2.rst, "PID" and
/// "HugeTLB"; cgroup-v1/pids.rst, cgroup-v1/hugetlb.rst). <see cref="Machine.HostMemory"/> does so for memory.</summary>
internal static class ControlGroups
{
    private const string Root = "/sys/fs/cgroup";

    /// <summary>Looks at this process's group and all above it.</summary>
    /// <param name="host">The host.</param>
    /// <param name="controller">The controller, as cgroup v1 calls it.</param>
    /// <param name="prefix">What its files begin with, up to the dot before "max".</param>
    /// <param name="isFileOfV1">Whether version 1 calls the files limit_in_bytes and usage_in_bytes instead of max and current.</param>
    /// <returns>What is left, and in which group; null where none has a limit.</returns>
    public static (ulong Amount, string Group)? Left(HostView host, string controller, string prefix, bool isFileOfV1)
    {
        (ulong Amount, string Group)? least = null;
        foreach (string line in host.ReadText("/proc/self/cgroup").Split('\n'))
        {
            string[] parts = line.Split(':', 3);   // hierarchy-ID:controller-list:cgroup-path (cgroups(7))
            bool isUnified = parts is ["0", "", _];
            if (parts.Length != 3 || !(isUnified || parts[1].Split(',').Contains(controller)))
                continue;
            string mount = isUnified ? Root : $"{Root}/{controller}";
            (string limitFile, string usageFile) = isUnified || !isFileOfV1 ? ("max", "current") : ("limit_in_bytes", "usage_in_bytes");
            for (string group = parts[2].TrimEnd('/'); ; group = group[..group.LastIndexOf('/')])
            {
                if (Number(host, $"{mount}{group}/{prefix}.{limitFile}") is ulong limit)
                {
                    ulong left = limit - Math.Min(limit, Number(host, $"{mount}{group}/{prefix}.{usageFile}") ?? 0);
                    if (least is not { } found || left < found.Amount)
                        least = (left, group.Length == 0 ? "/" : group);
                }
                if (!group.Contains('/', StringComparison.Ordinal))
                    break;
            }
        }
        return least;
    }

    // "max" and version 1's huge number are no limits.
    private static ulong? Number(HostView host, string path) =>
        ulong.TryParse(host.ReadText(path).AsSpan().Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out ulong number) && number < long.MaxValue / 4096 * 4096
            ? number
            : null;
}
