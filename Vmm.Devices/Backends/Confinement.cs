using System.Runtime.CompilerServices;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;
using static Vmm.Vhost.Native.Confinement.ArgumentCondition;
using static Vmm.Vhost.Native.Confinement.SystemCallNumber;

namespace Vmm.Devices.Backends;

/// <summary>What a back-end process still needs once it has opened what it serves. Everything else it gives up, before the first message
/// of a front-end: it sees what a guest says, and maps all of the guest's memory.</summary>
/// <remarks>A system call that is not listed fails with EPERM, so that what the runtime or the C library tries in some corner costs that
/// attempt and not the guest's device. The calls by which a break-in goes on, to another program or another process, end the process. The table
/// in docs/security.md says of each call in the lists what can be done with it; a test compares the two.
/// <para>Only the native binary can be confined: the JIT opens files and makes code as it goes.</para></remarks>
public sealed record Confinement
{
    private const uint AfUnix = 1;
    private const uint SocketType = 0xF, SockStream = 1;    // SOCK_TYPE_MASK of linux/net.h

    private static readonly BoundedLog s_log = new("Vmm.Devices.Backends");

    /// <summary>What a back-end may do that passes descriptors to its front-end.</summary>
    public static IReadOnlyList<SystemCallRule> Sending { get; } = [Sendmsg];

    /// <summary>What a back-end may do that connects to Unix sockets.</summary>
    public static IReadOnlyList<SystemCallRule> Connecting { get; } =
    [
        new(Socket, "domain is AF_UNIX, type is SOCK_STREAM", IsOneOf(0, AfUnix), HasBits(1, SocketType, SockStream)),
        Connect,
    ];

    /// <summary>System calls of the device itself, besides those of every back-end.</summary>
    public IReadOnlyList<SystemCallRule> Calls { get; init; } = [];

    /// <summary>What it may not do even where <see cref="Rules"/> allow it.</summary>
    public IReadOnlyList<SystemCallRule> Refused { get; init; } = [];

    /// <summary>Whether it passes descriptors to its front-end, such as the in-flight log. With sendmsg(2), which takes an address out of the
    /// filter's sight, a datagram socket reaches everybody: what has such sockets goes without.</summary>
    public bool SendsDescriptors { get; init; } = true;

    /// <summary>The directories of Unix sockets that it connects to; empty if it connects to none.</summary>
    public IReadOnlyList<string> SocketDirectories { get; init; } = [];

    /// <summary>A directory in which it opens files; null for none. It stays the device's.</summary>
    public FileDescriptor? Tree { get; init; }

    /// <summary>Whether the files in <see cref="Tree"/> are only read.</summary>
    public bool IsTreeReadOnly { get; init; }

    /// <summary>What becomes the root of the file system for it; null for none. Not where it connects to sockets by their paths (<see cref="SocketDirectories"/>).</summary>
    public FileDescriptor? Root { get; init; }

    /// <summary>The capabilities that it keeps, as far as it has them, as bits of <see cref="ThreadPrivileges"/>.</summary>
    public ulong Capabilities { get; init; }

    /// <summary>All that it may do.</summary>
    public IEnumerable<SystemCallRule> Rules =>
        [.. ProcessSystemCalls.Common, .. SendsDescriptors ? Sending : [], .. SocketDirectories.Count > 0 ? Connecting : [], .. Calls];

    /// <summary>Gives up privileges, capabilities and files (Landlock), on every thread there is. The first half of confinement: while the runtime has
    /// started no thread but its own. Those for signals and for queues begin confined.</summary>
    /// <returns>Whether that was possible: not without the native binary.</returns>
    /// <exception cref="ErrnoException">The kernel refused.</exception>
    /// <exception cref="VhostException">There is a thread that cannot be reached.</exception>
    public bool GiveUpPrivileges()
    {
        if (RuntimeFeature.IsDynamicCodeSupported)
        {
            s_log.Info("not confined: only the native binary can be");
            return false;
        }
        using FileDescriptor? rules = Landlock.MakeRules(SocketDirectories, Tree, IsTreeReadOnly);
        if (rules is null && Tree is null)
            s_log.Info("this kernel has no Landlock: files are kept away by seccomp alone");
        else if (rules is null)
            s_log.Warn("this kernel has no Landlock that can hold this process to the directory that it shares (Linux 5.19): who takes it over reaches all files of its user");
        int main = NativeThread.CurrentId;
        EveryThread.Do(() =>
        {
            // The threads of a process have one root. Whether there are others is looked up in /proc before, which is gone then.
            if (Root is not null && SocketDirectories.Count == 0 && NativeThread.CurrentId == main)
                ThreadPrivileges.ChangeRoot(Root);
            ThreadPrivileges.GiveUp(rules, Capabilities);
        });
        s_log.Debug("confined by Landlock {Version}", Landlock.Version);
        return true;
    }

    /// <summary>Gives up all system calls but <see cref="Rules"/>, on every thread: the second half of confinement.</summary>
    /// <exception cref="ErrnoException">The kernel refused.</exception>
    public void GiveUpSystemCalls() => new SeccompFilter()
        .Refuse(Refused)
        .Allow(Rules)
        .HideClone3()
        .Kill(ProcessSystemCalls.Deadly)
        .Install(allThreads: true);
}
