using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>The error numbers that code above this folder decides by (errno(3)); Linux numbers, the same on x86-64 and arm64.</summary>
public static class Errnos
{
    /// <summary>Operation not permitted.</summary>
    public const int Eperm = 1;

    /// <summary>No such file or directory.</summary>
    public const int Enoent = 2;

    /// <summary>Interrupted system call.</summary>
    public const int Eintr = 4;

    /// <summary>Input/output error.</summary>
    public const int Eio = 5;

    /// <summary>No such device or address.</summary>
    public const int Enxio = 6;

    /// <summary>Bad file descriptor.</summary>
    public const int Ebadf = 9;

    /// <summary>Resource temporarily unavailable.</summary>
    public const int Eagain = 11;

    /// <summary>Out of memory.</summary>
    public const int Enomem = 12;

    /// <summary>Permission denied.</summary>
    public const int Eacces = 13;

    /// <summary>Bad address.</summary>
    public const int Efault = 14;

    /// <summary>Device or resource busy.</summary>
    public const int Ebusy = 16;

    /// <summary>File exists.</summary>
    public const int Eexist = 17;

    /// <summary>No such device.</summary>
    public const int Enodev = 19;

    /// <summary>Two owners of locks would wait for each other.</summary>
    public const int Edeadlk = 35;

    /// <summary>A part of a path is not a directory.</summary>
    public const int Enotdir = 20;

    /// <summary>Invalid argument.</summary>
    public const int Einval = 22;

    /// <summary>Too many open files in the system.</summary>
    public const int Enfile = 23;

    /// <summary>Too many open files.</summary>
    public const int Emfile = 24;

    /// <summary>Too many levels of symbolic links, or one where none may be.</summary>
    public const int Eloop = 40;

    /// <summary>Inappropriate ioctl for device.</summary>
    public const int Enotty = 25;

    /// <summary>File too large.</summary>
    public const int Efbig = 27;

    /// <summary>No space left on device.</summary>
    public const int Enospc = 28;

    /// <summary>No locks available.</summary>
    public const int Enolck = 37;

    /// <summary>Function not implemented.</summary>
    public const int Enosys = 38;

    /// <summary>Argument list too long.</summary>
    public const int E2big = 7;

    /// <summary>Text file busy: a program that is being executed.</summary>
    public const int Etxtbsy = 26;

    /// <summary>Read-only file system.</summary>
    public const int Erofs = 30;

    /// <summary>Result too large for the room that there is.</summary>
    public const int Erange = 34;

    /// <summary>No data: of an extended attribute that is not there.</summary>
    public const int Enodata = 61;

    /// <summary>Protocol error.</summary>
    public const int Eproto = 71;

    /// <summary>Stale file handle: it meant a file that is gone.</summary>
    public const int Estale = 116;

    /// <summary>Is a directory.</summary>
    public const int Eisdir = 21;

    /// <summary>File name too long.</summary>
    public const int Enametoolong = 36;

    /// <summary>Broken pipe.</summary>
    public const int Epipe = 32;

    /// <summary>Operation not supported.</summary>
    public const int Eopnotsupp = 95;

    /// <summary>Address already in use.</summary>
    public const int Eaddrinuse = 98;

    /// <summary>Software caused connection abort.</summary>
    public const int Econnaborted = 103;

    /// <summary>Connection reset by peer.</summary>
    public const int Econnreset = 104;

    /// <summary>No buffer space available.</summary>
    public const int Enobufs = 105;

    /// <summary>Not a socket.</summary>
    public const int Enotsock = 88;

    /// <summary>Connection timed out.</summary>
    public const int Etimedout = 110;

    /// <summary>Connection refused.</summary>
    public const int Econnrefused = 111;

    /// <summary>File descriptor in bad state: of a tap whose interface was deleted.</summary>
    public const int Ebadfd = 77;

    /// <summary>errno as the last call through Tmds.LibC on this thread left it.</summary>
    internal static int Last => LibC.errno;

    /// <summary>The operation was given up before it began.</summary>
    public const int Ecanceled = 125;

    /// <summary>Whether a read or an accept that failed with <paramref name="errno"/> fails for ever: it is the descriptor that is not what it should
    /// be. All other errors are of the moment (of the network, of resources, of a device that is busy), and the next attempt may work.</summary>
    public static bool IsOfDescriptor(int errno) => errno is Ebadf or Ebadfd or Enotsock or Eisdir or Einval;

    /// <summary>What error <paramref name="number"/> means, in the C library's words.</summary>
    public static string Describe(int number) => System.Runtime.InteropServices.Marshal.GetPInvokeErrorMessage(number);
}
