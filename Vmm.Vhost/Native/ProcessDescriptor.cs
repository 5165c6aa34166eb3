using System.Runtime.InteropServices;
using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>A process of anybody's (pidfd_open(2), Linux 5.3): it tells the end of this process and of no other one that gets its number later.</summary>
public sealed partial class ProcessDescriptor : FileDescriptor
{
    private const int PidfdOpen = 434;   // __NR_pidfd_open, the same on all architectures

    private ProcessDescriptor(int fd, int id)
        : base(fd) => Id = id;

    /// <summary>Its number, which is another process's once it has ended.</summary>
    public int Id { get; }

    /// <summary>Opens the process with number <paramref name="id"/>.</summary>
    /// <returns>Null if there is no such process, or the system does not let us open it.</returns>
    public static ProcessDescriptor? TryOpen(int id)
    {
        int fd = id > 0 ? (int)Syscall(PidfdOpen, id, 0) : -1;
        return fd >= 0 ? new ProcessDescriptor(fd, id) : null;
    }

    /// <summary>Opens the process that started this one.</summary>
    /// <returns>Null if the system does not let us open it. If it has ended already, that is the process which took this one over.</returns>
    public static ProcessDescriptor? TryOpenParent() => TryOpen(LibC.getppid());

    /// <summary>Whether it has ended; waits at most <paramref name="milliseconds"/> for that. Once it has, its threads run no more and its memory is
    /// unmapped. Direct reads that it gave to io_uring may still be written to pages that it shared.</summary>
    /// <exception cref="ObjectDisposedException">The descriptor is closed.</exception>
    public bool HasEnded(int milliseconds = 0)
    {
        PollEntry[] entries = [new(this, PollEvents.Readable)];
        Poll.Wait(entries, milliseconds);
        ObjectDisposedException.ThrowIf(entries[0].Happened == PollEvents.Invalid, this);   // which says nothing about the process
        return entries[0].Happened != PollEvents.None;
    }

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial long Syscall(long number, int id, uint flags);
}
