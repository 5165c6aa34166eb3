using System.Runtime.InteropServices;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Frontend;

/// <summary>The channel on which a back-end makes requests of its own (<see cref="VhostUserSession.SetBackendRequestSocket"/>). Whoever has
/// it waits for <see cref="Socket"/> to be readable and calls <see cref="Serve()"/>, on one thread.</summary>
public sealed class BackendRequestReceiver : IDisposable
{
    private static readonly BoundedLog s_log = new("Vmm.Vhost.User");
    private static readonly TimeSpan s_deadline = TimeSpan.FromSeconds(5);

    private readonly Lock _ending = new();
    private readonly VhostUserConnection _connection;
    private readonly VhostUserProtocolFeatures _agreed;
    private readonly IVhostUserBackendRequests _handler;
    private bool _serving;
    private bool _closed;

    private BackendRequestReceiver(
        VhostUserConnection connection, VhostUserProtocolFeatures agreed, IVhostUserBackendRequests handler)
    {
        _connection = connection;
        _agreed = agreed;
        _handler = handler;
    }

    /// <summary>Our end, to be waited for.</summary>
    public UnixSocket Socket => _connection.Socket;

    /// <summary>Makes a channel.</summary>
    /// <param name="peer">What the back-end is called in messages.</param>
    /// <param name="agreed">The protocol features that were agreed on.</param>
    /// <param name="handler">What does as it is asked.</param>
    /// <param name="theirs">The back-end's end, the caller's to send and close.</param>
    /// <exception cref="ErrnoException">There are no sockets to be had.</exception>
    public static BackendRequestReceiver Create(
        string peer, VhostUserProtocolFeatures agreed, IVhostUserBackendRequests handler, out FileDescriptor theirs) =>
        Create(peer, agreed, handler, new PeerDescriptors(), out theirs);

    /// <summary>The same.</summary>
    /// <param name="peer">What the back-end is called in messages.</param>
    /// <param name="agreed">The protocol features that were agreed on.</param>
    /// <param name="handler">What does as it is asked.</param>
    /// <param name="received">What closes the descriptors that come from the back-end.</param>
    /// <param name="theirs">The back-end's end, the caller's to send and close.</param>
    /// <exception cref="ErrnoException">There are no sockets to be had.</exception>
    internal static BackendRequestReceiver Create(
        string peer, VhostUserProtocolFeatures agreed, IVhostUserBackendRequests handler, PeerDescriptors received, out FileDescriptor theirs)
    {
        ArgumentNullException.ThrowIfNull(peer);
        ArgumentNullException.ThrowIfNull(handler);
        (UnixSocket ours, UnixSocket other) = UnixSocket.Pair();
        theirs = other;
        return new BackendRequestReceiver(new VhostUserConnection(ours, $"{peer} (its requests)") { Received = received }, agreed, handler);
    }

    /// <summary>Receives a request, if one is there, has it done, and answers if it is to be answered.</summary>
    /// <exception cref="VhostUserException">The back-end closed the channel, or what it sends is no request: the channel is of no use any more.</exception>
    public void Serve()
    {
        lock (_ending)
        {
            if (_closed)
                return;
            _serving = true;
        }
        try
        {
            using VhostUserMessage? request = _connection.Receive(TimeSpan.Zero, s_deadline);
            if (request is not null)
                Serve(request);
        }
        finally
        {
            lock (_ending)
            {
                _serving = false;
                if (_closed)
                    _connection.Dispose();
            }
        }
    }

    /// <summary>Closes the channel; without waiting for a request that is being served on another thread. <see cref="Serve()"/> does nothing then.</summary>
    public void Dispose()
    {
        lock (_ending)
        {
            _closed = true;
            if (_serving)
                Socket.Shutdown();   // and closed where it is served
            else
                _connection.Dispose();
        }
    }

    private void Serve(VhostUserMessage message)
    {
        var request = (VhostUserBackendRequest)message.Header.Request;
        BackendMessageRule rule = Check(message, request);
        FileDescriptor? found = null;
        bool done;
        try
        {
            done = Dispatch(message, request, out found);
        }
        catch (Exception e) when (e is (IOException or Memory.GuestMemoryException) and not VhostUserException { IsConnectionLost: true })
        {
            s_log.Warn("{Peer}: {Request} failed: {Error}", _connection.Peer, request.WireName(), e.Message);
            done = false;
        }
        catch (Exception e) when (e is not VhostUserException)
        {
            // A mistake of the handler's: the back-end hears that it was not done, and the process goes on.
            s_log.Error(e, "{Peer}: {Request} failed: {Error}", _connection.Peer, request.WireName(), e.Message);
            done = false;
        }
        if (!done)
            s_log.Debug("{Peer}: {Request} is refused", _connection.Peer, request.WireName());
        if (!rule.HasReply && (message.Header.Flags & VhostUserFlags.NeedReply) == 0)
            return;
        ulong result = done ? 0UL : 1;
        _connection.Send(
            message.Header.Request,
            VhostUserFlags.Reply,
            MemoryMarshal.AsBytes(new ReadOnlySpan<ulong>(in result)),
            found is null ? [] : [found],
            s_deadline);
    }

    private BackendMessageRule Check(VhostUserMessage message, VhostUserBackendRequest request)
    {
        if (BackendMessageRule.Find(request) is not { } rule)
            throw _connection.Lost($"makes an unknown request {message.Header.Request}");
        string name = request.WireName();
        if ((message.Header.Flags & ~(VhostUserFlags.VersionMask | VhostUserFlags.NeedReply)) != 0)
            throw _connection.Lost($"sends {name} with the flags 0x{(uint)message.Header.Flags:x}");
        if (message.Header.Size != (uint)rule.Size)
            throw _connection.Lost($"sends {name} with {message.Header.Size} bytes and not {rule.Size}");
        if (message.DescriptorCount < rule.MinDescriptors || message.DescriptorCount > rule.MaxDescriptors)
            throw _connection.Lost($"sends {name} with {message.DescriptorCount} descriptors");
        if (message.DescriptorCount > 0 && (_agreed & VhostUserProtocolFeatures.BackendSendFd) == 0)
            throw _connection.Lost($"sends {name} with a descriptor, which was not agreed on");
        if ((rule.Needs & ~_agreed) != 0)
            throw _connection.Lost($"sends {name}, although the protocol feature {rule.Needs & ~_agreed} was not agreed on");
        return rule;
    }

    private bool Dispatch(VhostUserMessage message, VhostUserBackendRequest request, out FileDescriptor? found)
    {
        found = null;
        switch (request)
        {
            case VhostUserBackendRequest.IotlbMsg:
                return _handler.Iotlb(message.Read<IotlbPayload>());
            case VhostUserBackendRequest.ConfigChange:
                return _handler.ConfigChanged();
            case VhostUserBackendRequest.VringHostNotifier:
                VringArea area = message.Read<VringArea>();
                if ((area.Queue & ~(VringDescriptor.IndexMask | VringDescriptor.NoFd)) != 0
                    || ((area.Queue & VringDescriptor.NoFd) == 0) != (message.DescriptorCount == 1))
                {
                    throw _connection.Lost($"sends {request.WireName()} that does not say truly whether it brings a descriptor");
                }
                using (FileDescriptor? file = message.TakeDescriptor())
                    return _handler.HostNotifier(in area, file);
            case VhostUserBackendRequest.VringCall:
                return _handler.RingCall(Ring(message, request));
            case VhostUserBackendRequest.VringErr:
                return _handler.RingError(Ring(message, request));
            case VhostUserBackendRequest.SharedObjectAdd:
                return _handler.SharedObjectAdd(new Guid(message.Payload, bigEndian: true));
            case VhostUserBackendRequest.SharedObjectRemove:
                return _handler.SharedObjectRemove(new Guid(message.Payload, bigEndian: true));
            case VhostUserBackendRequest.SharedObjectLookup:
                found = _handler.SharedObjectLookup(new Guid(message.Payload, bigEndian: true));
                return found is not null;
            case VhostUserBackendRequest.ShmemMap:
                using (FileDescriptor file = message.TakeDescriptor()!)
                    return _handler.MapShared(Mapping(message, request), file);
            case VhostUserBackendRequest.ShmemUnmap:
                return _handler.UnmapShared(Mapping(message, request));
            default:
                return false;
        }
    }

    private int Ring(VhostUserMessage message, VhostUserBackendRequest request)
    {
        VringState state = message.Read<VringState>();
        return state.Index <= VringDescriptor.IndexMask
            ? (int)state.Index
            : throw _connection.Lost($"sends {request.WireName()} for ring {state.Index}");
    }

    // A range that wraps, and flags with reserved bits, break the protocol in both requests.
    private ShmemMapPayload Mapping(VhostUserMessage message, VhostUserBackendRequest request)
    {
        ShmemMapPayload mapping = message.Read<ShmemMapPayload>();
        return mapping.ShmId <= byte.MaxValue && mapping.Length > 0 && (mapping.Flags & ~ShmemMapPayload.FlagWritable) == 0
            && mapping.FdOffset <= ulong.MaxValue - mapping.Length && mapping.ShmOffset <= ulong.MaxValue - mapping.Length
                ? mapping
                : throw _connection.Lost($"sends {request.WireName()} of what cannot be mapped");
    }
}
