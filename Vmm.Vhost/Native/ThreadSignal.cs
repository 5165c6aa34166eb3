using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>A signal that interrupts one thread inside one system call and never runs a handler: the thread keeps it
/// blocked, the system call unblocks it (KVM_SET_SIGNAL_MASK), and the thread takes it off again afterwards.</summary>
/// <remarks>SIGURG, because nobody else waits for it: a thread that takes its own signal off takes one for the whole process, too. It does nothing by default. The runtime uses SIGRTMIN, and an
/// ordinary signal does not queue up.</remarks>
public static unsafe class ThreadSignal
{
    /// <summary>The signal's number.</summary>
    public static int Number => SignalNumber.Urgent;

    /// <summary>Blocks the signal on the calling thread; before anybody may <see cref="Send"/> it there.</summary>
    /// <exception cref="ErrnoException">pthread_sigmask(3) failed.</exception>
    public static void Block()
    {
        sigset_t set = Set();
        int errno = LibC.pthread_sigmask(LibC.SIG_BLOCK, &set, null);
        if (errno != 0)
            throw new ErrnoException("pthread_sigmask", errno);
    }

    /// <summary>Sends the signal to a thread of this process (<see cref="NativeThread.CurrentId"/>); without effect once it has ended.</summary>
    public static void Send(int threadId) => NativeThread.Send(threadId, Number);

    /// <summary>Takes a pending signal off the calling thread, if there is one.</summary>
    public static void Consume()
    {
        sigset_t set = Set();
        timespec now = default;
        _ = LibC.sigtimedwait(&set, null, &now);   // EAGAIN: there was none
    }

    /// <summary>Waits until the signal is sent to the calling thread, which takes it off, or for <paramref name="milliseconds"/>, 1 to 999.</summary>
    public static void Wait(int milliseconds)
    {
        sigset_t set = Set();
        var time = new timespec { tv_nsec = milliseconds * 1_000_000 };
        _ = LibC.sigtimedwait(&set, null, &time);   // EAGAIN: the time is over
    }

    private static sigset_t Set()
    {
        sigset_t set;
        _ = LibC.sigemptyset(&set);
        _ = LibC.sigaddset(&set, Number);
        return set;
    }
}
