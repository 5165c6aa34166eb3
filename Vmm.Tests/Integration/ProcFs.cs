using System.Globalization;

namespace Vmm.Tests.Integration;

/// <summary>What /proc says of processes (proc(5)).</summary>
internal static class ProcFs
{
    private const int TicksPerSecond = 100;   // USER_HZ

    /// <summary>The processor time that a process has used.</summary>
    public static TimeSpan ProcessorTime(int pid)
    {
        string stat = File.ReadAllText($"/proc/{pid}/stat");
        string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');   // from field 3 on: the name may hold anything
        long ticks = long.Parse(fields[14 - 3], CultureInfo.InvariantCulture) + long.Parse(fields[15 - 3], CultureInfo.InvariantCulture);
        return TimeSpan.FromSeconds((double)ticks / TicksPerSecond);
    }

    /// <summary>What the descriptors of a process are, sorted.</summary>
    public static string[] Descriptors(int pid) => Directory.GetFileSystemEntries($"/proc/{pid}/fd").Select(Target)
        .Where(target => target != "").Order(StringComparer.Ordinal).ToArray();

    /// <summary>The state of a process: R, S, T (stopped) and so on.</summary>
    public static char State(int pid)
    {
        string stat = File.ReadAllText($"/proc/{pid}/stat");
        return stat[stat.LastIndexOf(')') + 2];
    }

    /// <summary>How many threads a process has.</summary>
    public static int Threads(int pid) => Directory.GetDirectories($"/proc/{pid}/task").Length;

    /// <summary>The bytes of shared memory that a process has in RAM: for a VMM, its guest's memory.</summary>
    public static long SharedMemory(int pid) => StatusBytes(pid, "RssShmem:");

    /// <summary>The bytes of its own that a process has in RAM.</summary>
    public static long OwnMemory(int pid) => StatusBytes(pid, "RssAnon:");

    /// <summary>What a process has mapped of guests: their memory and their vCPUs, sorted.</summary>
    public static string[] GuestMappings(int pid) => File.ReadLines($"/proc/{pid}/maps")
        .Select(line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries).ElementAtOrDefault(5) ?? "")
        .Where(name => name.StartsWith("/memfd:guest", StringComparison.Ordinal) || name.StartsWith("anon_inode:kvm", StringComparison.Ordinal))
        .Order(StringComparer.Ordinal).ToArray();

    /// <summary>The daemons that <paramref name="vmm"/> has had started: not its spawner.</summary>
    public static int[] Daemons(int vmm) => [.. ProcessesWithEnvironment(VmmProcess.Mark).Where(id => id != vmm && !IsSpawner(id))];

    private static bool IsSpawner(int id) => File.ReadAllText($"/proc/{id}/cmdline").Split('\0') is [_, "spawner", ..];

    /// <summary>The processes with <paramref name="text"/> in their environment.</summary>
    public static int[] ProcessesWithEnvironment(string text) => Directory.GetDirectories("/proc")
        .Where(path => char.IsAsciiDigit(Path.GetFileName(path)[0]) && Environment(path).Contains(text, StringComparison.Ordinal))
        .Select(path => int.Parse(Path.GetFileName(path), CultureInfo.InvariantCulture)).ToArray();

    private static string Environment(string process)
    {
        try
        {
            return File.ReadAllText(Path.Combine(process, "environ"));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "";   // it has ended, or is somebody else's
        }
    }

    private static string Target(string link)
    {
        try
        {
            // "socket:[12345]" and "pipe:[12345]" are told apart by inode numbers, which change.
            return Path.GetFileName(File.ResolveLinkTarget(link, returnFinalTarget: false)?.FullName ?? "").Split('[')[0];
        }
        catch (IOException)
        {
            return "";   // closed meanwhile
        }
    }

    private static long StatusBytes(int pid, string name)
    {
        string line = File.ReadLines($"/proc/{pid}/status").Single(line => line.StartsWith(name, StringComparison.Ordinal));
        return long.Parse(line[name.Length..].Replace("kB", "", StringComparison.Ordinal), CultureInfo.InvariantCulture) << 10;
    }
}
