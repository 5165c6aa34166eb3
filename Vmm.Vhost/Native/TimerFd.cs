using System.Runtime.InteropServices;
using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>A timer that a thread can wait for beside other descriptors (timerfd_create(2)): readable once its time has come.
/// Non-blocking, close-on-exec.</summary>
public sealed unsafe partial class TimerFd : FileDescriptor
{
    private const int Monotonic = 1;   // CLOCK_MONOTONIC of linux/time.h

    /// <summary>Makes a timer that does not run.</summary>
    /// <exception cref="ErrnoException">timerfd_create(2) failed.</exception>
    public TimerFd()
        : base(Make())
    {
    }

    /// <summary>Lets the timer run out once, <paramref name="delay"/> from now; what was set before is forgotten.</summary>
    /// <param name="delay">A moment at least: a timer set to zero would never run out.</param>
    /// <exception cref="ErrnoException">timerfd_settime(2) failed.</exception>
    public void Set(TimeSpan delay)
    {
        long nanoseconds = Math.Max(1, delay.Ticks * TimeSpan.NanosecondsPerTick);
        var time = new Setting { Seconds = nanoseconds / 1_000_000_000, Nanoseconds = nanoseconds % 1_000_000_000 };
        // SAFETY: a structure on the stack.
        if (SetTime(this, 0, &time, null) < 0)
            throw new ErrnoException("timerfd_settime", Marshal.GetLastPInvokeError());
    }

    /// <summary>Takes note that the time has come; nothing is readable any more.</summary>
    public void Drain()
    {
        Span<byte> count = stackalloc byte[sizeof(ulong)];
        _ = this.TryRead(count);
    }

    private static int Make()
    {
        int fd = Create(Monotonic, LibC.O_CLOEXEC | LibC.O_NONBLOCK);
        return fd >= 0 ? fd : throw new ErrnoException("timerfd_create", Marshal.GetLastPInvokeError());
    }

    [LibraryImport("libc", EntryPoint = "timerfd_create", SetLastError = true)]
    private static partial int Create(int clock, int flags);

    [LibraryImport("libc", EntryPoint = "timerfd_settime", SetLastError = true)]
    private static partial int SetTime(FileDescriptor fd, int flags, Setting* value, Setting* old);

    // struct itimerspec of 64-bit Linux.
    [StructLayout(LayoutKind.Sequential)]
    private struct Setting
    {
        public long IntervalSeconds;
        public long IntervalNanoseconds;
        public long Seconds;
        public long Nanoseconds;
    }
}
