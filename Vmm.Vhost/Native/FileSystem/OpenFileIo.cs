using System.Runtime.InteropServices;
using Tmds.Linux;
using Vmm.Vhost.Native.Confinement;
using static Vmm.Vhost.Native.FileSystem.KernelCall;

namespace Vmm.Vhost.Native.FileSystem;

/// <summary>What is done with an open file besides reading and writing. All return a negated error number where the kernel refuses.</summary>
public static unsafe class OpenFileIo
{
    /// <summary>F_RDLCK, F_WRLCK and F_UNLCK of asm-generic/fcntl.h.</summary>
    public const short ReadLock = 0, WriteLock = 1, Unlock = 2;

    /// <summary>LOCK_SH, LOCK_EX, LOCK_NB and LOCK_UN of flock(2).</summary>
    public const int FlockShared = 1, FlockExclusive = 2, FlockNonBlocking = 4, FlockUnlock = 8;

    private const int GetOpenFileLock = 36, SetOpenFileLock = 37;       // F_OFD_GETLK, F_OFD_SETLK
    private const int CopyDescriptor = 1030;                            // F_DUPFD_CLOEXEC of linux/fcntl.h

    /// <summary>FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_IOC_FSGETXATTR of linux/fs.h: what ioctl(2) may be asked.</summary>
    public static readonly IoctlRequest GetFlagsRequest = new(0x80086601, "FS_IOC_GETFLAGS"),
        SetFlagsRequest = new(0x40086602, "FS_IOC_SETFLAGS"),
        GetAttributesRequest = new(0x801C581F, "FS_IOC_FSGETXATTR");

    /// <summary>ftruncate(2).</summary>
    public static int SetSize(in HeldDescriptor file, long size) => (int)Do(SystemCallNumber.Ftruncate, file.Number, (nint)size);

    /// <summary>fallocate(2).</summary>
    public static int Allocate(in HeldDescriptor file, uint mode, long offset, long length) =>
        (int)Do(SystemCallNumber.Fallocate, file.Number, (nint)mode, (nint)offset, (nint)length);

    /// <summary>lseek(2).</summary>
    /// <returns>The new offset.</returns>
    public static long Seek(in HeldDescriptor file, long offset, int whence) => Do(SystemCallNumber.Lseek, file.Number, (nint)offset, whence);

    /// <summary>copy_file_range(2), at offsets of their own.</summary>
    /// <returns>Bytes copied.</returns>
    public static long CopyRange(in HeldDescriptor source, long sourceOffset, in HeldDescriptor target, long targetOffset, ulong length) =>
        Do(SystemCallNumber.CopyFileRange, source.Number, (nint)(&sourceOffset), target.Number, (nint)(&targetOffset), (nint)length, 0);

    /// <summary>fsync(2), or fdatasync(2).</summary>
    public static int Synchronize(in HeldDescriptor file, bool dataOnly) =>
        (int)Do(dataOnly ? SystemCallNumber.Fdatasync : SystemCallNumber.Fsync, file.Number);

    /// <summary>syncfs(2): all of the file system that the file is of.</summary>
    public static int SynchronizeFileSystem(in HeldDescriptor file) => (int)Do(SystemCallNumber.Syncfs, file.Number);

    /// <summary>Closes a copy of the descriptor (F_DUPFD_CLOEXEC): a network's file system sends what was written then, and says what went wrong. Locks of the opening stay.</summary>
    /// <returns>What close(2) says; the file is as open as it was.</returns>
    public static int CloseCopy(in HeldDescriptor file)
    {
        int copy = (int)Do(SystemCallNumber.Fcntl, file.Number, CopyDescriptor, 0);
        if (copy < 0)
            return copy;
        // Not once more after EINTR: the copy is closed by then, and its number may be another's.
        int errno = LibC.close(copy) == 0 ? 0 : Errnos.Last;
        return errno == Errnos.Eintr ? 0 : -errno;
    }

    /// <summary>flock(2).</summary>
    public static int Flock(in HeldDescriptor file, int operation) => (int)Do(SystemCallNumber.Flock, file.Number, operation);

    /// <summary>Takes or gives up a lock of a range (F_OFD_SETLK), which belongs to this opening of the file. Does not wait.</summary>
    public static int SetLock(in HeldDescriptor file, in RangeLockRequest range)
    {
        RangeLockRequest copy = range;
        return (int)Do(SystemCallNumber.Fcntl, file.Number, SetOpenFileLock, (nint)(&copy));
    }

    /// <summary>Whether a lock of a range could be taken (F_OFD_GETLK): a type of <see cref="Unlock"/> says yes.</summary>
    public static int GetLock(in HeldDescriptor file, ref RangeLockRequest range)
    {
        fixed (RangeLockRequest* pointer = &range)
            return (int)Do(SystemCallNumber.Fcntl, file.Number, GetOpenFileLock, (nint)pointer);
    }

    /// <summary>ioctl(2) with a structure that the kernel reads or writes.</summary>
    public static int Request(in HeldDescriptor file, in IoctlRequest request, Span<byte> data)
    {
        fixed (byte* pointer = data)
            return (int)Do(SystemCallNumber.Ioctl, file.Number, (nint)request.Number, (nint)pointer);
    }

    /// <summary>preadv2(2).</summary>
    /// <returns>Bytes read; 0 at the end.</returns>
    public static long Read(in HeldDescriptor file, ReadOnlySpan<IoVector> vectors, long offset, bool noWait = false)
    {
        fixed (IoVector* pointer = vectors)
            return Do(SystemCallNumber.Preadv2, file.Number, (nint)pointer, vectors.Length, (nint)offset, 0, noWait ? NoWait : 0);
    }

    /// <summary>pwritev2(2).</summary>
    /// <param name="file">The file.</param>
    /// <param name="vectors">The bytes.</param>
    /// <param name="offset">Where; it does not count with <see cref="WriteModes.Append"/>.</param>
    /// <param name="how">What else is to happen.</param>
    /// <returns>Bytes written.</returns>
    public static long Write(in HeldDescriptor file, ReadOnlySpan<IoVector> vectors, long offset, WriteModes how = WriteModes.None)
    {
        fixed (IoVector* pointer = vectors)
            return Do(SystemCallNumber.Pwritev2, file.Number, (nint)pointer, vectors.Length, (nint)offset, 0, (nint)how);
    }

    private const int NoWait = 8;   // RWF_NOWAIT of linux/fs.h
}

/// <summary>A lock of a range: struct flock of asm-generic/fcntl.h, 32 bytes.</summary>
[StructLayout(LayoutKind.Sequential, Size = 32)]
public struct RangeLockRequest
{
    /// <summary><see cref="OpenFileIo.ReadLock"/>, <see cref="OpenFileIo.WriteLock"/> or <see cref="OpenFileIo.Unlock"/>.</summary>
    public short Type;

    /// <summary>Always SEEK_SET.</summary>
    public short Whence;

    /// <summary>The first byte.</summary>
    public long Start;

    /// <summary>Bytes; 0 for all up to the end, wherever that will be.</summary>
    public long Length;

    /// <summary>0 in a request; -1 for the owner of a lock of an open file in the answer.</summary>
    public int Process;
}
