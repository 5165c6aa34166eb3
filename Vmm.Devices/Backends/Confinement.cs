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
    private const uint ProtExec = 4;                        // PROT_EXEC of asm-generic/mman-common.h
    private const uint MapHugePages = 0x40000;              // MAP_HUGETLB of asm-generic/mman.h
    private const uint MemfdHugePages = 4;                  // MFD_HUGETLB of linux/memfd.h
    private const uint NewNamespaces = 0x7E020000;          // CLONE_NEW* of linux/sched.h
    private const uint CloneThread = 0x00010000;            // CLONE_THREAD
    private const uint PrSetName = 15;                      // PR_SET_NAME of linux/prctl.h
    private const uint SetDescriptorFlags = 2;              // F_SETFD of asm-generic/fcntl.h
    private const uint AddSeals = 1033;                     // F_ADD_SEALS of linux/fcntl.h
    private const uint ShrinkGrowSeal = 7;                  // F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL
    private const uint SolSocket = 1;                       // and SO_TYPE, SO_ACCEPTCONN and SO_DOMAIN of asm-generic/socket.h
    private const uint SoType = 3, SoAcceptConn = 30, SoDomain = 39;
    private const uint AfUnix = 1;
    private const uint SocketType = 0xF, SockStream = 1;    // SOCK_TYPE_MASK of linux/net.h

    // MADV_* of asm-generic/mman-common.h, as the runtime and the C library use them: DONTNEED, FREE, HUGEPAGE, NOHUGEPAGE, DONTDUMP, DODUMP, and GUARD_INSTALL
    // and GUARD_REMOVE for stacks. MADV_REMOVE is not among them: it frees pages of files, the guest's memory among them.
    private static readonly uint[] s_advice = [4, 8, 14, 15, 16, 17, 102, 103];

    private static readonly BoundedLog s_log = new("Vmm.Devices.Backends");

    /// <summary>The calls that end the process: no honest path comes there.</summary>
    public static IReadOnlyList<SystemCallNumber> Deadly { get; } =
    [
        Execve, Execveat, Fork, Vfork, Ptrace, ProcessVmReadv, ProcessVmWritev, PidfdGetfd, Bpf, Mount, InitModule, FinitModule, KexecLoad,
    ];

    /// <summary>What every thread of every process does: the runtime with its garbage collector, and the C library (measured by strace, and read there
    /// for what is rare).</summary>
    public static IReadOnlyList<SystemCallRule> Runtime { get; } =
    [
        new(Mmap, "prot without PROT_EXEC, flags without MAP_HUGETLB", HasBits(2, ProtExec, 0), HasBits(3, MapHugePages, 0)),
        new(Mprotect, "prot without PROT_EXEC", HasBits(2, ProtExec, 0)),
        Munmap, Mremap, Mincore, Brk,
        new(Madvise, "advice is about its own use: no MADV_REMOVE", IsOneOf(2, s_advice)),
        new(Tgkill, "tgid is its own", IsOneOf(0, (uint)Environment.ProcessId)),
        Futex, Membarrier, SetRobustList, Rseq, Sigaltstack, RtSigaction, RtSigprocmask, RtSigreturn, RestartSyscall,
        SchedYield, SchedGetaffinity, SchedGetparam, SchedGetscheduler, Nanosleep, ClockNanosleep, ClockGettime, ClockGetres,
        Getpid, Gettid, Getrusage, Sysinfo, Uname, Getrandom, Exit, ExitGroup,
    ];

    /// <summary>What every process may do: <see cref="Runtime"/>, further threads, and serving a front-end.</summary>
    public static IReadOnlyList<SystemCallRule> Common { get; } =
    [
        Read, Write, Readv, Writev, Close, SystemCallNumber.Poll, Ppoll, Fstat, Ftruncate,
        Accept4, Recvmsg, Shutdown,
        new(Sendto, "no address", IsNull(4)),
        new(Getsockopt, "level is SOL_SOCKET, optname is SO_TYPE, SO_ACCEPTCONN or SO_DOMAIN", IsOneOf(1, SolSocket), IsOneOf(2, SoType, SoAcceptConn, SoDomain)),
        new(MemfdCreate, "flags without MFD_HUGETLB", HasBits(1, MemfdHugePages, 0)),
        Eventfd2, TimerfdCreate, TimerfdSettime, EpollCreate1, EpollCtl, EpollWait, EpollPwait,
        new(Fcntl, "cmd is F_SETFD", IsOneOf(1, SetDescriptorFlags)),
        new(Fcntl, "cmd is F_ADD_SEALS, arg is F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_SEAL", IsOneOf(1, AddSeals), IsOneOf(2, ShrinkGrowSeal)),
        FileKind.SharedMemoryCheck,
        SystemCallRule.Requests(FileDescriptor.NonBlockingRequest),
        new(Clone, "flags with CLONE_THREAD, without new namespaces", HasBits(0, NewNamespaces | CloneThread, CloneThread)),
        new(Prctl, "option is PR_SET_NAME", IsOneOf(0, PrSetName)),
        .. Runtime,
    ];

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
        [.. Common, .. SendsDescriptors ? Sending : [], .. SocketDirectories.Count > 0 ? Connecting : [], .. Calls];

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
        .Kill(Deadly)
        .Install(allThreads: true);
}
