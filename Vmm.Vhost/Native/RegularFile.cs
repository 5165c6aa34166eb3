using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>A regular file opened for reading. Unlike File.OpenHandle it takes no advisory lock, and unlike open(2) alone it never
/// waits: a FIFO or a device in the file's place is refused.</summary>
public sealed class RegularFile : FileDescriptor
{
    private const ulong MaxRead = 1 << 30;   // read(2) transfers at most 2 GiB - 4 KiB a call

    private RegularFile(int fd)
        : base(fd)
    {
    }

    /// <summary>The file's size in bytes when it was opened.</summary>
    public ulong Length { get; private set; }

    /// <summary>Opens the file at <paramref name="path"/>.</summary>
    /// <exception cref="ErrnoException">It cannot be opened.</exception>
    /// <exception cref="InvalidDataException">It is not a regular file; the message says what it is ("is a directory").</exception>
    public static unsafe RegularFile OpenRead(string path)
    {
        int number;
        fixed (byte* name = NullTerminated(path))
        {
            // SAFETY: the name is null-terminated and pinned. O_NONBLOCK: opening a FIFO would wait for a writer otherwise.
            number = LibC.open(name, LibC.O_RDONLY | LibC.O_CLOEXEC | LibC.O_NONBLOCK | LibC.O_NOCTTY);
        }
        if (number < 0)
            throw ErrnoException.FromLastError($"cannot open {path}");

        var file = new RegularFile(number);
        try
        {
            stat status;
            // SAFETY: a struct on the stack, of the size the library declares.
            if (LibC.fstat(number, &status) < 0)
                throw ErrnoException.FromLastError($"fstat({path})");
            if (!LibC.S_ISREG(status.st_mode))
                throw new InvalidDataException(Kind(status.st_mode));
            file.Length = (ulong)(long)status.st_size;
            return file;
        }
        catch
        {
            file.Dispose();
            throw;
        }
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

    private static string Kind(mode_t mode) => mode switch
    {
        _ when LibC.S_ISDIR(mode) => "is a directory",
        _ when LibC.S_ISFIFO(mode) => "is a FIFO",
        _ when LibC.S_ISSOCK(mode) => "is a socket",
        _ when LibC.S_ISBLK(mode) => "is a block device",
        _ => "is a character device",
    };
}
