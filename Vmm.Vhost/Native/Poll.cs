using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>What to wait for on a descriptor, and what came of it (poll(2)). Errors and hang-ups are reported without being asked for.</summary>
[Flags]
public enum PollEvents : short
{
    /// <summary>Nothing but errors and hang-ups.</summary>
    None = 0,

    /// <summary>There is something to read, or the end.</summary>
    Readable = 0x1,

    /// <summary>There is something out of band.</summary>
    Priority = 0x2,

    /// <summary>A write of at least some bytes does not block (on a pipe: of PIPE_BUF, 4096).</summary>
    Writable = 0x4,

    /// <summary>An error; the reader of a pipe is gone.</summary>
    Error = 0x8,

    /// <summary>The other side hung up.</summary>
    HangUp = 0x10,

    /// <summary>The descriptor is not open.</summary>
    Invalid = 0x20,
}

/// <summary>One descriptor to wait for.</summary>
public struct PollEntry
{
    /// <summary>Waits for <paramref name="wanted"/> on <paramref name="fd"/>; null is passed over.</summary>
    public PollEntry(FileDescriptor? fd, PollEvents wanted)
    {
        Descriptor = fd;
        Wanted = wanted;
        Happened = PollEvents.None;
    }

    /// <summary>The descriptor; null is passed over.</summary>
    public FileDescriptor? Descriptor { get; }

    /// <summary>The events to wait for. Errors and hang-ups end a wait also without them (poll(2)).</summary>
    public PollEvents Wanted { get; }

    /// <summary>What the last <see cref="Poll.Wait(Span{PollEntry}, int)"/> found: those of the <see cref="Wanted"/> events that are there, errors and hang-ups; <see cref="PollEvents.Invalid"/> if the descriptor is closed.</summary>
    public PollEvents Happened { get; internal set; }
}

/// <summary>poll(2).</summary>
/// <remarks>Declared here: the one of Tmds.LibC does not keep errno.</remarks>
public static unsafe partial class Poll
{
    private const int MaxOnStack = 16;

    [ThreadStatic]
    private static SystemEntry[]? t_many;

    /// <summary>Waits until something happens on one of <paramref name="entries"/>, or <paramref name="timeout"/> milliseconds passed
    /// (-1: for ever). A signal ends it early, as if the time had passed. The descriptors stay open meanwhile; one that was closed before is
    /// reported as <see cref="PollEvents.Invalid"/>, at once.</summary>
    /// <returns>On how many entries something happened.</returns>
    /// <exception cref="ErrnoException">poll(2) failed.</exception>
    public static int Wait(Span<PollEntry> entries, int timeout)
    {
        Span<SystemEntry> system = entries.Length <= MaxOnStack ? stackalloc SystemEntry[MaxOnStack] : Many(entries.Length);
        system = system[..entries.Length];
        int held = 0;
        try
        {
            int closed = 0;
            for (; held < entries.Length; held++)
            {
                ref PollEntry entry = ref entries[held];
                entry.Happened = PollEvents.None;
                if (!TryHold(entry.Descriptor, out int number))
                {
                    entry.Happened = PollEvents.Invalid;
                    closed++;
                }
                system[held] = new SystemEntry { Number = number, Wanted = entry.Wanted };
            }
            return Wait(entries, system, closed > 0 ? 0 : timeout) + closed;
        }
        finally
        {
            while (--held >= 0)
            {
                if (system[held].Number >= 0)
                    entries[held].Descriptor!.DangerousRelease();
            }
        }
    }

    /// <summary>Whether <paramref name="descriptor"/> takes something now without waiting.</summary>
    public static bool IsWritable(FileDescriptor descriptor)
    {
        Span<PollEntry> entries = [new PollEntry(descriptor, PollEvents.Writable)];
        return Wait(entries, 0) > 0 && (entries[0].Happened & PollEvents.Writable) != 0;
    }

    private static int Wait(Span<PollEntry> entries, Span<SystemEntry> system, int timeout)
    {
        int result;
        fixed (SystemEntry* pointer = system)
        {
            // SAFETY: laid out as struct pollfd, and pinned for the call. The descriptors are held.
            result = SystemPoll(pointer, (nuint)system.Length, timeout);
        }
        if (result < 0)
        {
            int errno = Marshal.GetLastPInvokeError();
            return errno == Errnos.Eintr ? 0 : throw new ErrnoException("poll", errno);
        }
        for (int i = 0; i < system.Length && result > 0; i++)
            entries[i].Happened |= system[i].Happened;
        return result;
    }

    // A thread that waits for many waits for as many again.
    private static SystemEntry[] Many(int count) => t_many?.Length >= count ? t_many : t_many = new SystemEntry[count];

    // A number of -1 is passed over by the kernel.
    private static bool TryHold(FileDescriptor? descriptor, out int number)
    {
        number = -1;
        if (descriptor is null)
            return true;
        if (descriptor.IsClosed)
            return false;
        bool isHeld = false;
        try
        {
            descriptor.DangerousAddRef(ref isHeld);
        }
        catch (ObjectDisposedException)
        {
            return false;   // just now, by another thread
        }
        number = (int)descriptor.DangerousGetHandle();
        return true;
    }

    [LibraryImport("libc", EntryPoint = "poll", SetLastError = true)]
    private static partial int SystemPoll(SystemEntry* entries, nuint count, int timeout);

    [StructLayout(LayoutKind.Sequential)]
    private struct SystemEntry
    {
        public int Number;
        public PollEvents Wanted;
        public PollEvents Happened;
    }
}
