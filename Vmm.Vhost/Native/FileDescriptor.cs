using System.Runtime.InteropServices;
using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>An open file descriptor, closed when disposed or collected. Every descriptor made here is close-on-exec.</summary>
public class FileDescriptor : SafeHandle
{
    /// <summary>The request by which <see cref="SetNonBlocking"/> does it. fcntl(F_SETFL) changes more than that, and a confined process may not.</summary>
    public static readonly IoctlRequest NonBlockingRequest = new(0x5421, "FIONBIO");

    /// <summary>Adopts <paramref name="fd"/>: from now on this object closes it.</summary>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="fd"/> is negative.</exception>
    public FileDescriptor(int fd)
        : this(fd, ownsHandle: true)
    {
    }

    /// <summary>Adopts <paramref name="fd"/>, and closes it only if <paramref name="ownsHandle"/> is set (0, 1 and 2 belong to the process).</summary>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="fd"/> is negative.</exception>
    public FileDescriptor(int fd, bool ownsHandle)
        : base(-1, ownsHandle)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(fd);
        SetHandle(fd);
    }

    /// <inheritdoc/>
    public override bool IsInvalid => handle < 0;

    /// <summary>The number, for a message or a log. For a system call use <see cref="Hold"/>: another thread may close this descriptor, and the
    /// kernel gives its number to the next file that the process opens.</summary>
    /// <exception cref="ObjectDisposedException">It is closed.</exception>
    public int Number
    {
        get
        {
            ObjectDisposedException.ThrowIf(IsClosed, this);
            return (int)handle;
        }
    }

    /// <summary>Keeps the descriptor open until the result is disposed, whoever disposes of this object meanwhile. For every system call that
    /// takes the number itself. Allocates nothing.</summary>
    /// <exception cref="ObjectDisposedException">It is closed.</exception>
    public HeldDescriptor Hold() => new(this);

    /// <summary>Opens a device or file by open(2). Unlike File.OpenHandle it takes no advisory lock, which devices refuse or misread,
    /// and a terminal never becomes the controlling terminal of the process.</summary>
    /// <param name="path">The path.</param>
    /// <param name="mode">How the file is opened; close-on-exec is always added.</param>
    /// <param name="advice">What the user can do if this fails; appended to the error.</param>
    /// <exception cref="ErrnoException">open(2) failed.</exception>
    public static unsafe FileDescriptor Open(string path, OpenMode mode, string? advice = null)
    {
        int flags = LibC.O_CLOEXEC | LibC.O_NOCTTY | mode switch
        {
            OpenMode.ReadOnly => LibC.O_RDONLY,
            OpenMode.ReadWrite => LibC.O_RDWR,
            OpenMode.ReadWriteNonBlocking => LibC.O_RDWR | LibC.O_NONBLOCK,
            OpenMode.ReadNonBlocking => LibC.O_RDONLY | LibC.O_NONBLOCK,
            OpenMode.WriteNonBlocking => LibC.O_WRONLY | LibC.O_NONBLOCK,
            OpenMode.CreateTruncate => LibC.O_WRONLY | LibC.O_CREAT | LibC.O_TRUNC | LibC.O_NONBLOCK,   // a FIFO may have no reader
            OpenMode.CreateAppend => LibC.O_WRONLY | LibC.O_CREAT | LibC.O_APPEND | LibC.O_NONBLOCK,
            _ => throw new ArgumentOutOfRangeException(nameof(mode)),
        };
        byte[] name = NullTerminated(path);
        fixed (byte* pointer = name)
        {
            // SAFETY: the buffer is null-terminated and pinned for the call.
            int fd = LibC.open(pointer, flags, 0x1A4 /* 0644 */);
            if (fd < 0)
            {
                int errno = Errnos.Last;
                bool isForOutput = mode is OpenMode.CreateTruncate or OpenMode.CreateAppend;
                throw new ErrnoException($"cannot open {path}", errno, advice ?? (isForOutput ? OutputAdvice(path, errno) : null));
            }
            // Only the opening was not to wait.
            if (mode is OpenMode.CreateTruncate or OpenMode.CreateAppend)
                _ = LibC.fcntl(fd, LibC.F_SETFL, flags & ~LibC.O_NONBLOCK);
            return new FileDescriptor(fd);
        }
    }

    private static string? OutputAdvice(string path, int errno) => errno switch
    {
        Errnos.Enoent => "make its directory first, or give another path",
        Errnos.Eisdir => "give the path of a file",
        Errnos.Eacces or Errnos.Eperm or Errnos.Erofs => "give a path where this user may write",
        Errnos.Enxio when FileKind.IsCharacterDevice(path) => "there is no such device or terminal for this process: give another path",
        Errnos.Enxio => "it is a FIFO that nobody reads, or a socket: start the reader first, or give another path",
        _ => null,
    };

    /// <summary>Whether descriptor <paramref name="number"/> is open and close-on-exec, as all are that this process has opened: an inherited one is not.</summary>
    public static bool IsCloseOnExec(int number)
    {
        int flags = LibC.fcntl(number, LibC.F_GETFD);
        return flags >= 0 && (flags & LibC.FD_CLOEXEC) != 0;
    }

    /// <summary>Makes reads and writes return at once with EAGAIN where they would wait; for everybody who has this description.</summary>
    /// <exception cref="ErrnoException">fcntl(2) failed.</exception>
    public void SetNonBlocking()
    {
        int isOn = 1;
        Ioctl.Call(this, NonBlockingRequest, ref isOn);
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => LibC.close((int)handle) == 0;

    /// <summary>Gives the number away, to an object of another type. This one is closed from now on, and the descriptor is open.</summary>
    /// <exception cref="ObjectDisposedException">It is closed.</exception>
    internal int Detach()
    {
        int number = Number;
        SetHandleAsInvalid();
        return number;
    }

    internal static byte[] NullTerminated(string text)
    {
        byte[] bytes = ByteText.Encode(text);
        Array.Resize(ref bytes, bytes.Length + 1);
        return bytes;
    }
}

/// <summary>How <see cref="FileDescriptor.Open"/> opens a file.</summary>
public enum OpenMode
{
    /// <summary>For reading.</summary>
    ReadOnly,

    /// <summary>For reading and writing.</summary>
    ReadWrite,

    /// <summary>For reading and writing, without ever waiting.</summary>
    ReadWriteNonBlocking,

    /// <summary>For reading, without ever waiting.</summary>
    ReadNonBlocking,

    /// <summary>For writing, without ever waiting. A FIFO that nobody reads is an error.</summary>
    WriteNonBlocking,

    /// <summary>For writing; created if missing, emptied if not.</summary>
    CreateTruncate,

    /// <summary>For writing at the end, wherever that is at each write (O_APPEND); created if missing.</summary>
    CreateAppend,
}
