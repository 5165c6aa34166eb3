namespace Vmm.Machine;

/// <summary>A limit of one of this process's control groups.</summary>
/// <param name="Amount">All that the group may have.</param>
/// <param name="Left">What it does not have yet.</param>
/// <param name="Group">The group, as /proc/self/cgroup names it.</param>
internal readonly record struct GroupLimit(ulong Amount, ulong Left, string Group);

/// <summary>What the control groups of this process leave it, in both versions (Linux Documentation/admin-guide/cgroup-v2.rst and cgroup-v1).</summary>
internal static class ControlGroups
{
    private const string Mount = "sys/fs/cgroup";

    /// <summary>The limits for threads (cgroup-v2.rst, "PID"; cgroup-v1/pids.rst).</summary>
    /// <param name="root">Where the host's file system begins.</param>
    public static IEnumerable<GroupLimit> Threads(string root)
    {
        var files = new Files(["pids.max"], "pids.current");
        return Limits(root, "pids", files, files);
    }

    /// <summary>The limits for memory (cgroup-v2.rst, "Memory Interface Files"; cgroup-v1/memory.rst), in bytes.</summary>
    /// <inheritdoc cref="Threads"/>
    public static IEnumerable<GroupLimit> Memory(string root) => Limits(
        root, "memory", new Files(["memory.max", "memory.high"], "memory.current", "inactive_file", "active_file", "slab_reclaimable"),
        new Files(["memory.limit_in_bytes"], "memory.usage_in_bytes", "total_inactive_file", "total_active_file"));

    /// <summary>The limits for huge pages of <paramref name="size"/> bytes (cgroup-v2.rst, "HugeTLB Interface Files"; cgroup-v1/hugetlb.rst), in
    /// bytes.</summary>
    /// <param name="size">The size of a page.</param>
    /// <param name="root">Where the host's file system begins.</param>
    public static IEnumerable<GroupLimit> HugePages(ulong size, string root)
    {
        string name = size >= 1 << 30 ? $"{size >> 30}GB" : size >= 1 << 20 ? $"{size >> 20}MB" : $"{size >> 10}KB";   // Linux mm/hugetlb_cgroup.c, mem_fmt
        return Limits(
            root, "hugetlb", new Files([$"hugetlb.{name}.max"], $"hugetlb.{name}.current"),
            new Files([$"hugetlb.{name}.limit_in_bytes"], $"hugetlb.{name}.usage_in_bytes"));
    }

    // A limit holds for all groups below it. In a container the path may be one of the host's, which is not there: then the groups above it count.
    private static IEnumerable<GroupLimit> Limits(string root, string controller, Files version2, Files version1)
    {
        foreach (string line in HostText.Read(root, "proc/self/cgroup").Split('\n'))
        {
            string[] parts = line.Split(':', 3);   // hierarchy-ID:controller-list:cgroup-path (cgroups(7))
            bool isVersion2 = parts is ["0", "", _];
            if (parts.Length != 3 || !(isVersion2 || parts[1].Split(',').Contains(controller)))
                continue;
            (string mount, Files files) = isVersion2 ? (Mount, version2) : ($"{Mount}/{controller}", version1);
            for (string group = parts[2].TrimEnd('/'); ; group = group[..Math.Max(0, group.LastIndexOf('/'))])
            {
                foreach (GroupLimit limit in LimitsOf(root, $"{mount}{group}", files))
                    yield return limit with { Group = group.Length == 0 ? "/" : group };
                if (group.Length == 0)
                    break;
            }
        }
    }

    // "max" is no limit.
    private static IEnumerable<GroupLimit> LimitsOf(string root, string directory, Files files)
    {
        foreach (string name in files.Limits)
        {
            if (HostText.Number(HostText.Read(root, $"{directory}/{name}")) is not ulong limit)
                continue;
            ulong used = HostText.Number(HostText.Read(root, $"{directory}/{files.Usage}")) ?? 0;
            string counters = files.Reclaimable.Length > 0 ? HostText.Read(root, $"{directory}/memory.stat") : "";
            foreach (string field in files.Reclaimable)
                used -= Math.Min(used, HostText.Field(counters, field + " ") ?? 0);
            yield return new GroupLimit(limit, limit - Math.Min(limit, used), "");
        }
    }

    // The files of a group: with its limits, with its usage, and the fields of its memory.stat that count usage which the kernel could take away.
    private sealed record Files(string[] Limits, string Usage, params string[] Reclaimable);
}
