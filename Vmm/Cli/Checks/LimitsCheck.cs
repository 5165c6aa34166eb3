using System.Globalization;
using Vmm.Machine;

namespace Vmm.Cli.Checks;

/// <summary>The limits of this process (getrlimit(2)), as /proc/self/limits shows them.</summary>
internal static class LimitsCheck
{
    private const ulong EnoughFiles = 1024;
    private const ulong EnoughThreads = 64;
    private const int ValueColumn = 26;   // the name is padded to 25 characters (Linux fs/proc/base.c, proc_pid_limits)

    /// <summary>Looks.</summary>
    public static IEnumerable<Finding> Run(HostView host)
    {
        string limits = host.ReadText("/proc/self/limits");

        ulong? files = SoftLimit(limits, "Max open files");
        yield return files >= EnoughFiles
            ? Finding.Ok("open files", Show(files))
            : Finding.MissingOptional("open files", $"{Show(files)}, and a machine with many devices needs more: ulimit -n {EnoughFiles}");

        // A vCPU is a thread, and each device has one or two.
        GroupLimit[] groups = [.. ControlGroups.Threads(host.Root)];
        if (groups.Length > 0)
        {
            GroupLimit threads = groups.MinBy(group => group.Left);
            string left = $"{threads.Left} more in the control group {threads.Group}";
            yield return threads.Left >= EnoughThreads
                ? Finding.Ok("threads", left)
                : Finding.MissingOptional("threads", $"{left}, and a machine with many CPUs needs more: raise its pids.max");
        }

        yield return Unlimited("locked memory", "vhost-vdpa pins all guest memory: ulimit -l unlimited");
        yield return Unlimited("file size", "guest memory is a file: ulimit -f unlimited");
        yield return Unlimited("address space", "guest memory counts, and so do mapped files and stacks: ulimit -v unlimited");

        Finding Unlimited(string name, string fix)
        {
            ulong? limit = SoftLimit(limits, $"Max {name}");
            return limit == ulong.MaxValue ? Finding.Ok(name, Show(limit)) : Finding.MissingOptional(name, $"{Show(limit)} bytes, and {fix}");
        }
    }

    private static ulong? SoftLimit(string limits, string name)
    {
        foreach (string line in limits.Split('\n'))
        {
            if (!line.StartsWith(name, StringComparison.Ordinal) || line.Length <= ValueColumn)
                continue;
            string value = line[ValueColumn..].Split(' ')[0];
            if (value == "unlimited")
                return ulong.MaxValue;
            return ulong.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out ulong number) ? number : null;
        }
        return null;
    }

    private static string Show(ulong? limit) => limit switch
    {
        null => "unknown",
        ulong.MaxValue => "unlimited",
        _ => $"{limit}",
    };
}
