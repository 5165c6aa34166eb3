using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>A system call failed. The message says what was attempted and why it failed:
/// <c>ioctl(KVM_CREATE_VM): Permission denied (errno 13)</c>.</summary>
public sealed class ErrnoException : IOException
{
    /// <summary>Describes the failure of <paramref name="operation"/> with <paramref name="errno"/>; an optional
    /// <paramref name="advice"/> tells the user what to do about it.</summary>
    public ErrnoException(string operation, int errno, string? advice = null)
        : base($"{operation}: {Marshal.GetPInvokeErrorMessage(errno)} (errno {errno})" + ((advice ?? LimitOf(operation, errno)) is { } what ? $": {what}" : ""))
    {
        Operation = operation;
        Errno = errno;
    }

    private ErrnoException(int errno, string message)
        : base(message)
    {
        Operation = "";
        Errno = errno;
    }

    /// <summary>What was attempted, for example <c>ioctl(KVM_CREATE_VM)</c>.</summary>
    public string Operation { get; }

    /// <summary>The error number, as in errno(3).</summary>
    public int Errno { get; }

    /// <summary>Whether this process or the host has run out of descriptors or memory: what failed may succeed later.</summary>
    public bool IsShortage => Errno is Errnos.Emfile or Errnos.Enfile or Errnos.Enomem or Errnos.Enobufs;

    /// <summary>The exception for the error that the last system call of this thread left in errno.</summary>
    public static ErrnoException FromLastError(string operation, string? advice = null) =>
        new(operation, Errnos.Last, advice);

    /// <summary>An error of another process's, with its message.</summary>
    public static ErrnoException FromElsewhere(string message, int errno) => new(errno, message);

    // What has run out, where the error alone says so.
    private static string? LimitOf(string operation, int errno) => errno switch
    {
        Errnos.Emfile => $"this process may have {ResourceLimit.OpenFiles} descriptors: raise the hard limit (ulimit -Hn as root, or LimitNOFILE= of systemd)",
        Errnos.Enfile => "the host has as many open files as it may: raise fs.file-max (sysctl)",
        Errnos.Enomem when operation.StartsWith("mmap", StringComparison.Ordinal) =>
            "the host has no memory left, or this process as many mappings as it may have: free some, or raise vm.max_map_count (sysctl)",
        _ => null,
    };
}
