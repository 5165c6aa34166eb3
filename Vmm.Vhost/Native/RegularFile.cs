using Tmds.Linux;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Vhost.Native;

/// <summary>A regular file opened for reading. Unlike File.OpenHandle it takes no advisory lock, and unlike open(2) alone it never
/// waits: a FIFO or a device in the file's place is refused, and is not opened.</summary>
public sealed class RegularFile : FileDescriptor
{
    private const ulong MaxRead = 1 << 30;   // read(2) transfers at most 2 GiB - 4 KiB a call

    private RegularFile(int fd)
        : base(fd)
    {
    }

    /// <summary>The file's size in bytes when it was opened.</summary>
    public ulong Length { get; private set; }

    /// <summary>Whether, when it was opened in its directory, it belonged to the user that this process acts as, and nobody else might write to it.</summary>
    public bool IsOwn { get; private set; }

    /// <summary>The same for a file of this process's user or of root; see <see cref="FileOwner.IsTrusted(in FileStatus, bool)"/>.</summary>
    public bool IsTrusted { get; private set; }

    /// <summary>Opens the file at <paramref name="path"/>.</summary>
    /// <exception cref="ErrnoException">It cannot be opened.</exception>
    /// <exception cref="InvalidDataException">It is not a regular file; the message says what it is ("is a directory").</exception>
    public static unsafe RegularFile OpenRead(string path)
    {
        int number;
        fixed (byte* name = NullTerminated(path))
        {
            // SAFETY: the name is null-terminated and pinned.
            number = LibC.open(name, FileTree.PathOnly | LibC.O_CLOEXEC);
        }
        return number >= 0 ? Open(number, path, isFullPath: true) : throw ErrnoException.FromLastError($"cannot open {path}");
    }

    /// <summary>Opens the file <paramref name="name"/> of <paramref name="directory"/>; a symbolic link in its place is refused.</summary>
    /// <exception cref="ErrnoException">It cannot be opened.</exception>
    /// <exception cref="InvalidDataException">It is not a regular file; the message says what it is.</exception>
    public static RegularFile OpenRead(FileDescriptor directory, string name)
    {
        using HeldDescriptor held = directory.Hold();
        int number = FileTree.Open(held, NullTerminated(name), FileTree.PathOnly);
        RegularFile file = number >= 0 ? Open(number, name) : throw new ErrnoException($"cannot open {name}", -number);
        using HeldDescriptor heldFile = file.Hold();
        bool hasStatus = FileTree.GetStatus(heldFile, out FileStatus status) == 0;
        file.IsOwn = hasStatus && FileOwner.IsOwn(status.UserId, status.Mode);
        file.IsTrusted = hasStatus && FileOwner.IsTrusted(status);
        return file;
    }

    /// <summary>Opens what <paramref name="path"/>, of any number of components, names below <paramref name="directory"/>; a symbolic link on the way or in its place is refused (ELOOP).</summary>
    /// <exception cref="ErrnoException">It cannot be opened.</exception>
    /// <exception cref="InvalidDataException">It is not a regular file; the message says what it is.</exception>
    public static RegularFile OpenBeneath(string directory, string path)
    {
        using FileDescriptor place = FileTree.OpenDirectory(directory);
        using HeldDescriptor held = place.Hold();
        int number = FileTree.OpenBeneath(held, NullTerminated(path), FileTree.PathOnly);
        return number >= 0 ? Open(number, path) : throw new ErrnoException($"cannot open {path}", -number);
    }

    /// <summary>Which file this is, and in which version, as far as the kernel tells.</summary>
    /// <exception cref="ErrnoException">fstat(2) failed.</exception>
    public FileVersion ReadVersion()
    {
        using HeldDescriptor held = Hold();
        stat status = ReadStatus(held.Number);
        return new FileVersion(
            (ulong)status.st_dev, (ulong)status.st_ino, (ulong)(long)status.st_size, Time(status.st_mtim), Time(status.st_ctim));

        static FileTime Time(timespec time) => new((long)time.tv_sec, (uint)(long)time.tv_nsec);
    }

    /// <summary>Reads from <paramref name="offset"/> until <paramref name="target"/> is full or the file ends.</summary>
    /// <returns>The bytes read.</returns>
    /// <exception cref="ErrnoException">pread(2) failed.</exception>
    public unsafe int Read(Span<byte> target, ulong offset)
    {
        int done = 0;
        using HeldDescriptor held = Hold();
        while (done < target.Length)
        {
            nint count;
            // SAFETY: pinned for the call, which writes at most the bytes that are left.
            fixed (byte* pointer = target[done..])
                count = (nint)LibC.pread(held.Number, pointer, (size_t)Math.Min((ulong)(target.Length - done), MaxRead), (long)offset + done);
            if (count == 0)
                break;
            if (count > 0)
                done += (int)count;
            else if (Errnos.Last != Errnos.Eintr)
                throw ErrnoException.FromLastError("pread");
        }
        return done;
    }

    /// <summary>Maps the whole file for reading. It must not be empty, and at most 2 GiB - 1 long.</summary>
    /// <exception cref="ErrnoException">mmap(2) failed.</exception>
    public MappedFile Map() => new(MemoryMapping.Map(this, checked((uint)(int)Length), MappingAccess.PrivateReadOnly));

    // The file is looked at before it is opened: to open a watchdog starts its timer, and to open a FIFO lets a process go on that waits at its other end. Its entry in /proc/self/fd is the same file,
    // whatever has come into its place meanwhile. The number is closed here.
    private static unsafe RegularFile Open(int pathOnly, string path, bool isFullPath = false)
    {
        using var place = new FileDescriptor(pathOnly);
        stat status = ReadStatus(pathOnly);
        if (LibC.S_ISLNK(status.st_mode))
            throw new ErrnoException($"cannot open {path}", Errnos.Eloop);
        if (!LibC.S_ISREG(status.st_mode))
            throw new InvalidDataException(Kind(status.st_mode));
        int number;
        fixed (byte* name = NullTerminated($"/proc/self/fd/{pathOnly}"))
        {
            // SAFETY: the name is null-terminated and pinned. O_NONBLOCK: opening a file for which somebody has a lease would wait otherwise.
            number = LibC.open(name, LibC.O_RDONLY | LibC.O_CLOEXEC | LibC.O_NONBLOCK | LibC.O_NOCTTY);
        }
        if (number < 0 && Errnos.Last == Errnos.Enoent && isFullPath)
            number = OpenSame(path, in status);     // there is no /proc here
        return number >= 0 ? new RegularFile(number) { Length = (ulong)(long)status.st_size } : throw ErrnoException.FromLastError($"cannot open {path}");
    }

    // The file at the path, if it is the one that was looked at; or -1.
    private static unsafe int OpenSame(string path, in stat status)
    {
        fixed (byte* name = NullTerminated(path))
        {
            // SAFETY: as above.
            int number = LibC.open(name, LibC.O_RDONLY | LibC.O_CLOEXEC | LibC.O_NONBLOCK | LibC.O_NOCTTY);
            if (number < 0)
                return number;
            stat other;
            // SAFETY: a struct on the stack, of the size the library declares.
            if (LibC.fstat(number, &other) == 0 && (ulong)other.st_dev == (ulong)status.st_dev && (ulong)other.st_ino == (ulong)status.st_ino)
                return number;
            _ = LibC.close(number);
            throw new ErrnoException($"{path} is another file now", Errnos.Estale);
        }
    }

    private static unsafe stat ReadStatus(int number)
    {
        stat status;
        // SAFETY: a struct on the stack, of the size the library declares.
        return LibC.fstat(number, &status) == 0 ? status : throw ErrnoException.FromLastError("fstat");
    }

    private static string Kind(mode_t mode) => mode switch
    {
        _ when LibC.S_ISDIR(mode) => "is a directory",
        _ when LibC.S_ISFIFO(mode) => "is a FIFO",
        _ when LibC.S_ISSOCK(mode) => "is a socket",
        _ when LibC.S_ISBLK(mode) => "is a block device",
        _ => "is a character device",
    };
}
