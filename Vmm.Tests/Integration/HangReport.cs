using System.Globalization;
using System.Text;

namespace Vmm.Tests.Integration;

/// <summary>Where processes wait, for the message of a test that waited for them in vain: of each thread its name, its state, its system call with the
/// arguments and where that is in the kernel; of the process the counts of its eventfds and its timers (proc(5)). What one process has signalled and the other
/// has not read shows by the eventfd-id, which both have. Stacks, and other users' processes, are root's to read.</summary>
internal static class HangReport
{
    private const int MaxProcess = 16 << 10;    // characters
    private const int MaxProcesses = 8;
    private const int MaxThreads = 64;
    private const int MaxDescriptors = 1024;

    /// <summary>All that the tests have started and that still runs: VMMs, their spawners and daemons, and programs of the host's.</summary>
    public static string OfAllStarted()
    {
        int[] started = [.. Descendants(Environment.ProcessId).Union(ProcFs.ProcessesWithEnvironment(VmmProcess.Mark))];
        string report = string.Concat(started.Take(MaxProcesses).Select(Of));
        return started.Length <= MaxProcesses ? report : $"{report}== and {started.Length - MaxProcesses} other processes\n";
    }

    /// <summary>One process.</summary>
    public static string Of(int process)
    {
        var report = new StringBuilder();
        report.Append(CultureInfo.InvariantCulture, $"== process {process}: {Read($"/proc/{process}/cmdline", 300).Replace('\0', ' ')}\n");
        foreach (string thread in Entries($"/proc/{process}/task", MaxThreads))
            Append(report, thread);
        foreach (string descriptor in Entries($"/proc/{process}/fdinfo", MaxDescriptors))
            AppendDescriptor(report, $"/proc/{process}", Path.GetFileName(descriptor));
        if (report.Length > MaxProcess)
            report.Remove(MaxProcess, report.Length - MaxProcess).Append(" [...]\n");
        return report.ToString();
    }

    private static void Append(StringBuilder report, string thread)
    {
        string state = Read($"{thread}/status").Split('\n').FirstOrDefault(line => line.StartsWith("State:", StringComparison.Ordinal), "");
        report.Append(CultureInfo.InvariantCulture, $"-- {Path.GetFileName(thread)} {Read($"{thread}/comm").Trim()}, {state.Replace('\t', ' ')}, ")
            .Append(CultureInfo.InvariantCulture, $"in {Read($"{thread}/wchan")}, syscall {Read($"{thread}/syscall").Trim()}\n");
        if (Read($"{thread}/stack").Trim() is { Length: > 0 } stack)
            report.Append(stack).Append('\n');
    }

    private static void AppendDescriptor(StringBuilder report, string process, string number)
    {
        string[] lines = [.. Read($"{process}/fdinfo/{number}").Split('\n')
            .Where(line => line.StartsWith("eventfd-", StringComparison.Ordinal) || line.StartsWith("it_value:", StringComparison.Ordinal)
                || line.StartsWith("ticks:", StringComparison.Ordinal))];
        if (lines.Length > 0)
            report.Append(CultureInfo.InvariantCulture, $"fd {number}: {string.Join(' ', lines.Select(line => string.Join(' ', line.Split(' ', StringSplitOptions.RemoveEmptyEntries))))}\n");
    }

    private static List<int> Descendants(int process)
    {
        (int Id, int Parent)[] all = [.. Entries("/proc", int.MaxValue).Select(path => (int.Parse(Path.GetFileName(path), CultureInfo.InvariantCulture), Parent(path)))];
        List<int> found = [process];
        for (int i = 0; i < found.Count; i++)
            found.AddRange(all.Where(one => one.Parent == found[i]).Select(one => one.Id));
        found.RemoveAt(0);
        return found;
    }

    private static int Parent(string process)
    {
        string stat = Read($"{process}/stat");
        string[] fields = stat[(stat.LastIndexOf(')') + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries);   // from field 3 on: the name may hold anything
        return fields.Length > 1 ? int.Parse(fields[1], CultureInfo.InvariantCulture) : 0;
    }

    // Those that are named by a number, in its order.
    private static string[] Entries(string directory, int limit)
    {
        try
        {
            return [.. Directory.GetFileSystemEntries(directory).Where(path => int.TryParse(Path.GetFileName(path), CultureInfo.InvariantCulture, out _))
                .OrderBy(path => int.Parse(Path.GetFileName(path), CultureInfo.InvariantCulture)).Take(limit)];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }

    // No text of what has ended, or is somebody else's.
    private static string Read(string path, int limit = 4096)
    {
        try
        {
            string text = File.ReadAllText(path);
            return text.Length <= limit ? text : text[..limit];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }
}
