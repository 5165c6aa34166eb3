using System.Text;
using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>The host's log (syslog(3)), which a daemon reads from a socket. It is written to without the C library's functions: those connect late and again, which a process that
/// is confined cannot.</summary>
public sealed unsafe class SystemLog : FileDescriptor
{
    /// <summary>Where the socket is.</summary>
    public const string Place = "/dev/log";

    private const int UserFacility = 1 << 3;        // LOG_USER of syslog.h
    private const int MaxBytes = 8192;              // what daemons take at least

    private readonly string _sender;

    private SystemLog(int fd, string sender)
        : base(fd) => _sender = sender;

    /// <summary>Connects to the daemon.</summary>
    /// <param name="name">By what name lines are told apart.</param>
    /// <param name="path">Where the socket is.</param>
    /// <returns>Null where there is none.</returns>
    public static SystemLog? TryConnect(string name, string path = Place)
    {
        sockaddr_un address = UnixSocket.Address(path, out uint length);
        int fd = LibC.socket(LibC.AF_UNIX, LibC.SOCK_DGRAM | LibC.SOCK_CLOEXEC | LibC.SOCK_NONBLOCK, 0);
        if (fd < 0)
            return null;
        var log = new SystemLog(fd, $"{name}[{Environment.ProcessId}]");
        // SAFETY: a structure on the stack, of the length that is said.
        if (LibC.connect(fd, (sockaddr*)&address, length) == 0)
            return log;
        log.Dispose();
        return null;
    }

    /// <summary>Writes a line. It is lost where the daemon has ended, or does not keep up: nothing here waits for it.</summary>
    /// <param name="severity">0 to 7: LOG_EMERG to LOG_DEBUG.</param>
    /// <param name="line">The line, without its end.</param>
    public void Write(int severity, string line)
    {
        byte[] bytes = Encoding.UTF8.GetBytes($"<{UserFacility | severity}>{_sender}: {line}");
        using HeldDescriptor held = Hold();
        fixed (byte* start = bytes)
        {
            // SAFETY: pinned, and at least as long as is said.
            _ = LibC.write(held.Number, start, Math.Min(bytes.Length, MaxBytes));
        }
    }
}
