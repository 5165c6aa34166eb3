using static Vmm.Vhost.Native.Confinement.ArgumentCondition;
using static Vmm.Vhost.Native.Confinement.SystemCallNumber;

namespace Vmm.Vhost.Native.Confinement;

/// <summary>What every process does that confines itself, whatever it serves.</summary>
/// <remarks>The table in docs/security.md says of each call in the lists what can be done with it; a test compares the two.</remarks>
public static class ProcessSystemCalls
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

    // MADV_* of asm-generic/mman-common.h, as the runtime and the C library use them: DONTNEED, FREE, HUGEPAGE, NOHUGEPAGE, DONTDUMP, DODUMP, and GUARD_INSTALL
    // and GUARD_REMOVE for stacks. MADV_REMOVE is not among them: it frees pages of files, the guest's memory among them.
    private static readonly uint[] s_advice = [4, 8, 14, 15, 16, 17, 102, 103];

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
}
