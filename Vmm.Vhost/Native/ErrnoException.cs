using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>A system call failed. The message says what was attempted and why it failed:
/// <c>ioctl(KVM_CREATE_VM): Permission denied (errno 13)</c>.</summary>
public sealed class ErrnoException : IOException
{
    /// <summary>Describes the failure of <paramref name="operation"/> with <paramref name="errno"/>; an optional
    /// <paramref name="advice"/> tells the user what to do about it.</summary>
    public ErrnoException(string operation, int errno, string? advice = null)
        : base($"{operation}: {Marshal.GetPInvokeErrorMessage(errno)} (errno {errno})" + (advice is null ? "" : $": {advice}"))
    {
        Operation = operation;
        Errno = errno;
    }

    /// <summary>What was attempted, for example <c>ioctl(KVM_CREATE_VM)</c>.</summary>
    public string Operation { get; }

    /// <summary>The error number, as in errno(3).</summary>
    public int Errno { get; }

    /// <summary>The exception for the error that the last system call of this thread left in errno.</summary>
    public static ErrnoException FromLastError(string operation, string? advice = null) =>
        new(operation, Errnos.Last, advice);
}
