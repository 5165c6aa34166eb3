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

    /// <summary>A write of at least some bytes does not block (on a pipe: of PIPE_BUF, 4096).</summary>
    Writable = 0x4,

    /// <summary>An error; the reader of a pipe is gone.</summary>
    Error = 0x8,

    /// <summary>The other side hung up.</summary>
    HangUp = 0x10,

    /// <summary>The descriptor is not open.</summary>
    Invalid = 0x20,
}

/// <summary>One descriptor to wait for; 8 bytes, laid out as <c>struct pollfd</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct PollEntry
{
    /// <summary>Waits for <paramref name="wanted"/> on <paramref name="fd"/>; null is passed over.</summary>
    public PollEntry(FileDescriptor? fd, PollEvents wanted)
    {
        Number = fd?.Number ?? -1;
        Wanted = wanted;
        Happened = PollEvents.None;
    }

    /// <summary>The descriptor's number; a negative one is passed over.</summary>
    public int Number { get; }

    /// <summary>What to wait for.</summary>
    public PollEvents Wanted { get; }

    /// <summary>What came of it.</summary>
    public PollEvents Happened { get; private set; }
}

/// <summary>poll(2).</summary>
/// <remarks>Declared here: the one of Tmds.LibC does not keep errno.</remarks>
public static unsafe partial class Poll
{
    /// <summary>Waits until something happens on one of <paramref name="entries"/>, or <paramref name="timeout"/> milliseconds passed
    /// (-1: for ever). A signal ends it early, as if the time had passed.</summary>
    /// <returns>On how many entries something happened.</returns>
    /// <exception cref="ErrnoException">poll(2) failed.</exception>
    public static int Wait(Span<PollEntry> entries, int timeout)
    {
        fixed (PollEntry* pointer = entries)
        {
            // SAFETY: PollEntry has the layout of pollfd, and the array is pinned for the call.
            int result = SystemPoll(pointer, (nuint)entries.Length, timeout);
            if (result >= 0)
                return result;
        }
        int errno = Marshal.GetLastPInvokeError();
        // The kernel wrote nothing back, and Happened was empty before.
        return errno == Errnos.Eintr ? 0 : throw new ErrnoException("poll", errno);
    }

    [LibraryImport("libc", EntryPoint = "poll", SetLastError = true)]
    private static partial int SystemPoll(PollEntry* entries, nuint count, int timeout);
}
