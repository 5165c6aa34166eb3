using System.Runtime.InteropServices;
using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>The processor time of processes (clock_getcpuclockid(3)).</summary>
public static unsafe partial class ProcessClock
{
    /// <summary>The processor time that process <paramref name="id"/> has used with all its threads, in nanoseconds; 0 once it has ended.</summary>
    public static long CpuTime(int id)
    {
        // The clock of a process, as linux/posix-timers_types.h lays clock numbers out: ~id << 3, scheduled time (2).
        timespec time;
        // SAFETY: fills a struct on the stack.
        return ClockGetTime((~id << 3) | 2, &time) == 0 ? (long)time.tv_sec * 1_000_000_000 + (long)time.tv_nsec : 0;
    }

    [LibraryImport("libc", EntryPoint = "clock_gettime")]
    private static partial int ClockGetTime(int clock, timespec* time);
}
