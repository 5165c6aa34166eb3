using System.Net.Sockets;
using System.Text;
using Vmm.Vhost.Native;

namespace Vmm.Serial;

/// <summary>Listens on a Unix socket's path, and takes over one that a process left behind.</summary>
internal static class SocketPath
{
    private const int MaxBytes = 107;   // sun_path of sockaddr_un is 108 bytes with its null (unix(7))
    private const int Backlog = 8;

    /// <summary>Listens on <paramref name="path"/>.</summary>
    /// <param name="path">The socket's path.</param>
    /// <param name="option">Begins every message.</param>
    /// <exception cref="UsageException">The path cannot name a socket.</exception>
    /// <exception cref="VmmException">Somebody listens there, something else is there, or the system refused.</exception>
    public static Socket Listen(string path, string option)
    {
        int length = Encoding.UTF8.GetByteCount(path);
        if (length is 0 or > MaxBytes)
            throw new UsageException($"{option}: a socket's path is 1 to {MaxBytes} bytes long, this one {length}");

        var endPoint = new UnixDomainSocketEndPoint(path);
        RemoveStale(path, endPoint, option);
        var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            listener.Blocking = false;
            listener.Bind(endPoint);
            listener.Listen(Backlog);
            return listener;
        }
        catch (SocketException error)
        {
            listener.Dispose();
            throw new VmmException($"{option}: cannot listen there: {error.Message}", error);
        }
    }

    private static void RemoveStale(string path, UnixDomainSocketEndPoint endPoint, string option)
    {
        if (!FileKind.IsSocket(path))
        {
            if (Path.Exists(path))
                throw new VmmException($"{option}: there is already something else of that name; give another path or remove it");
            return;
        }
        try
        {
            using var probe = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            probe.Blocking = false;   // a full backlog would block
            probe.Connect(endPoint);
        }
        catch (SocketException error) when (error.SocketErrorCode == SocketError.ConnectionRefused)
        {
            Remove(path);   // nobody listens: a process ended without removing it
            return;
        }
        catch (SocketException error) when (error.SocketErrorCode != SocketError.WouldBlock)
        {
            throw new VmmException($"{option}: cannot tell whether it is in use: {error.Message}", error);
        }
        throw new VmmException($"{option}: another process listens there; give another path or stop it");
    }

    /// <summary>Removes the socket's file, if it is there and may be removed.</summary>
    public static void Remove(string path)
    {
        try
        {
            File.Delete(path);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            // What is left is replaced by the next one that listens.
        }
    }
}
