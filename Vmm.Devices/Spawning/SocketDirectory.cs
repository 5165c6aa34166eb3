using System.Text;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Spawning;

/// <summary>Where a socket between this process and a back-end of its own is.</summary>
public static class SocketDirectory
{
    private const string Prefix = "vmm-backend-";
    private const int RandomCharacters = 12;   // Path.GetRandomFileName

    /// <summary>Makes a directory that nobody else may look into. It is in the first of these places that takes it, and where a socket's path is
    /// short enough (108 bytes, unix(7)): XDG_RUNTIME_DIR, if it is this user's (XDG Base Directory Specification 0.8), TMPDIR, /tmp, /run.</summary>
    /// <param name="socket">The name of the socket that will be in it.</param>
    /// <returns>Its path.</returns>
    /// <exception cref="ErrnoException">No place takes it; the error is that of the last one.</exception>
    public static string Create(string socket) =>
        Create(socket, [Environment.GetEnvironmentVariable("XDG_RUNTIME_DIR"), Environment.GetEnvironmentVariable("TMPDIR"), "/tmp", "/run"]);

    /// <inheritdoc cref="Create(string)"/>
    internal static string Create(string socket, ReadOnlySpan<string?> places)
    {
        ErrnoException? error = null;
        for (int i = 0; i < places.Length; i++)
        {
            if (places[i] is not { Length: > 0 } place || !Path.IsPathRooted(place) || (i == 0 && !FileKind.IsOwn(place)))
                continue;
            int length = Encoding.UTF8.GetByteCount(place) + 1 + Prefix.Length + RandomCharacters + 1 + socket.Length;
            if (length > UnixSocket.MaxPathBytes)
                continue;
            try
            {
                return PrivateDirectory.Create(place, Prefix);
            }
            catch (ErrnoException e)
            {
                error = e;
            }
        }
        throw error ?? new ErrnoException("cannot make a directory", Errnos.Enoent);
    }
}
