using System.Runtime.InteropServices;
using Vmm.Vhost.Native.Confinement;
using static Vmm.Vhost.Native.FileSystem.KernelCall;

namespace Vmm.Vhost.Native.FileSystem;

/// <summary>Calls by which files are found, made and removed, relative to directories that are open. A name ends with a null byte, has no other,
/// and is one component of a path. None of them follows a symbolic link in the name's place.</summary>
/// <remarks>All return a negated error number where the kernel refuses: a failure is part of normal operation here.</remarks>
public static unsafe class FileTree
{
    /// <summary>Flags of open(2) (asm-generic/fcntl.h, x86-64).</summary>
    public const int WriteOnly = 1, ReadWrite = 2, AccessMask = 3, Create = 0x40, Exclusive = 0x80, Truncate = 0x200, Append = 0x400, NonBlocking = 0x800,
        DataSynchronous = 0x1000, Direct = 0x4000, DirectoryOnly = 0x10000, NoFollow = 0x20000, NoAccessTime = 0x40000, CloseOnExec = 0x80000,
        Synchronous = 0x101000, PathOnly = 0x200000, Temporary = 0x410000;

    private const int NoTerminal = 0x100, LargeFile = 0x8000;
    private const int EmptyPath = 0x1000, SymlinkNoFollow = 0x100, SymlinkFollow = 0x400, NoAutomount = 0x800, RemoveDirectoryFlag = 0x200;
    private const int EffectiveIds = 0x200;         // AT_EACCESS
    private const int DontSync = 0x4000;            // AT_STATX_DONT_SYNC
    private const long TmpfsMagic = 0x01021994, RamfsMagic = 0x858458F6;
    private const ulong ResolveBeneath = 8, ResolveNoSymlinks = 4, ResolveNoMagicLinks = 2;     // linux/openat2.h

    // linux/magic.h: proc, sysfs, debugfs, tracefs, securityfs, apparmor, selinux, smack, cgroup, cgroup2, bpf, efivarfs, pstore, nsfs, binfmt_misc, resctrl; and of their own sources
    // configfs and fusectl; and the files of mqueue and hugetlbfs, which are memory of other processes.
    private static readonly long[] s_kernelsMagics =
    [
        0x9FA0, 0x62656572, 0x64626720, 0x74726163, 0x73636673, 0x5A3C69F0, 0xF97CFF8C, 0x43415D53, 0x27E0EB, 0x63677270, 0xCAFE4A11, 0xDE5E81E4, 0x6165676C, 0x6E736673,
        0x42494E4D, 0x7655821, 0x62656570, 0x65735543,
        0x19800202, 0x958458F6,
    ];

    // linux/magic.h: nfs, fuse, smb, cifs, smb2, ceph, 9p, afs (two of them), coda, ncp.
    private static readonly long[] s_serversMagics = [0x6969, 0x65735546, 0x517B, 0xFF534D42, 0xFE534D42, 0xC36400, 0x1021997, 0x5346414F, 0x6B414653, 0x73757245, 0x564C];

    /// <summary>Opens a file of a directory.</summary>
    /// <returns>The new descriptor's number.</returns>
    public static int Open(in HeldDescriptor directory, ReadOnlySpan<byte> name, int flags, uint mode = 0)
    {
        fixed (byte* pointer = name)
            return (int)Do(SystemCallNumber.Openat, directory.Number, (nint)pointer, flags | NoFollow | CloseOnExec | NoTerminal | LargeFile, (nint)mode);
    }

    /// <summary>Opens what <paramref name="path"/>, of any number of components, names below a directory, without any symbolic link on the way.</summary>
    /// <returns>The new descriptor's number; EXDEV or ELOOP where the path leads out or over a link.</returns>
    public static int OpenBeneath(in HeldDescriptor directory, ReadOnlySpan<byte> path, int flags)
    {
        var how = new OpenHow { Flags = (ulong)(uint)(flags | NoFollow | CloseOnExec), Resolve = ResolveBeneath | ResolveNoSymlinks | ResolveNoMagicLinks };
        fixed (byte* pointer = path)
            return (int)Do(SystemCallNumber.Openat2, directory.Number, (nint)pointer, (nint)(&how), sizeof(OpenHow));
    }

    /// <summary>Opens a file that is open already, by its entry in /proc/self/fd.</summary>
    /// <param name="links">The directory /proc/self/fd.</param>
    /// <param name="file">The file; it may be open by O_PATH only.</param>
    /// <param name="flags">How.</param>
    /// <returns>The new descriptor's number.</returns>
    public static int Reopen(in HeldDescriptor links, in HeldDescriptor file, int flags)
    {
        Span<byte> name = stackalloc byte[DescriptorName.MaxLength];
        DescriptorName.Write(file.Number, name);
        fixed (byte* pointer = name)
            return (int)Do(SystemCallNumber.Openat, links.Number, (nint)pointer, flags | CloseOnExec | NoTerminal | LargeFile);
    }

    /// <summary>statx(2) of an open file.</summary>
    public static int GetStatus(in HeldDescriptor file, out FileStatus status) => GetStatus(in file, 0, out status);

    /// <summary>The same as the host's kernel knows it: no server is asked (AT_STATX_DONT_SYNC).</summary>
    public static int GetKnownStatus(in HeldDescriptor file, out FileStatus status) => GetStatus(in file, DontSync, out status);

    /// <summary>statx(2) of a file of a directory.</summary>
    public static int GetStatus(in HeldDescriptor directory, ReadOnlySpan<byte> name, out FileStatus status)
    {
        fixed (byte* pointer = name)
        fixed (FileStatus* result = &status)
            return (int)Do(SystemCallNumber.Statx, directory.Number, (nint)pointer, SymlinkNoFollow | NoAutomount, (nint)FileStatus.Wanted, (nint)result);
    }

    /// <summary>Whether the root of the mount by which a directory was opened is above it. Where a mount shows a part of a file system, somebody can move a directory out of that part
    /// while this process has it open: the kernel then does not find what is above it (ENOENT).</summary>
    /// <param name="directory">The directory; it may be open by O_PATH only.</param>
    /// <returns>True also where this process may not search the directory.</returns>
    public static bool IsBelowItsMount(in HeldDescriptor directory)
    {
        FileStatus status;
        fixed (byte* parent = "..\0"u8)
            return Do(SystemCallNumber.Statx, directory.Number, (nint)parent, SymlinkNoFollow | NoAutomount | DontSync, 0, (nint)(&status)) != -Errnos.Enoent;
    }

    /// <summary>mkdirat(2).</summary>
    public static int MakeDirectory(in HeldDescriptor directory, ReadOnlySpan<byte> name, uint mode)
    {
        fixed (byte* pointer = name)
            return (int)Do(SystemCallNumber.Mkdirat, directory.Number, (nint)pointer, (nint)mode);
    }

    /// <summary>mknodat(2); <paramref name="device"/> as the kernel encodes it for that call.</summary>
    public static int MakeNode(in HeldDescriptor directory, ReadOnlySpan<byte> name, uint mode, uint device)
    {
        fixed (byte* pointer = name)
            return (int)Do(SystemCallNumber.Mknodat, directory.Number, (nint)pointer, (nint)mode, (nint)device);
    }

    /// <summary>symlinkat(2); <paramref name="target"/> ends with a null byte, too, and may be anything.</summary>
    public static int MakeSymbolicLink(in HeldDescriptor directory, ReadOnlySpan<byte> name, ReadOnlySpan<byte> target)
    {
        fixed (byte* pointer = name, targetPointer = target)
            return (int)Do(SystemCallNumber.Symlinkat, (nint)targetPointer, directory.Number, (nint)pointer);
    }

    /// <summary>Gives an open file another name.</summary>
    /// <param name="links">The directory /proc/self/fd.</param>
    /// <param name="file">The file.</param>
    /// <param name="directory">Where the name is made.</param>
    /// <param name="name">The name.</param>
    public static int Link(in HeldDescriptor links, in HeldDescriptor file, in HeldDescriptor directory, ReadOnlySpan<byte> name)
    {
        Span<byte> source = stackalloc byte[DescriptorName.MaxLength];
        DescriptorName.Write(file.Number, source);
        fixed (byte* sourcePointer = source, pointer = name)
            return (int)Do(SystemCallNumber.Linkat, links.Number, (nint)sourcePointer, directory.Number, (nint)pointer, SymlinkFollow);
    }

    /// <summary>unlinkat(2).</summary>
    public static int Remove(in HeldDescriptor directory, ReadOnlySpan<byte> name, bool isDirectory)
    {
        fixed (byte* pointer = name)
            return (int)Do(SystemCallNumber.Unlinkat, directory.Number, (nint)pointer, isDirectory ? RemoveDirectoryFlag : 0);
    }

    /// <summary>renameat2(2).</summary>
    public static int Rename(in HeldDescriptor directory, ReadOnlySpan<byte> name, in HeldDescriptor newDirectory, ReadOnlySpan<byte> newName, uint flags)
    {
        fixed (byte* pointer = name, newPointer = newName)
            return (int)Do(SystemCallNumber.Renameat2, directory.Number, (nint)pointer, newDirectory.Number, (nint)newPointer, (nint)flags);
    }

    /// <summary>readlinkat(2) of a symbolic link that is open by O_PATH.</summary>
    /// <returns>Bytes of its target, without a null byte.</returns>
    public static int ReadLink(in HeldDescriptor link, Span<byte> target)
    {
        byte empty = 0;
        fixed (byte* pointer = target)
            return (int)Do(SystemCallNumber.Readlinkat, link.Number, (nint)(&empty), (nint)pointer, target.Length);
    }

    /// <summary>fchownat(2) of an open file; uint.MaxValue leaves an id as it is.</summary>
    public static int ChangeOwner(in HeldDescriptor file, uint user, uint group)
    {
        byte empty = 0;
        return (int)Do(SystemCallNumber.Fchownat, file.Number, (nint)(&empty), (nint)user, (nint)group, EmptyPath | SymlinkNoFollow);
    }

    /// <summary>fchmodat(2) of an open file, which may be open by O_PATH.</summary>
    public static int ChangeMode(in HeldDescriptor links, in HeldDescriptor file, uint mode)
    {
        Span<byte> name = stackalloc byte[DescriptorName.MaxLength];
        DescriptorName.Write(file.Number, name);
        fixed (byte* pointer = name)
            return (int)Do(SystemCallNumber.Fchmodat, links.Number, (nint)pointer, (nint)mode);
    }

    /// <summary>utimensat(2) of an open file, which may be open by O_PATH. Nanoseconds may be <see cref="TimeNow"/> or <see cref="TimeOmit"/>.</summary>
    public static int SetTimes(in HeldDescriptor file, FileTime accessed, FileTime modified)
    {
        byte empty = 0;
        long* times = stackalloc long[] { accessed.Seconds, accessed.Nanoseconds, modified.Seconds, modified.Nanoseconds };
        return (int)Do(SystemCallNumber.Utimensat, file.Number, (nint)(&empty), (nint)times, EmptyPath);
    }

    /// <summary>UTIME_NOW and UTIME_OMIT of linux/stat.h.</summary>
    public const uint TimeNow = 0x3FFFFFFF, TimeOmit = 0x3FFFFFFE;

    /// <summary>faccessat2(2) of an open file, by the effective ids of the calling thread.</summary>
    public static int CheckAccess(in HeldDescriptor links, in HeldDescriptor file, uint mask)
    {
        Span<byte> name = stackalloc byte[DescriptorName.MaxLength];
        DescriptorName.Write(file.Number, name);
        fixed (byte* pointer = name)
            return (int)Do(SystemCallNumber.Faccessat2, links.Number, (nint)pointer, (nint)mask, EffectiveIds);
    }

    /// <summary>Whether the file system that the file is of is in memory only (tmpfs or ramfs, by their numbers in linux/magic.h).</summary>
    public static bool IsInMemory(in HeldDescriptor file) =>
        GetFileSystem(in file, out FileSystemStatus status) == 0 && status.Type is TmpfsMagic or RamfsMagic;

    /// <summary>Whether a server keeps the file, which may not answer for long: another host, or a program (FUSE).</summary>
    public static bool IsOfServer(in HeldDescriptor file) =>
        GetFileSystem(in file, out FileSystemStatus status) == 0 && s_serversMagics.Contains(status.Type);

    /// <summary>Whether the file is no stored data but a view of the kernel's state, or of processes, as those of /proc and /sys are.</summary>
    public static bool IsOfKernel(in HeldDescriptor file) =>
        GetFileSystem(in file, out FileSystemStatus status) == 0 && s_kernelsMagics.Contains(status.Type);

    /// <summary>fstatfs(2).</summary>
    public static int GetFileSystem(in HeldDescriptor file, out FileSystemStatus status)
    {
        fixed (FileSystemStatus* pointer = &status)
            return (int)Do(SystemCallNumber.Fstatfs, file.Number, (nint)pointer);
    }

    /// <summary>getdents64(2).</summary>
    /// <returns>Bytes of entries; 0 at the end.</returns>
    public static int ReadDirectory(in HeldDescriptor directory, Span<byte> entries)
    {
        fixed (byte* pointer = entries)
            return (int)Do(SystemCallNumber.Getdents64, directory.Number, (nint)pointer, entries.Length);
    }

    /// <summary>Makes a directory that is open the current one of this process.</summary>
    /// <exception cref="ErrnoException">fchdir(2) failed.</exception>
    public static void Enter(FileDescriptor directory)
    {
        using HeldDescriptor held = directory.Hold();
        long result = Do(SystemCallNumber.Fchdir, held.Number);
        if (result < 0)
            throw new ErrnoException("fchdir", (int)-result);
    }

    /// <summary>From now on modes of new files are taken as they are given (umask(2) of 0), in all of this process.</summary>
    public static void ClearMask() => SetMask(0);

    /// <summary>From now on these bits are taken from the modes of new files (umask(2)), in all of this process.</summary>
    /// <returns>The bits so far.</returns>
    public static uint SetMask(uint mask) => (uint)Do(SystemCallNumber.Umask, (nint)mask);

    /// <summary>Opens a directory by its path, links and all.</summary>
    /// <exception cref="ErrnoException">There is none.</exception>
    public static FileDescriptor OpenDirectory(string path)
    {
        fixed (byte* pointer = FileDescriptor.NullTerminated(path))
        {
            const int current = -100;   // AT_FDCWD
            long result = Do(SystemCallNumber.Openat, current, (nint)pointer, PathOnly | DirectoryOnly | CloseOnExec);
            return result >= 0 ? new FileDescriptor((int)result) : throw new ErrnoException($"cannot open {path}", (int)-result);
        }
    }

    private static int GetStatus(in HeldDescriptor file, int flags, out FileStatus status)
    {
        byte empty = 0;
        fixed (FileStatus* pointer = &status)
            return (int)Do(SystemCallNumber.Statx, file.Number, (nint)(&empty), EmptyPath | NoAutomount | flags, (nint)FileStatus.Wanted, (nint)pointer);
    }

    // struct open_how of linux/openat2.h.
    private struct OpenHow
    {
        public ulong Flags;
        public ulong Mode;
        public ulong Resolve;
    }
}

/// <summary>What statfs(2) says of a file system: struct statfs of asm-generic/statfs.h for 64 bits, 120 bytes.</summary>
[StructLayout(LayoutKind.Sequential, Size = 120)]
public struct FileSystemStatus
{
#pragma warning disable CS1591 // the names are the kernel's: statfs(2) documents them
    public long Type;
    public long BlockSize;
    public ulong Blocks;
    public ulong BlocksFree;
    public ulong BlocksAvailable;
    public ulong Files;
    public ulong FilesFree;
    public ulong Id;
    public long NameLength;
    public long FragmentSize;
#pragma warning restore CS1591
}

/// <summary>The name that a descriptor has in /proc/self/fd.</summary>
internal static class DescriptorName
{
    /// <summary>The most bytes of it, with the null byte.</summary>
    public const int MaxLength = 12;

    /// <summary>Writes it, with a null byte behind it.</summary>
    public static void Write(int number, Span<byte> name)
    {
        number.TryFormat(name, out int length);
        name[length] = 0;
    }
}
