using System.Diagnostics.CodeAnalysis;
using Tmds.Linux;
using Vmm.Vhost.Native.Confinement;

namespace Vmm.Vhost.Native;

/// <summary>What a path or a descriptor names.</summary>
public static class FileKind
{
    private const int GetSeals = 1034;      // F_GET_SEALS of linux/fcntl.h

    /// <summary>The system call of <see cref="IsSharedMemory(FileDescriptor)"/>: for a process that confines itself.</summary>
    public static readonly SystemCallRule SharedMemoryCheck = new(SystemCallNumber.Fcntl, "cmd is F_GET_SEALS", ArgumentCondition.IsOneOf(1, GetSeals));

    /// <summary>Whether <paramref name="path"/>, or what it links to, is a directory.</summary>
    public static bool IsDirectory([NotNullWhen(true)] string? path) => TypeOf(path) is { } type && type == LibC.S_IFDIR;

    /// <summary>Whether <paramref name="path"/>, or what it links to, is there and no directory.</summary>
    public static bool IsFile([NotNullWhen(true)] string? path) => TypeOf(path) is { } type && type != LibC.S_IFDIR;

    private static unsafe bool IsOfType(FileDescriptor descriptor, mode_t type)
    {
        stat status;
        using HeldDescriptor held = descriptor.Hold();
        // SAFETY: a struct on the stack.
        return LibC.fstat(held.Number, &status) == 0 && (status.st_mode & LibC.S_IFMT) == type;
    }

    // Null: nothing is there, or this process may not look.
    private static mode_t? TypeOf(string? path, bool followsLink = true) => Status(path, followsLink) is { } status ? status.st_mode & LibC.S_IFMT : null;

    private static unsafe stat? Status(string? path, bool followsLink)
    {
        if (string.IsNullOrEmpty(path))
            return null;
        stat status;
        fixed (byte* name = FileDescriptor.NullTerminated(path))
        {
            // SAFETY: the name is null-terminated and pinned, the result on the stack.
            return (followsLink ? LibC.stat(name, &status) : LibC.lstat(name, &status)) == 0 ? status : null;
        }
    }

    /// <summary>Whether <paramref name="path"/> is a socket itself (not a link to one).</summary>
    public static bool IsSocket(string path) => TypeOf(path, followsLink: false) is { } type && type == LibC.S_IFSOCK;

    /// <summary>Whether <paramref name="path"/>, or what it links to, is there and no socket.</summary>
    public static bool LeadsToOtherThanSocket(string path) => TypeOf(path) is { } type && type != LibC.S_IFSOCK;

    /// <summary>Whether <paramref name="path"/>, or what it links to, is a character device, as terminals are.</summary>
    public static bool IsCharacterDevice(string path) => TypeOf(path) is { } type && type == LibC.S_IFCHR;

    /// <summary>Whether <paramref name="path"/>, or what it links to, belongs to this process's user.</summary>
    public static bool IsOwn(string path) => Status(path, followsLink: true) is { } status && status.st_uid == LibC.geteuid();

    /// <summary>What tells the file at <paramref name="path"/>, not one that it links to, from all others; null if there is none.</summary>
    public static (ulong Device, ulong Inode)? Identity(string path) =>
        Status(path, followsLink: false) is { } status ? ((ulong)status.st_dev, (ulong)status.st_ino) : null;

    /// <summary>Whether both descriptors name the same file, pipe, terminal or socket.</summary>
    public static unsafe bool IsSame(FileDescriptor one, FileDescriptor other)
    {
        stat status, second;
        using HeldDescriptor first = one.Hold(), held = other.Hold();
        // SAFETY: structs on the stack.
        return LibC.fstat(first.Number, &status) == 0 && LibC.fstat(held.Number, &second) == 0 && status.st_dev == second.st_dev && status.st_ino == second.st_ino;
    }

    /// <summary>Whether <paramref name="descriptor"/> names a pipe, or a FIFO.</summary>
    public static bool IsPipe(FileDescriptor descriptor) => IsOfType(descriptor, LibC.S_IFIFO);

    /// <summary>Whether <paramref name="descriptor"/> names a socket.</summary>
    public static bool IsSocket(FileDescriptor descriptor) => IsOfType(descriptor, LibC.S_IFSOCK);

    /// <summary>Whether <paramref name="descriptor"/> names a file of shared memory: a memfd, or a file of tmpfs or of hugetlbfs. Neither reading nor
    /// closing such a file waits for another program. This call waits for nobody, whatever the descriptor is.</summary>
    public static bool IsSharedMemory(FileDescriptor descriptor)
    {
        using HeldDescriptor held = descriptor.Hold();
        return IsSharedMemory(held.Number);
    }

    // No other file has seals (fcntl(2), "File Sealing").
    internal static bool IsSharedMemory(int number) => LibC.fcntl(number, GetSeals) >= 0;

    /// <summary>The size in bytes of the regular file (a memfd is one) that <paramref name="descriptor"/> names, and of the blocks by which it is
    /// to be mapped: its pages.</summary>
    /// <returns>False if it is no regular file.</returns>
    public static unsafe bool TryGetSize(FileDescriptor descriptor, out ulong size, out ulong blockSize)
    {
        stat status;
        size = blockSize = 0;
        using HeldDescriptor held = descriptor.Hold();
        // SAFETY: a struct on the stack.
        if (LibC.fstat(held.Number, &status) < 0 || !LibC.S_ISREG(status.st_mode))
            return false;
        size = (ulong)(long)status.st_size;
        blockSize = (ulong)(long)status.st_blksize;
        return true;
    }
}
