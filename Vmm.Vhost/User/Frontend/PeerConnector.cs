using System.Diagnostics;
using Vmm.Vhost.Native;

namespace Vmm.Vhost.User.Frontend;

/// <summary>Gets connections to a back-end, whoever connects to whom.</summary>
internal sealed class PeerConnector : IDisposable
{
    /// <summary>How often it is tried to connect to one that does not listen.</summary>
    public static readonly TimeSpan RetryInterval = TimeSpan.FromMilliseconds(25);

    private readonly VhostUserEndpoint _endpoint;
    private readonly string _peer;
    private readonly SocketConnector _connect;
    private readonly PeerDescriptors _received;
    private bool _inheritedTaken;

    /// <summary>Listens, if it is the back-end that connects.</summary>
    /// <param name="endpoint">Where the back-end is.</param>
    /// <param name="peer">What it is called in messages.</param>
    /// <param name="connect">What connects; null for this process.</param>
    /// <param name="received">What closes what the back-end sends; null for one of its own.</param>
    /// <exception cref="VhostException">The path cannot be listened on.</exception>
    public PeerConnector(VhostUserEndpoint endpoint, string peer, SocketConnector? connect = null, PeerDescriptors? received = null)
    {
        _received = received ?? new PeerDescriptors();
        _endpoint = endpoint;
        _peer = peer;
        _connect = connect ?? UnixSocket.TryConnect;
        if (endpoint.Role != VhostUserSocketRole.Server)
            return;
        try
        {
            Listener = UnixListener.Listen(endpoint.Path!);
            Listener.Peer = _received;
        }
        catch (ErrnoException e)
        {
            throw new VhostException($"{peer}: {e.Message}", e);
        }
    }

    /// <summary>Readable when the back-end has connected; null where this side connects.</summary>
    public UnixListener? Listener { get; }

    /// <summary>Whether there can be another connection after the first.</summary>
    public bool CanReconnect => _endpoint.Role != VhostUserSocketRole.Inherited;

    /// <summary>Takes a connection if one is to be had now.</summary>
    /// <exception cref="VhostException">None ever will be.</exception>
    public UnixSocket? TryConnect()
    {
        UnixSocket? socket = TryConnectOnce();
        // Whoever does not want it after all closes it as it is to be closed.
        if (socket is not null)
            socket.Peer = _received;
        return socket;
    }

    private UnixSocket? TryConnectOnce()
    {
        try
        {
            switch (_endpoint.Role)
            {
                case VhostUserSocketRole.Server:
                    return Listener!.TryAccept();
                case VhostUserSocketRole.Inherited:
                    if (_inheritedTaken)
                        return null;
                    _inheritedTaken = true;
                    return UnixSocket.Adopt(_endpoint.Number);
                default:
                    int error = _connect(_endpoint.Path!, out UnixSocket? socket);
                    // Not there yet, left behind by one that is gone, or busy.
                    return error is 0 or Errnos.Enoent or Errnos.Econnrefused or Errnos.Eagain
                        ? socket
                        : throw UnixSocket.CannotConnect(_endpoint.Path!, error);
            }
        }
        catch (ErrnoException e)
        {
            throw new VhostException($"{_peer}: {e.Message}", e);
        }
    }

    /// <summary>Waits for a connection.</summary>
    /// <param name="timeout">For how long.</param>
    /// <param name="peerEnded">Readable once the process that is to be the back-end has ended, which ends the wait; null where nobody can tell.</param>
    /// <param name="cancellation">Ends the wait.</param>
    /// <exception cref="VhostException">None came in time, or none ever will.</exception>
    /// <exception cref="OperationCanceledException">None came before <paramref name="cancellation"/>.</exception>
    public UnixSocket Connect(TimeSpan timeout, FileDescriptor? peerEnded = null, CancellationToken cancellation = default)
    {
        long start = Stopwatch.GetTimestamp();
        using var cancelled = new EventFd();
        using CancellationTokenRegistration registration = cancellation.UnsafeRegister(_ => cancelled.Signal(), null);
        while (true)
        {
            cancellation.ThrowIfCancellationRequested();
            // Looked at before the attempt: the process may have left its socket to one of its children.
            bool hasEnded = peerEnded is not null && Poll.Wait([new PollEntry(peerEnded, PollEvents.Readable)], 0) > 0;
            if (TryConnect() is { } socket)
                return socket;
            if (hasEnded)
                throw new VhostException($"{_peer}: the process that was started as the back-end has ended");
            bool isForEver = timeout == Timeout.InfiniteTimeSpan;
            TimeSpan left = timeout - Stopwatch.GetElapsedTime(start);
            if (!isForEver && left <= TimeSpan.Zero)
            {
                string advice = Listener is null ? "nobody listens there: start the back-end, or is it another path?" : "nobody has connected: start the back-end";
                throw new VhostException($"{_peer}: no back-end within {timeout.TotalSeconds:0.###} s: {advice}");
            }
            TimeSpan wait = Listener is null ? RetryInterval : TimeSpan.FromSeconds(1);
            if (!isForEver && left < wait)
                wait = left;
            Poll.Wait(
                [new PollEntry(cancelled, PollEvents.Readable), new PollEntry(Listener, PollEvents.Readable), new PollEntry(peerEnded, PollEvents.Readable)],
                (int)Math.Ceiling(wait.TotalMilliseconds));
        }
    }

    /// <summary>Stops listening.</summary>
    public void Dispose() => Listener?.Dispose();
}
