using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>How the kernel schedules the thread that asks (sched(7)).</summary>
public static partial class ThreadScheduling
{
    private const int Other = 0, Batch = 3;     // SCHED_OTHER and SCHED_BATCH of linux/sched.h

    /// <summary>Whether it is scheduled as threads are by default (SCHED_OTHER), and nobody has chosen anything else for it.</summary>
    public static bool IsDefault => GetScheduler(0) == Other;

    /// <summary>Says whether the thread takes the processor from the thread that wakes it. By default it does, if it has used less of it lately. Otherwise the
    /// other goes on until it sleeps, or until the scheduler's next tick finds that it has had its share (SCHED_BATCH).</summary>
    /// <returns>False where the kernel or a filter of system calls refuses.</returns>
    public static bool TrySetWakeupPreemption(bool value)
    {
        int priority = 0;       // struct sched_param; 0 is the only one that either policy has
        return SetScheduler(0, value ? Other : Batch, in priority) == 0;
    }

    [LibraryImport("libc", EntryPoint = "sched_getscheduler")]
    private static partial int GetScheduler(int thread);

    [LibraryImport("libc", EntryPoint = "sched_setscheduler")]
    private static partial int SetScheduler(int thread, int policy, in int priority);
}
