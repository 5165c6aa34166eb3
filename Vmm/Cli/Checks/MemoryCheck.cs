using System.Globalization;
using Vmm.Machine;

namespace Vmm.Cli.Checks;

/// <summary>Memory for guests, in normal and in huge pages.</summary>
internal static class MemoryCheck
{
    private const string SharedHugePages = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    private const ulong SmallestGuest = 64UL << 20;

    /// <summary>Looks.</summary>
    public static IEnumerable<Finding> Run(HostView host)
    {
        HostMemory? memory = HostMemory.Read(host.Root);
        if (memory is { } found)
        {
            string detail = $"{found.Available >> 20} MiB available of {found.Limit >> 20} MiB{(found.Group is null ? "" : $", and the control group {found.Group} leaves no more")}";
            yield return found.Available >= SmallestGuest
                ? Finding.Ok("memory", detail)
                : Finding.Missing("memory", $"{detail}: a guest needs {SmallestGuest >> 20} MiB or more");
        }
        else
        {
            yield return Finding.MissingOptional("memory", "cannot tell without /proc/meminfo");
        }

        string transparent = host.ReadText(SharedHugePages);
        yield return transparent.Length > 0 && !transparent.Contains("[never]", StringComparison.Ordinal) && !transparent.Contains("[deny]", StringComparison.Ordinal)
            ? Finding.Ok("transparent huge pages for guests", transparent.Trim())
            : Finding.MissingOptional("transparent huge pages for guests", $"large guests boot and run faster with them: echo advise > {SharedHugePages}");

        ulong[] sizes = HostHugePages.Sizes(host.Root);
        if (sizes.Length == 0)
            yield return Finding.MissingOptional("huge pages", "this kernel has none: hugepages=on does not work");
        foreach (ulong size in sizes)
        {
            string counters = "/" + HostHugePages.CountersOf(size);
            ulong free = Number(host.ReadText(counters + "/free_hugepages"));
            ulong reserved = Number(host.ReadText(counters + "/nr_hugepages"));
            string topic = $"huge pages of {HostHugePages.Name(size)}";
            yield return free > 0
                ? Finding.Ok(topic, $"{free} free of {reserved}")
                : Finding.MissingOptional(topic, $"none free of {reserved}: reserve some, echo N > {counters}/nr_hugepages");
        }
    }

    private static ulong Number(string text) => ulong.TryParse(text.Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out ulong number) ? number : 0;
}
