namespace Vmm.Tests.Integration.Backends;

/// <summary>What somebody tries who has taken a back-end process over, and wants more than the one guest's device.</summary>
public static class EscapeAttempts
{
    /// <summary>Calls that a process of root's can make when nothing confines it, and that harm nobody.</summary>
    public static IReadOnlyList<InjectedCall> Possible { get; } =
    [
        // Files.
        new("open", "@/etc/hostname", "0"),
        new("openat", "-100", "@/etc/shadow", "0"),
        new("openat2", "-100", "@/etc/hostname", $"%{new string('0', 48)}", "24"),
        new("stat", "@/etc/hostname", $"%{new string('0', 288)}"),
        new("lstat", "@/etc/hostname", $"%{new string('0', 288)}"),
        new("newfstatat", "-100", "@/etc/hostname", $"%{new string('0', 288)}", "0"),
        new("statx", "-100", "@/etc/hostname", "0", "0x7ff", $"%{new string('0', 500)}"),
        new("access", "@/etc/shadow", "4"),
        new("readlink", "@/proc/self/exe", $"%{new string('0', 200)}", "100"),
        new("getcwd", $"%{new string('0', 200)}", "100"),
        new("chdir", "@/"),
        new("statfs", "@/", $"%{new string('0', 240)}"),
        new("inotify_init1", "0"),
        // Sockets.
        new("socket", "1", "2", "0"),       // AF_UNIX, SOCK_DGRAM
        new("socket", "1", "5", "0"),       // SOCK_SEQPACKET
        new("socket", "2", "1", "0"),       // AF_INET
        new("socket", "2", "2", "0"),
        new("socket", "16", "3", "0"),      // AF_NETLINK, NETLINK_ROUTE
        new("socketpair", "1", "1", "0", $"%{new string('0', 16)}"),
        // Descriptors.
        new("dup", "0"),
        new("fcntl", "0", "0", "0"),        // F_DUPFD
        new("fcntl", "0", "1030", "0"),     // F_DUPFD_CLOEXEC
        new("fcntl", "0", "3", "0"),        // F_GETFL
        new("fcntl", "0", "8", "0"),        // F_SETOWN
        new("fcntl", "0", "10", "0"),       // F_SETSIG
        new("fcntl", "0", "15", "%0000000000000000"),   // F_SETOWN_EX
        new("fcntl", "1", "4", "0x402"),    // F_SETFL
        new("pipe2", $"%{new string('0', 16)}", "0"),
        new("signalfd4", "-1", "%0000000000000000", "8", "0"),
        // Processes.
        new("kill", "1", "0"),
        new("tkill", "1", "0"),
        new("tgkill", "1", "1", "0"),
        new("pidfd_open", "1", "0"),
        new("getpgid", "1"),
        new("prlimit64", "1", "7", "0", $"%{new string('0', 32)}"),
        new("prctl", "3"),                  // PR_GET_DUMPABLE
        new("prctl", "36", "1"),            // PR_SET_CHILD_SUBREAPER
        new("sched_setaffinity", "0", "8", "%ff00000000000000"),
        new("timer_create", "0", "0", "%00000000"),
        new("capget", "%2205082000000000", $"%{new string('0', 48)}"),
        // Memory that can be executed.
        new("mmap", "0", "4096", "7", "0x22", "-1", "0"),
        new("mmap", "0", "4096", "4", "0x22", "-1", "0"),
        // The kernel's larger doors.
        new("io_uring_setup", "8", $"%{new string('0', 240)}"),
        new("landlock_create_ruleset", "0", "0", "1"),
    ];

    /// <summary>Calls that fail outside too, as they are here, or that would do harm if they did not fail.</summary>
    public static IReadOnlyList<InjectedCall> Others { get; } =
    [
        new("creat", "@/tmp/vmm-escape", "0600"),
        new("truncate", "@/nonexistent", "0"),
        new("mkdir", "@/tmp/vmm-escape", "0700"),
        new("rmdir", "@/nonexistent"),
        new("unlink", "@/nonexistent"),
        new("unlinkat", "-100", "@/nonexistent", "0"),
        new("rename", "@/nonexistent", "@/tmp/vmm-escape"),
        new("renameat2", "-100", "@/nonexistent", "-100", "@/tmp/vmm-escape", "0"),
        new("link", "@/nonexistent", "@/tmp/vmm-escape"),
        new("symlink", "@/etc/shadow", "@/nonexistent/link"),
        new("mknodat", "-100", "@/nonexistent/node", "0x2180", "0x0101"),
        new("chmod", "@/nonexistent", "0777"),
        new("fchmod", "0", "0600"),
        new("fchown", "0", "0", "0"),
        new("fchdir", "0"),
        new("chroot", "@/nonexistent"),
        new("setxattr", "@/nonexistent", "@user.a", "@b", "1", "0"),
        new("utimensat", "-100", "@/nonexistent", "0", "0"),
        new("getdents64", "0", $"%{new string('0', 200)}", "100"),
        new("name_to_handle_at", "-100", "@/etc/hostname", "%0000000000000000", "%00000000", "0"),
        new("open_by_handle_at", "0", "%0000000000000000", "0"),
        new("socket", "17", "3", "0"),      // AF_PACKET
        new("socket", "10", "1", "0"),      // AF_INET6
        new("socket", "40", "1", "0"),      // AF_VSOCK
        new("socket", "38", "5", "0"),      // AF_ALG
        new("bind", "0", "%0200", "16"),
        new("listen", "0", "1"),
        new("setsockopt", "0", "1", "2", "%01000000", "4"),
        new("getsockopt", "0", "1", "17", $"%{new string('0', 24)}", "%0c000000"),   // SO_PEERCRED
        new("sendto", "0", "@x", "1", "0", "%0200138900000000", "16"),
        new("sendmmsg", "0", "0", "0", "0"),
        new("recvmmsg", "0", "0", "0", "0", "0"),
        new("dup2", "0", "100"),
        new("dup3", "0", "100", "0"),
        new("fcntl", "0", "1024", "1"),     // F_SETLEASE
        new("fcntl", "0", "1026", "1"),     // F_NOTIFY
        new("fcntl", "0", "1031", "4096"),  // F_SETPIPE_SZ
        new("fcntl", "0", "1033", "16"),    // F_ADD_SEALS with F_SEAL_FUTURE_WRITE
        new("pidfd_send_signal", "0", "0", "0", "0"),
        new("process_madvise", "0", "0", "0", "0", "0"),
        new("process_mrelease", "0", "0"),
        new("kcmp", "1", "1", "0", "0", "0"),
        new("rt_sigqueueinfo", "1", "0", "0"),
        new("clone", "17", "0", "0", "0", "0"),                     // a process
        new("clone", "0x10010f00", "0", "0", "0", "0"),             // a thread in a new user namespace
        new("unshare", "0x10000000"),
        new("setns", "0", "0"),
        new("setuid", "65534"),
        new("setgroups", "0", "0"),
        new("capset", "0", "0"),
        new("prctl", "4", "1"),             // PR_SET_DUMPABLE
        new("prctl", "22", "0"),            // PR_SET_SECCOMP
        new("personality", "0x0400000"),    // READ_IMPLIES_EXEC
        new("mprotect", "0", "0", "7"),
        new("pkey_mprotect", "0", "0", "7", "-1"),
        new("shmget", "0", "4096", "0x380"),
        new("shmat", "0", "0", "0"),
        new("arch_prctl", "0x1012", "0"),
        new("modify_ldt", "0", "0", "0"),
        new("iopl", "3"),
        new("ioperm", "0x64", "1", "1"),
        new("io_uring_register", "0", "2", "0", "0"),
        new("io_setup", "1", "%0000000000000000"),
        new("userfaultfd", "0"),
        new("perf_event_open", "0", "0", "-1", "-1", "0"),
        new("keyctl", "0", "-3", "0"),
        new("add_key", "@user", "@a", "@b", "1", "-2"),
        new("request_key", "@user", "@a", "0", "0"),
        new("umount2", "@/nonexistent", "0"),
        new("pivot_root", "@/nonexistent", "@/nonexistent"),
        new("fsopen", "@tmpfs", "0"),
        new("open_tree", "-100", "@/", "1"),
        new("move_mount", "0", "0", "0", "0", "0"),
        new("mount_setattr", "0", "0", "0", "0", "0"),
        new("fanotify_init", "0", "0"),
        new("swapon", "@/nonexistent", "0"),
        new("reboot", "0", "0", "0", "0"),
        new("kexec_file_load", "-1", "-1", "0", "0", "0"),
        new("sethostname", "0", "-1"),
        new("clock_settime", "0", "0"),
        new("adjtimex", "0"),
        new("syslog", "10", "0", "0"),
        new("quotactl", "0", "0", "0", "0"),
        new("acct", "@/nonexistent"),
        new("setrlimit", "7", "0"),
        new("setpriority", "0", "0", "-1"),
        new("sched_setscheduler", "0", "1", "0"),     // SCHED_FIFO; on a machine with one processor a ring's thread may choose between two others
        new("sched_setscheduler", "1", "0", "0"),     // of another process
        new("ioprio_set", "1", "0", "0"),
        new("mbind", "0", "0", "0", "0", "0", "0"),
        new("move_pages", "1", "0", "0", "0", "0", "0"),
        new("splice", "0", "0", "0", "0", "0", "0"),
        new("sendfile", "0", "0", "0", "0"),
        new("copy_file_range", "0", "0", "0", "0", "0", "0"),
        new("mq_open", "@/a", "0", "0", "0"),
        new("msgget", "0", "0x380"),
        new("landlock_restrict_self", "0", "0"),
        new("seccomp", "0", "0", "0"),
    ];

    /// <summary>Requests of ioctl(2) that reach other objects than the descriptor: terminals, signals, interfaces, file systems.</summary>
    public static IReadOnlyList<string> Requests { get; } =
    [
        "0x5401",       // TCGETS
        "0x5412",       // TIOCSTI
        "0x541C",       // TIOCLINUX
        "0x540E",       // TIOCSCTTY
        "0x5441",       // TIOCGPTPEER
        "0x5452",       // FIOASYNC
        "0x8901",       // FIOSETOWN
        "0x8902",       // SIOCSPGRP
        "0x8912",       // SIOCGIFCONF
        "0x8914",       // SIOCSIFFLAGS
        "0x8955",       // SIOCGARP
        "0x89E0",       // SIOCPROTOPRIVATE
        "0x400454CA",   // TUNSETIFF
        "0x400454CB",   // TUNSETPERSIST
        "0x400454CC",   // TUNSETOWNER
        "0x800454E3",   // TUNGETDEVNETNS
        "0x125F",       // BLKRRPART
        "0x127D",       // BLKSECDISCARD
        "0x40049409",   // FICLONE
        "0xC0045877",   // FIFREEZE
        "0x40086602",   // FS_IOC_SETFLAGS
        "0x8004B704",   // NS_GET_OWNER_UID
        "0xAE01",       // KVM_CREATE_VM
    ];

    /// <summary>Calls that no honest path makes: they end the process.</summary>
    public static IReadOnlyList<InjectedCall> Deadly { get; } =
    [
        new("execve", "@/bin/sh", "0", "0"),
        new("execveat", "-100", "@/bin/sh", "0", "0", "0"),
        new("fork"),
        new("vfork"),
        new("ptrace", "16", "1", "0", "0"),
        new("process_vm_readv", "1", "0", "0", "0", "0", "0"),
        new("process_vm_writev", "1", "0", "0", "0", "0", "0"),
        new("pidfd_getfd", "0", "0", "0"),
        new("bpf", "0", "0", "0"),
        new("mount", "@none", "@/nonexistent", "@tmpfs", "0", "0"),
        new("init_module", "0", "0", "@"),
        new("finit_module", "0", "@", "0"),
        new("kexec_load", "0", "0", "0", "0"),
    ];
}
