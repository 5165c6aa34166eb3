using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>A set of descriptors (epoll(7)) that is itself a descriptor: readable as soon as something happens on one of them. So a thread
/// that waits for one descriptor waits for many. Level-triggered, close-on-exec.</summary>
public sealed unsafe partial class Epoll : FileDescriptor
{
    private const int CloseOnExec = 0x80000;
    private const int Add = 1, Delete = 2, Modify = 3;

    /// <summary>An empty set.</summary>
    /// <exception cref="ErrnoException">epoll_create1(2) failed.</exception>
    public Epoll()
        : base(Create())
    {
    }

    /// <summary>Waits for <paramref name="wanted"/> on <paramref name="fd"/> too.</summary>
    /// <param name="fd">Not in the set yet. It leaves the set when it is closed.</param>
    /// <param name="wanted">What to wait for, besides errors and hang-ups.</param>
    /// <param name="key">By which <see cref="Collect"/> names it.</param>
    /// <exception cref="ErrnoException">It cannot be waited for.</exception>
    public void Watch(FileDescriptor fd, PollEvents wanted, ulong key) => Control(Add, fd, wanted, key);

    /// <summary>Changes what is waited for on <paramref name="fd"/>.</summary>
    /// <exception cref="ErrnoException">It is not in the set.</exception>
    public void Change(FileDescriptor fd, PollEvents wanted, ulong key) => Control(Modify, fd, wanted, key);

    /// <summary>Waits for it no more.</summary>
    /// <exception cref="ErrnoException">It is not in the set.</exception>
    public void Forget(FileDescriptor fd) => Control(Delete, fd, PollEvents.None, 0);

    /// <summary>Takes the events of all descriptors in the set that have some now; it does not wait.</summary>
    /// <returns>How many entries of <paramref name="events"/> are filled.</returns>
    /// <exception cref="ErrnoException">epoll_wait(2) failed.</exception>
    public int Collect(Span<EpollEntry> events)
    {
        fixed (EpollEntry* pointer = events)
        {
            while (true)
            {
                // SAFETY: the entries are laid out as epoll_event, pinned, and as many as is said.
                int count = EpollWait(this, pointer, events.Length, 0);
                if (count >= 0)
                    return count;
                int errno = Marshal.GetLastPInvokeError();
                if (errno != Errnos.Eintr)
                    throw new ErrnoException("epoll_wait", errno);
            }
        }
    }

    private void Control(int operation, FileDescriptor fd, PollEvents wanted, ulong key)
    {
        var entry = new EpollEntry { Events = (uint)wanted, Key = key };
        // SAFETY: a struct on the stack. The bits of poll(2) and epoll(7) are the same.
        if (EpollControl(this, operation, fd, &entry) < 0)
            throw new ErrnoException("epoll_ctl", Marshal.GetLastPInvokeError());
    }

    private static int Create()
    {
        int fd = EpollCreate(CloseOnExec);
        return fd >= 0 ? fd : throw new ErrnoException("epoll_create1", Marshal.GetLastPInvokeError());
    }

    [LibraryImport("libc", EntryPoint = "epoll_create1", SetLastError = true)]
    private static partial int EpollCreate(int flags);

    [LibraryImport("libc", EntryPoint = "epoll_ctl", SetLastError = true)]
    private static partial int EpollControl(FileDescriptor set, int operation, FileDescriptor fd, EpollEntry* entry);

    [LibraryImport("libc", EntryPoint = "epoll_wait", SetLastError = true)]
    private static partial int EpollWait(FileDescriptor set, EpollEntry* entries, int count, int timeout);
}

/// <summary>What happened on one descriptor of an <see cref="Epoll"/>: struct epoll_event, 12 bytes and packed on x86-64.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
public struct EpollEntry
{
    internal uint Events;

    /// <summary>The key that the caller gave the descriptor when it added it to the set.</summary>
    public ulong Key { get; internal set; }

    /// <summary>The events that the descriptor has, errors and hang-ups among them (epoll_ctl(2)).</summary>
    public readonly PollEvents Happened => (PollEvents)(short)Events;
}
