using NLog;
using Vmm.Vhost.Native;

namespace Vmm.Vhost.User.Backend;

/// <summary>Serves a device to front-ends, one at a time: the next is served when one has gone, and waits until then.</summary>
public sealed class VhostUserServer : IDisposable
{
    private static readonly Logger s_log = LogManager.GetLogger("Vmm.Vhost.User.Backend");

    private readonly VhostUserDevice _device;
    private readonly VhostUserEndpoint _endpoint;
    private readonly VhostUserServerOptions _options;
    private readonly EventFd _stop = new();
    private readonly UnixListener? _listener;
    private UnixSocket? _inherited;
    private Thread? _thread;

    /// <summary>Gets ready to serve: as a server, a front-end can connect from now on.</summary>
    /// <param name="endpoint">Where the front-end is. An inherited descriptor may be a connected socket or one that listens.</param>
    /// <param name="device">The device; it stays the caller's.</param>
    /// <param name="options">How it is served; as the defaults say when null.</param>
    /// <exception cref="ErrnoException">One cannot listen there, or the descriptor is no such socket.</exception>
    /// <exception cref="ArgumentException">The device says impossible things about itself.</exception>
    public VhostUserServer(VhostUserEndpoint endpoint, VhostUserDevice device, VhostUserServerOptions? options = null)
    {
        if (device.QueueCount is < 1 or > 256)
            throw new ArgumentException($"{device.Name}: {device.QueueCount} queues are not 1 to 256", nameof(device));
        if (device.ConfigSize is < 0 or > BackendSession.MaxConfigSize)
            throw new ArgumentException($"{device.Name}: a configuration of {device.ConfigSize} bytes", nameof(device));
        _endpoint = endpoint;
        _device = device;
        _options = options ?? new VhostUserServerOptions();
        if (endpoint.Role == VhostUserSocketRole.Server)
            _listener = UnixListener.Listen(endpoint.Path!);
        else if (endpoint.Role == VhostUserSocketRole.Inherited && UnixListener.IsListening(endpoint.Number))
            _listener = UnixListener.Adopt(endpoint.Number);
        else if (endpoint.Role == VhostUserSocketRole.Inherited)
            _inherited = UnixSocket.Adopt(endpoint.Number);
    }

    /// <summary>Serves one front-end over a socket that is connected already.</summary>
    public VhostUserServer(UnixSocket socket, VhostUserDevice device, VhostUserServerOptions? options = null)
        : this(VhostUserEndpoint.ConnectTo("a socket"), device, options) => _inherited = socket;

    /// <summary>Serves until <see cref="Stop"/>, or until the front-end has gone where there can be no other.</summary>
    /// <exception cref="ErrnoException">There is no accepting or connecting any more.</exception>
    public void Run()
    {
        while (Connect() is UnixSocket socket)
        {
            s_log.Info("{Device}: {Peer}: a front-end is connected", _device.Name, _endpoint);
            bool isLast = _inherited is not null || _options.ServesOnce;
            _inherited = null;
            using (var session = new BackendSession(new VhostUserConnection(socket, _endpoint.ToString()), _device, _options))
                session.Serve(_stop);
            if (isLast || Wait(null, _endpoint.Role == VhostUserSocketRole.Client ? _options.ReconnectInterval : TimeSpan.Zero))
                return;
        }
    }

    /// <summary>The same on a thread of its own, which <see cref="Stop"/> waits for.</summary>
    public void Start()
    {
        _thread = new Thread(() =>
        {
            try
            {
                Run();
            }
            catch (IOException e)
            {
                s_log.Error("{Device}: {Peer}: {Error}: it is served no longer", _device.Name, _endpoint, e.Message);
            }
        })
        { Name = $"{_device.Name} connection", IsBackground = true };
        _thread.Start();
    }

    /// <summary>Ends <see cref="Run"/> soon, from any thread: rings are stopped, the connection is closed.</summary>
    public void Stop()
    {
        _stop.Signal();
        _thread?.Join();
    }

    /// <summary>Stops, and gives the socket's path free.</summary>
    public void Dispose()
    {
        Stop();
        _listener?.Dispose();
        _inherited?.Dispose();
        _stop.Dispose();
    }

    // The next front-end; null when it is time to stop.
    private UnixSocket? Connect()
    {
        if (_inherited is not null)
            return _inherited;
        bool isSilent = false;
        while (true)
        {
            UnixSocket? socket;
            if (_listener is not null)
            {
                if (Wait(_listener, Timeout.InfiniteTimeSpan))
                    return null;
                socket = _listener.TryAccept();
            }
            else
            {
                int error = UnixSocket.TryConnect(_endpoint.Path!, out socket);
                if (error == Errnos.Enotsock)
                    throw UnixSocket.CannotConnect(_endpoint.Path!, error);
                if (socket is null && !isSilent)
                    s_log.Warn("{Device}: {Error}: trying on", _device.Name, UnixSocket.CannotConnect(_endpoint.Path!, error).Message);
                isSilent = true;
                if (socket is null && Wait(null, _options.ReconnectInterval))
                    return null;
            }
            if (socket is not null)
                return socket;
        }
    }

    // Whether it is time to stop; if not, the time has passed or the descriptor is readable.
    private bool Wait(FileDescriptor? descriptor, TimeSpan timeout)
    {
        Span<PollEntry> entries = [new PollEntry(_stop, PollEvents.Readable), new PollEntry(descriptor, PollEvents.Readable)];
        Poll.Wait(entries, timeout == Timeout.InfiniteTimeSpan ? -1 : (int)timeout.TotalMilliseconds);
        return entries[0].Happened != PollEvents.None;
    }
}
