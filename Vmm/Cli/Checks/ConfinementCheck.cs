using Vmm.Vhost.Native;

namespace Vmm.Cli.Checks;

/// <summary>What the kernel has to confine <c>vmm run</c>, <c>vmm exec</c> and back-ends with (docs/security.md).</summary>
internal static class ConfinementCheck
{
    // What each version of Landlock keeps away besides what those before it do.
    private static readonly (int Version, string What)[] s_landlock =
        [(1, "files"), (4, "TCP"), (6, "abstract sockets"), (9, "Unix sockets"), (10, "UDP")];

    /// <summary>Looks.</summary>
    public static IEnumerable<Finding> Run(HostView host)
    {
        int version = host.LandlockVersion();
        yield return version > 0
            ? Finding.Ok("Landlock", $"version {version} keeps vmm run, vmm exec and back-ends from {string.Join(", ", s_landlock.Where(entry => entry.Version <= version).Select(entry => entry.What))}")
            : Finding.MissingOptional("Landlock", "vmm run, vmm exec and back-ends are confined by seccomp alone: take a kernel with CONFIG_SECURITY_LANDLOCK, and landlock in lsm= of its command line");
        int filterError = host.SeccompError();
        yield return filterError == 0
            ? Finding.Ok("seccomp", "filters the system calls of vmm run, vmm exec and back-ends")
            : Finding.MissingOptional("seccomp", $"{new ErrnoException("seccomp", filterError).Message}: vmm run, vmm exec and back-ends need --sandbox off; take a kernel with CONFIG_SECCOMP_FILTER");
        int error = host.IoUringError();
        yield return error == 0
            ? Finding.Ok("io_uring", "does the I/O of disks")
            : Finding.MissingOptional("io_uring", $"{new ErrnoException("io_uring_setup", error).Message}: threads do the I/O of disks; see /proc/sys/kernel/io_uring_disabled");
    }
}
