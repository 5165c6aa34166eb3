using System.Globalization;

namespace Vmm.Machine;

/// <summary>How much memory this process can have: what the host has available, and what its control groups leave it (Linux
/// Documentation/admin-guide/cgroup-v2.rst, "Memory Interface Files"; cgroup-v1/memory.rst).</summary>
/// <param name="Available">Bytes that can be had without swapping or killing.</param>
/// <param name="Limit">All that there may be: the host's memory, or the smallest limit of a control group.</param>
/// <param name="Group">The control group that leaves the least, as /proc/self/cgroup names it; null: none leaves less than the host has.</param>
internal readonly record struct HostMemory(ulong Available, ulong Limit, string? Group)
{
    private const string UnifiedRoot = "sys/fs/cgroup";
    private const string MemoryRoot = "sys/fs/cgroup/memory";
    private const string HugePagesRoot = "sys/fs/cgroup/hugetlb";

    /// <summary>Who sets the limit, for messages.</summary>
    public string Owner => Group is null ? "this host" : $"this process's control group {Group}";

    /// <summary>Looks.</summary>
    /// <param name="root">Where the host's file system begins.</param>
    /// <returns>Null where the host does not tell, for example without /proc.</returns>
    public static HostMemory? Read(string root = "/")
    {
        string meminfo = ReadText(root, "proc/meminfo");
        if (Field(meminfo, "MemAvailable:") is not ulong available || Field(meminfo, "MemTotal:") is not ulong total)
            return null;
        var memory = new HostMemory(available << 10, total << 10, null);
        foreach ((string? controllers, string group) in Groups(root))
        {
            if (controllers is null)
                memory = memory.Within(root, UnifiedRoot, group, ["memory.max", "memory.high"], "memory.current", "inactive_file");
            else if (controllers.Split(',').Contains("memory"))
                memory = memory.Within(root, MemoryRoot, group, ["memory.limit_in_bytes"], "memory.usage_in_bytes", "total_inactive_file");
        }
        return memory;
    }

    /// <summary>What its control groups leave this process of huge pages of <paramref name="size"/> bytes (cgroup-v2.rst, "HugeTLB Interface Files";
    /// cgroup-v1/hugetlb.rst). A page beyond that is not refused when memory is made: who touches it gets SIGBUS.</summary>
    /// <param name="size">The size of a page.</param>
    /// <param name="root">Where the host's file system begins.</param>
    /// <returns>What there is at the most is <see cref="ulong.MaxValue"/> where no group sets a limit.</returns>
    public static HostMemory ReadHugePages(ulong size, string root = "/")
    {
        string name = size >= 1 << 30 ? $"{size >> 30}GB" : size >= 1 << 20 ? $"{size >> 20}MB" : $"{size >> 10}KB";   // Linux mm/hugetlb_cgroup.c, mem_fmt
        var memory = new HostMemory(ulong.MaxValue, ulong.MaxValue, null);
        foreach ((string? controllers, string group) in Groups(root))
        {
            if (controllers is null)
                memory = memory.Within(root, UnifiedRoot, group, [$"hugetlb.{name}.max"], $"hugetlb.{name}.current", null);
            else if (controllers.Split(',').Contains("hugetlb"))
                memory = memory.Within(root, HugePagesRoot, group, [$"hugetlb.{name}.limit_in_bytes"], $"hugetlb.{name}.usage_in_bytes", null);
        }
        return memory;
    }

    // The controllers are null for the one hierarchy of version 2.
    private static IEnumerable<(string? Controllers, string Group)> Groups(string root)
    {
        foreach (string line in ReadText(root, "proc/self/cgroup").Split('\n'))
        {
            string[] parts = line.Split(':', 3);   // hierarchy-ID:controller-list:cgroup-path (cgroups(7))
            if (parts.Length == 3)
                yield return (parts is ["0", "", _] ? null : parts[1], parts[2]);
        }
    }

    // A limit holds for all groups below it. In a container the path may be one of the host's, which is not there: then the groups above it count.
    private HostMemory Within(string root, string mount, string path, string[] limits, string usage, string? reclaimable)
    {
        HostMemory memory = this;
        for (string group = path.TrimEnd('/'); ; group = group[..Math.Max(0, group.LastIndexOf('/'))])
        {
            string directory = mount + group;
            foreach (string name in limits)
            {
                if (Number(ReadText(root, $"{directory}/{name}")) is not ulong limit)
                    continue;
                ulong used = Number(ReadText(root, $"{directory}/{usage}")) ?? 0;
                ulong freed = reclaimable is null ? 0 : Field(ReadText(root, $"{directory}/memory.stat"), reclaimable + " ") ?? 0;
                used -= Math.Min(used, freed);
                // The group that leaves least counts. It need not be the one with the lowest limit: others share the groups above.
                ulong left = limit - Math.Min(limit, used);
                if (left < memory.Available)
                    memory = memory with { Available = left, Group = group.Length == 0 ? "/" : group };
                memory = memory with { Limit = Math.Min(memory.Limit, limit) };
            }
            if (group.Length == 0)
                return memory;
        }
    }

    private static string ReadText(string root, string path)
    {
        try
        {
            return File.ReadAllText(Path.Join(root, path));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }

    private static ulong? Field(string text, string name)
    {
        foreach (string line in text.Split('\n'))
        {
            if (line.StartsWith(name, StringComparison.Ordinal))
                return Number(line[name.Length..].Replace("kB", "", StringComparison.Ordinal));
        }
        return null;
    }

    private static ulong? Number(string text) =>
        ulong.TryParse(text.AsSpan().Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out ulong number) ? number : null;
}
