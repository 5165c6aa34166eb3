namespace Vmm.Machine;

/// <summary>How much memory this process can have: what the host has available, and what its <see cref="ControlGroups"/> leave it.</summary>
/// <param name="Available">Bytes that can be had without swapping or killing.</param>
/// <param name="Limit">All that there may be: the host's memory, or the smallest limit of a control group.</param>
/// <param name="Group">The control group that leaves the least, as /proc/self/cgroup names it; null: none leaves less than the host has.</param>
internal readonly record struct HostMemory(ulong Available, ulong Limit, string? Group)
{
    /// <summary>Who sets the limit, for messages.</summary>
    public string Owner => Group is null ? "this host" : $"this process's control group {Group}";

    /// <summary>Looks.</summary>
    /// <param name="root">Where the host's file system begins.</param>
    /// <returns>Null where the host does not tell, for example without /proc.</returns>
    public static HostMemory? Read(string root = "/")
    {
        string meminfo = HostText.Read(root, "proc/meminfo");
        if (HostText.Field(meminfo, "MemAvailable:") is not ulong available || HostText.Field(meminfo, "MemTotal:") is not ulong total)
            return null;
        return new HostMemory(available << 10, total << 10, null).Within(ControlGroups.Memory(root));
    }

    /// <summary>What its control groups leave this process of huge pages of <paramref name="size"/> bytes. A page beyond that is not refused when
    /// memory is made: who touches it gets SIGBUS.</summary>
    /// <param name="size">The size of a page.</param>
    /// <param name="root">Where the host's file system begins.</param>
    /// <returns>What there is at the most is <see cref="ulong.MaxValue"/> where no group sets a limit.</returns>
    public static HostMemory ReadHugePages(ulong size, string root = "/") =>
        new HostMemory(ulong.MaxValue, ulong.MaxValue, null).Within(ControlGroups.HugePages(size, root));

    // The group that leaves least counts. It need not be the one with the lowest limit: others share the groups above.
    private HostMemory Within(IEnumerable<GroupLimit> limits)
    {
        HostMemory memory = this;
        foreach (GroupLimit limit in limits)
        {
            if (limit.Left < memory.Available)
                memory = memory with { Available = limit.Left, Group = limit.Group };
            memory = memory with { Limit = Math.Min(memory.Limit, limit.Amount) };
        }
        return memory;
    }
}
