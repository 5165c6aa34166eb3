using System.Runtime.CompilerServices;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;
using static Vmm.Vhost.Native.Confinement.SystemCallNumber;

namespace Vmm.Devices.Backends;

/// <summary>What a back-end process still needs once it has opened what it serves. Everything else it gives up, before the first message
/// of a front-end: it sees what a guest says, and maps all of the guest's memory.</summary>
/// <remarks>A system call that is not listed fails with EPERM, so that what the runtime or the C library tries in some corner costs that
/// attempt and not the guest's device. The calls by which a break-in goes on, to another program or another process, end the process.
/// Only the native binary can be confined: the JIT opens files and makes code as it goes.</remarks>
public sealed record Confinement
{
    private const uint ProtExec = 4;                        // PROT_EXEC of asm-generic/mman-common.h
    private const uint NewNamespaces = 0x7E020000;          // CLONE_NEW* of linux/sched.h
    private const uint CloneThread = 0x00010000;            // CLONE_THREAD
    private const uint PrSetName = 15;                      // PR_SET_NAME of linux/prctl.h
    private const uint AfUnix = 1;
    private const int Enosys = 38;

    private static readonly BoundedLog s_log = new("Vmm.Devices.Backends");

    // What the runtime, its threads and its garbage collector do (measured by strace, and read in the C library for what is rare), and
    // what serving a front-end takes.
    private static readonly SystemCallNumber[] s_common =
    [
        Read, Write, SystemCallNumber.Poll, Ppoll, Recvmsg, Sendmsg, Futex, Readv, Writev, Recvfrom, Sendto, EpollWait, EpollPwait, EpollCtl,
        Munmap, Madvise, Mremap, Mincore, Brk, Close, Fcntl, Fstat, Lseek, Statx, Ftruncate,
        Accept4, Shutdown, Getsockopt, Setsockopt, Getsockname, Getpeername, MemfdCreate, Eventfd2, TimerfdCreate, TimerfdSettime,
        EpollCreate1, RtSigaction, RtSigprocmask, RtSigreturn, Sigaltstack, SchedYield, SchedGetaffinity, SchedGetparam, SchedGetscheduler,
        Membarrier, Getpid, Gettid, Getrusage, Sysinfo, Uname, Nanosleep, ClockNanosleep, ClockGettime, ClockGetres, Getrandom,
        SetRobustList, Rseq, RestartSyscall, Exit, ExitGroup,
    ];

    private static readonly SystemCallNumber[] s_killed =
    [
        Execve, Execveat, Fork, Vfork, Ptrace, ProcessVmReadv, ProcessVmWritev, PidfdGetfd, Bpf, Mount, InitModule, FinitModule, KexecLoad,
    ];

    /// <summary>System calls besides those of every back-end.</summary>
    public IReadOnlyList<SystemCallNumber> Calls { get; init; } = [];

    /// <summary>The requests of ioctl(2) that it makes.</summary>
    public IReadOnlyList<IoctlRequest> Ioctls { get; init; } = [];

    /// <summary>Whether it connects to Unix sockets.</summary>
    public bool ConnectsToUnixSockets { get; init; }

    /// <summary>The sockets that it listens on, to be removed at the end.</summary>
    public IReadOnlyList<string> Sockets { get; init; } = [];

    /// <summary>Confines the process, for good: Landlock for the calling thread and those it starts, the rest for all.</summary>
    /// <returns>Whether that was possible: not without the native binary.</returns>
    /// <exception cref="ErrnoException">The kernel refused.</exception>
    public bool Apply()
    {
        if (RuntimeFeature.IsDynamicCodeSupported)
        {
            s_log.Info("not confined: only the native binary can be");
            return false;
        }
        ApplyTo(allThreads: true);
        return true;
    }

    /// <summary>The same for the calling thread and those it starts, or for all, whatever the binary is.</summary>
    internal void ApplyTo(bool allThreads)
    {
        ProcessPrivileges.GiveUpNewOnes();
        int version = Landlock.Restrict([.. SocketDirectories().Select(directory => (directory, LandlockAccess.RemoveFile))]);
        if (version == 0)
            s_log.Info("this kernel has no Landlock: files are kept away by seccomp alone");
        else
            s_log.Debug("confined by Landlock {Version}", version);
        Filter().Install(allThreads);
    }

    private HashSet<string> SocketDirectories() =>
        [.. Sockets.Select(path => Path.GetDirectoryName(Path.GetFullPath(path))!)];

    private SeccompFilter Filter()
    {
        var filter = new SeccompFilter();
        filter.Allow(s_common);
        filter.Allow([.. Calls]);
        filter.AllowWhereBits(Mmap, 2, ProtExec, 0).AllowWhereBits(Mprotect, 2, ProtExec, 0);
        filter.AllowWhereBits(Clone, 0, NewNamespaces | CloneThread, CloneThread);
        filter.Fail(Clone3, Enosys);        // its arguments are in memory, out of sight; the C library goes back to clone
        filter.AllowWhere(Prctl, 0, PrSetName);
        filter.AllowWhere(Tgkill, 0, (uint)Environment.ProcessId);
        filter.AllowWhere(SystemCallNumber.Ioctl, 1, [.. Ioctls.Select(request => request.Number)]);
        if (ConnectsToUnixSockets)
            filter.AllowWhere(Socket, 0, AfUnix).Allow(Connect, Stat, Newfstatat);
        if (Sockets.Count > 0)
            filter.Allow(Unlink, Lstat, Newfstatat);   // what is at the path, by either call of the C library
        return filter.Kill(s_killed);
    }
}
