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
            // Free pages that another process has reserved, but not touched yet, are its own.
            ulong reserved = Number(host.ReadText(counters + "/resv_hugepages"));
            ulong free = Number(host.ReadText(counters + "/free_hugepages"));
            free -= Math.Min(free, reserved);
            ulong total = Number(host.ReadText(counters + "/nr_hugepages"));
            string topic = $"huge pages of {HostHugePages.Name(size)}";
            if (free == 0)
                yield return Finding.MissingOptional(topic, $"none free of {total}: set some aside, echo N > {counters}/nr_hugepages");
            else if (HostMemory.ReadHugePages(size, host.Root) is { Group: string group } left && left.Available < free * size)
                yield return Finding.Ok(topic, $"{left.Available / size} of the {free} that are free, as the control group {group} leaves no more");
            else
                yield return Finding.Ok(topic, $"{free} free of {total}");
        }
    }

    private static ulong Number(string text) => ulong.TryParse(text.Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out ulong number) ? number : 0;
}
