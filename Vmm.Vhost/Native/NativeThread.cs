using System.Runtime.InteropServices;
using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>A thread as the kernel knows it, by its thread id (gettid(2)).</summary>
public static unsafe partial class NativeThread
{
    private const ulong FewDescriptors = 64;    // the runtime alone has about 20

    /// <summary>The calling thread's id.</summary>
    public static int CurrentId => GetTid();

    /// <summary>The processor time that thread <paramref name="id"/> of this process has used, in nanoseconds; 0 once it has ended.</summary>
    public static long CpuTime(int id)
    {
        // The clock of one thread, as linux/posix-timers_types.h lays clock numbers out: ~id << 3, per thread (4), scheduled time (2).
        timespec time;
        // SAFETY: fills a struct on the stack.
        return ClockGetTime((~id << 3) | 4 | 2, &time) == 0 ? (long)time.tv_sec * 1_000_000_000 + (long)time.tv_nsec : 0;
    }

    /// <summary>What starts threads instead of the calling one; null while each thread starts others itself.</summary>
    internal static Action<Action>? Starter { get; set => Volatile.Write(ref field, value); }

    /// <summary>Starts <paramref name="thread"/>.</summary>
    /// <exception cref="ErrnoException">The host allows no more threads; the message names the limits.</exception>
    public static void Start(Thread thread)
    {
        try
        {
            if (Starter is { } starter)
                starter(thread.Start);
            else
                thread.Start();
        }
        catch (Exception e) when (e is OutOfMemoryException or ThreadStartException)
        {
            throw Refused(thread.Name);   // all that the runtime says of pthread_create(3)
        }
    }

    /// <summary>The error that the host allows no thread <paramref name="name"/>; the message names the limits.</summary>
    /// <remarks>The runtime does not say what there is too little of. A thread takes addresses for its stack, and the runtime takes descriptors for some of its own.</remarks>
    public static ErrnoException Refused(string? name)
    {
        string advice = $"this user may have {ResourceLimit.Threads} threads (ulimit -u), and the host or the control group has a limit, too (kernel.threads-max, pids.max): raise what is reached";
        if (ResourceLimit.Addresses.Current is not null and not ResourceLimit.Infinity)
            advice = $"this process may use {ResourceLimit.Addresses} bytes of addresses (ulimit -v), of which each thread needs some for its stack; {advice}";
        if (ResourceLimit.OpenFiles.Current < FewDescriptors)
            advice = $"this process may have {ResourceLimit.OpenFiles} descriptors only (ulimit -n); {advice}";
        return new ErrnoException($"cannot start the thread \"{name}\"", Errnos.Eagain, advice);
    }

    internal static void Send(int id, int signal) => _ = TgKill((int)LibC.getpid(), id, signal);

    [LibraryImport("libc", EntryPoint = "gettid")]
    private static partial int GetTid();

    [LibraryImport("libc", EntryPoint = "tgkill")]
    private static partial int TgKill(int process, int thread, int signal);

    [LibraryImport("libc", EntryPoint = "clock_gettime")]
    private static partial int ClockGetTime(int clock, timespec* time);
}
