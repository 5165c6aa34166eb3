using Vmm.Vhost.Native;

namespace Vmm.Vhost.User.Backend;

/// <summary>Serves a device to front-ends, one at a time: the next is served when one has gone, and waits until then.</summary>
/// <remarks>All methods may be called from any thread, also from the device's call-backs.</remarks>
public sealed class VhostUserServer : IDisposable
{
    private static readonly BoundedLog s_log = new("Vmm.Vhost.User.Backend");

    private readonly object _lock = new();
    private readonly VhostUserDevice _device;
    private readonly VhostUserEndpoint _endpoint;
    private readonly VhostUserServerOptions _options;
    private readonly PeerDescriptors _received = new();     // of all front-ends: one that connects again and again leaves no more behind
    private readonly EventFd _stop;
    private readonly UnixListener? _listener;
    private readonly bool _hasOneFrontEnd;  // over a socket that was connected already
    private UnixSocket? _inherited;         // that socket, until the front-end is served
    private bool _isServing;
    private bool _isDisposed;

    /// <summary>Gets ready to serve: as a server, a front-end can connect from now on.</summary>
    /// <param name="endpoint">Where the front-end is. An inherited descriptor may be a connected socket or one that listens.</param>
    /// <param name="device">The device; it stays the caller's.</param>
    /// <param name="options">How it is served; as the defaults say when null.</param>
    /// <exception cref="ErrnoException">One cannot listen there, or the path or the descriptor is no such socket.</exception>
    /// <exception cref="ArgumentException">The device says impossible things about itself.</exception>
    public VhostUserServer(VhostUserEndpoint endpoint, VhostUserDevice device, VhostUserServerOptions? options = null)
        : this(endpoint, socket: null, device, options)
    {
    }

    /// <summary>Serves one front-end over a socket that is connected already.</summary>
    /// <param name="socket">The server's from now on; the caller's if this fails.</param>
    /// <param name="device">The device; it stays the caller's.</param>
    /// <param name="options">How it is served; as the defaults say when null.</param>
    /// <exception cref="ArgumentException">The device says impossible things about itself.</exception>
    public VhostUserServer(UnixSocket socket, VhostUserDevice device, VhostUserServerOptions? options = null)
        : this(VhostUserEndpoint.ConnectTo("a socket"), NotNull(socket), device, options)
    {
    }

    private VhostUserServer(VhostUserEndpoint endpoint, UnixSocket? socket, VhostUserDevice device, VhostUserServerOptions? options)
    {
        ArgumentNullException.ThrowIfNull(endpoint);
        ArgumentNullException.ThrowIfNull(device);
        device.ServedAs = device.Name ?? throw new ArgumentException("the device's Name is null", nameof(device));
        if (device.RingCount is < 1 or > 256)
            throw new ArgumentException($"{device.Name}: {device.RingCount} rings are not 1 to 256", nameof(device));
        if (device.RingsPerQueue < 1 || device.RingCount % device.RingsPerQueue != 0)
            throw new ArgumentException($"{device.Name}: {device.RingCount} rings are no multiple of {device.RingsPerQueue} rings for each queue", nameof(device));
        if (device.ConfigSize is < 0 or > BackendSession.MaxConfigSize)
            throw new ArgumentException($"{device.Name}: a configuration of {device.ConfigSize} bytes", nameof(device));
        // Now, because a process that serves may have no way to look.
        if (endpoint.Role == VhostUserSocketRole.Client && socket is null && FileKind.LeadsToOtherThanSocket(endpoint.Path!))
            throw UnixSocket.CannotConnect(endpoint.Path!, Errnos.Enotsock);
        _endpoint = endpoint;
        _device = device;
        _options = options ?? new VhostUserServerOptions();
        _stop = new EventFd();
        try
        {
            if (endpoint.Role == VhostUserSocketRole.Server)
                _listener = UnixListener.Listen(endpoint.Path!);
            else if (endpoint.Role == VhostUserSocketRole.Inherited && UnixListener.IsListening(endpoint.Number))
                _listener = UnixListener.Adopt(endpoint.Number);
            else if (endpoint.Role == VhostUserSocketRole.Inherited)
                _inherited = UnixSocket.Adopt(endpoint.Number);
            else
                _inherited = socket;
            _hasOneFrontEnd = _inherited is not null;
            if (_listener is not null)
                _listener.Peer = _received;
        }
        catch
        {
            _stop.Dispose();
            throw;
        }
    }

    /// <summary>Serves until <see cref="Stop"/>, or until the front-end has gone where there can be no other. Returns at once after
    /// <see cref="Stop"/>, and after the end of the only front-end that there can be.</summary>
    /// <exception cref="ErrnoException">There is no accepting or connecting any more.</exception>
    /// <exception cref="VhostException">The device has ended (<see cref="VhostUserDevice.End"/>).</exception>
    /// <exception cref="InvalidOperationException">It serves already.</exception>
    public void Run()
    {
        Begin();
        RunToTheEnd();
    }

    /// <summary>The same on a thread of its own, which <see cref="Stop"/> waits for. An error that <see cref="Run"/> would throw is logged.</summary>
    /// <exception cref="InvalidOperationException">It serves already.</exception>
    public void Start()
    {
        Begin();
        try
        {
            NativeThread.Start(new Thread(() =>
            {
                try
                {
                    RunToTheEnd();
                }
                catch (Exception e)
                {
                    s_log.Error("{Device}: {Peer}: {Error}: it is served no longer", _device.ServedAs, _endpoint, e.Message);
                }
            })
            { Name = $"{_device.ServedAs} connection", IsBackground = true });
        }
        catch
        {
            End();   // there is no thread to be had
            throw;
        }
    }

    /// <summary>Ends <see cref="Run"/>: rings are stopped, the connection is closed. Waits until that is done, except in a call-back of the
    /// device: there it ends when the call-back has returned. After it the server serves nobody any more.</summary>
    /// <remarks>A call-back must not wait for another thread that calls this.</remarks>
    public void Stop()
    {
        lock (_lock)
        {
            if (!_stop.IsClosed)
                _stop.Signal();
            while (_isServing && !ServingThread.IsOf(_device))
                Monitor.Wait(_lock);
        }
    }

    /// <summary>Stops, as <see cref="Stop"/> does, and gives the socket's path free.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            _isDisposed = true;
            Stop();
            if (!_isServing)
                Free();
        }
    }

    private static UnixSocket NotNull(UnixSocket socket)
    {
        ArgumentNullException.ThrowIfNull(socket);
        return socket;
    }

    private void Begin()
    {
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_isDisposed, this);
            if (_isServing)
                throw new InvalidOperationException($"{_device.ServedAs}: {_endpoint} is served already, by another thread");
            _isServing = true;
        }
    }

    private void End()
    {
        lock (_lock)
        {
            _isServing = false;
            if (_isDisposed)
                Free();
            Monitor.PulseAll(_lock);
        }
    }

    // Under the lock, and nobody serves.
    private void Free()
    {
        _listener?.Dispose();
        _inherited?.Dispose();
        _stop.Dispose();
    }

    private void RunToTheEnd()
    {
        VhostUserDevice? previous = ServingThread.Enter(_device);
        try
        {
            _device.WhenEnded(_stop.Signal);
            _device.ServingBegins();
            ServeAll();
            if (_device.EndReason is string reason)
                throw new VhostException($"{_device.ServedAs}: {reason}");
        }
        finally
        {
            _device.WhenEnded(null);
            ServingThread.Leave(previous);
            End();
        }
    }

    private void ServeAll()
    {
        while (Connect() is UnixSocket socket)
        {
            s_log.Info("{Device}: {Peer}: a front-end is connected", _device.ServedAs, _endpoint);
            bool isLast = _hasOneFrontEnd || _options.ServesOnce;
            _inherited = null;
            Serve(socket);
            if (isLast || Wait(null, _endpoint.Role == VhostUserSocketRole.Client ? _options.ReconnectInterval : TimeSpan.Zero))
                return;
        }
    }

    private void Serve(UnixSocket socket)
    {
        using var connection = new VhostUserConnection(socket, _endpoint.ToString()) { Received = _received };
        try
        {
            using var session = new BackendSession(connection, _device, _options);
            session.Serve(_stop);
        }
        catch (Exception e)
        {
            // The device threw, when it was asked for its queues or when they ended.
            s_log.Error(e, "{Device}: {Peer}: {Reason}: the connection is closed", _device.ServedAs, _endpoint, e.Message);
        }
    }

    // The next front-end; null when it is time to stop.
    private UnixSocket? Connect()
    {
        if (_hasOneFrontEnd)
            return _inherited;
        bool isSilent = false, isFullSilent = false;
        while (true)
        {
            if (!_received.HasRoom)
            {
                if (!isFullSilent)
                    s_log.Warn("{Device}: {Peer}: {Count} descriptors of front-ends are still being closed: no other is served meanwhile", _device.ServedAs, _endpoint, PeerDescriptors.MaxWaiting);
                isFullSilent = true;
                if (Wait(null, _options.ReconnectInterval))
                    return null;
                continue;
            }
            if (_listener is not null && Wait(_listener, Timeout.InfiniteTimeSpan))
                return null;
            UnixSocket? socket = TryConnect(out IOException? error);
            if (socket is not null)
                return socket;
            if (error is null)
                continue;   // whoever has connected has gone again
            if (!isSilent)
                s_log.Warn("{Device}: {Error}: it is tried again", _device.ServedAs, error.Message);
            isSilent = true;
            if (Wait(null, _options.ReconnectInterval))
                return null;
        }
    }

    // Only what no other attempt can mend is thrown: there may be descriptors or memory again.
    private UnixSocket? TryConnect(out IOException? error)
    {
        error = null;
        try
        {
            if (_listener is not null)
                return _listener.TryAccept();
            int errno = UnixSocket.TryConnect(_endpoint.Path!, out UnixSocket? socket);
            if (errno == Errnos.Enotsock)
                throw UnixSocket.CannotConnect(_endpoint.Path!, errno);
            if (socket is null)
                error = UnixSocket.CannotConnect(_endpoint.Path!, errno);
            return socket;
        }
        catch (ErrnoException e) when (!Errnos.IsOfDescriptor(e.Errno) && e.Errno is not (Errnos.Enametoolong or Errnos.Einval))
        {
            error = e;
            return null;
        }
    }

    // Whether it is time to stop; if not, the time has passed or the descriptor is readable.
    private bool Wait(FileDescriptor? descriptor, TimeSpan timeout)
    {
        Span<PollEntry> entries = [new PollEntry(_stop, PollEvents.Readable), new PollEntry(descriptor, PollEvents.Readable)];
        Poll.Wait(entries, timeout == Timeout.InfiniteTimeSpan ? -1 : (int)Math.Min(Math.Ceiling(timeout.TotalMilliseconds), int.MaxValue));
        return entries[0].Happened != PollEvents.None;
    }
}
