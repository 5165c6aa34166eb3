using System.Diagnostics;
using System.Globalization;

namespace Vmm.Tests.Integration;

/// <summary>The threads of a process of ours, by /proc.</summary>
internal static class ProcessThreads
{
    private const uint UserWorker = 0x4000;     // PF_USER_WORKER of Linux include/linux/sched.h

    /// <summary>Their ids, without those of KVM's and vhost's workers, which run nothing of the process.</summary>
    public static int[] Of(int process) =>
    [
        .. Directory.GetDirectories($"/proc/{process}/task").Where(path => !IsWorker(path))
            .Select(path => int.Parse(Path.GetFileName(path), CultureInfo.InvariantCulture)),
    ];

    private static bool IsWorker(string path)
    {
        string stat = File.ReadAllText($"{path}/stat");
        return (uint.Parse(stat[(stat.LastIndexOf(')') + 2)..].Split(' ')[6], CultureInfo.InvariantCulture) & UserWorker) != 0;
    }

    /// <summary>The name of one.</summary>
    public static string Name(int process, int thread) => File.ReadAllText($"/proc/{process}/task/{thread}/comm").Trim();

    /// <summary>Whether it is in a system call, and not at work: there it can be made to do another one.</summary>
    public static bool IsWaiting(int process, int thread) => Call(process, thread) is not null;

    /// <summary>Whether it waits in a system call now or within a second: on a busy machine a thread may be about to.</summary>
    public static bool WaitsSoon(int process, int thread)
    {
        for (long start = Stopwatch.GetTimestamp(); Stopwatch.GetElapsedTime(start) < TimeSpan.FromSeconds(1); Thread.Sleep(1))
        {
            if (IsWaiting(process, thread))
                return true;
        }
        return false;
    }

    /// <summary>The number of the system call that it waits in; null if it is at work.</summary>
    public static int? Call(int process, int thread)
    {
        string text = File.ReadAllText($"/proc/{process}/task/{thread}/syscall");
        return text.Length > 0 && char.IsAsciiDigit(text[0]) ? int.Parse(text[..text.IndexOf(' ')], CultureInfo.InvariantCulture) : null;
    }

    /// <summary>What /proc says of one.</summary>
    public static string Status(int process, int thread) => File.ReadAllText($"/proc/{process}/task/{thread}/status");
}
