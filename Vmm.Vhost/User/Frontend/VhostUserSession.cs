using System.Runtime.InteropServices;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Frontend;

/// <summary>The front-end's side of one connection to a back-end: a method for every message, in the order in which they are called.</summary>
/// <remarks>Every method sends its message, and waits for the answer if there is one: a reply of the message's own, or, once
/// <see cref="VhostUserProtocolFeatures.ReplyAck"/> is agreed on, an acknowledgement. All of them throw <see cref="VhostUserException"/>:
/// not connection-lost, if the back-end refused or the request was never agreed on; connection-lost, if the back-end is gone, broke the
/// protocol or took longer than the reply time-out. After that the socket is shut down, and every later call says the same.
/// A value that does not fit into its message is an <see cref="ArgumentException"/>, and nothing is sent.
/// Thread-safe: one request after another. An acknowledgement without an error proves little: libvhost-user sends it for what it refused, too.</remarks>
public sealed partial class VhostUserSession : IDisposable
{
    private static readonly BoundedLog s_log = new("Vmm.Vhost.User");

    private readonly Lock _request = new();   // held from a request's first byte to its reply's last
    private readonly Lock _ending = new();
    private readonly VhostUserConnection _connection;
    private readonly TimeSpan _replyTimeout;
    private string? _lost;
    private bool _closed;

    /// <summary>Talks over <paramref name="socket"/>, which belongs to the session from now on. Nothing is sent yet.</summary>
    /// <param name="socket">A connected socket.</param>
    /// <param name="peer">What the peer is called in messages.</param>
    /// <param name="replyTimeout">How long the peer may take to answer, or to read; null for 5 s. For SET_MEM_TABLE and ADD_MEM_REG it is at
    /// least <see cref="MemoryTimeout"/>.</param>
    /// <param name="cancelled">Ends every wait for the peer, and with it the connection, when it becomes readable; null for nothing.</param>
    public VhostUserSession(UnixSocket socket, string peer, TimeSpan? replyTimeout = null, FileDescriptor? cancelled = null)
        : this(new VhostUserConnection(socket, peer) { Cancelled = cancelled }, replyTimeout)
    {
    }

    /// <summary>The same over <paramref name="connection"/>.</summary>
    internal VhostUserSession(VhostUserConnection connection, TimeSpan? replyTimeout)
    {
        _connection = connection;
        _replyTimeout = replyTimeout ?? TimeSpan.FromSeconds(5);
    }

    /// <summary>How long a back-end may at least take to answer what has it map memory: some register all of it with their hardware, or make
    /// it resident.</summary>
    public static TimeSpan MemoryTimeout { get; } = TimeSpan.FromSeconds(30);

    /// <summary>What the peer is called in messages.</summary>
    public string Peer => _connection.Peer;

    /// <summary>The socket, to wait for its hang-up: to read from it is the session's.</summary>
    public UnixSocket Socket => _connection.Socket;

    /// <summary>Why the connection is of no use any more; null while it is.</summary>
    public string? LostReason => Volatile.Read(ref _lost);

    /// <summary>What closes the descriptors that come from the back-end.</summary>
    internal PeerDescriptors Received => _connection.Received;

    /// <summary>The time that all requests have together until this is null again; null: each has its own.</summary>
    internal Deadline? Deadline { get; set; }

    /// <summary>Whether it was the peer that ended the connection.</summary>
    internal bool IsClosedByPeer => _connection.IsClosedByPeer;

    /// <summary>Ends the connection, from any thread and without waiting: a request that waits for its answer fails at once.</summary>
    /// <param name="reason">What later calls say.</param>
    public void Abort(string reason)
    {
        Interlocked.CompareExchange(ref _lost, reason, null);
        lock (_ending)
        {
            if (!_closed)
                Socket.Shutdown();
        }
    }

    /// <summary>Closes the connection. Every later call throws <see cref="VhostUserException"/>, as it does when the peer has closed it.</summary>
    public void Dispose()
    {
        Abort($"{Peer}: the connection was closed");
        lock (_request)
        {
            lock (_ending)
            {
                _closed = true;
                _connection.Dispose();
            }
        }
    }

    private static ReadOnlySpan<byte> Bytes<T>(in T payload)
        where T : unmanaged => MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in payload));

    private static VringState State(int ring, uint number) => new(Ring(ring), number);

    private static uint Ring(int ring)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(ring);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(ring, (int)VringDescriptor.IndexMask);
        return (uint)ring;
    }

    // A request that has no reply of its own: acknowledged, where that was agreed on.
    private void Tell(VhostUserRequest request, ReadOnlySpan<byte> payload, params ReadOnlySpan<FileDescriptor> descriptors)
    {
        lock (_request)
        {
            Check(request);
            // Not before the agreement itself is known to the peer: SET_PROTOCOL_FEATURES is not acknowledged.
            bool acknowledged = Agreed(VhostUserProtocolFeatures.ReplyAck);
            Send(request, acknowledged ? VhostUserFlags.NeedReply : 0, payload, descriptors);
            if (acknowledged)
                Accept(request, Reply(request, PayloadSize.U64, PayloadSize.U64));
        }
    }

    private void Tell(VhostUserRequest request, ulong number, params ReadOnlySpan<FileDescriptor> descriptors) =>
        Tell(request, Bytes(in number), descriptors);

    // A request with a reply of its own, which is never asked for by a flag: peers would answer twice, or keep the flag in their reply.
    private VhostUserMessage Ask(
        VhostUserRequest request,
        ReadOnlySpan<byte> payload,
        int minSize,
        int maxSize,
        int maxDescriptors = 0,
        VhostUserFlags flags = 0,
        params ReadOnlySpan<FileDescriptor> descriptors)
    {
        lock (_request)
        {
            Check(request);
            Send(request, flags, payload, descriptors);
            return Reply(request, minSize, maxSize, maxDescriptors);
        }
    }

    private ulong AskNumber(VhostUserRequest request, ReadOnlySpan<byte> payload = default)
    {
        using VhostUserMessage reply = Ask(request, payload, PayloadSize.U64, PayloadSize.U64);
        return reply.Read<ulong>();
    }

    private void Accept(VhostUserRequest request, VhostUserMessage reply)
    {
        using (reply)
        {
            ulong result = reply.Read<ulong>();
            if (result != 0)
                throw Refused(request, $"0x{result:x}");
        }
    }

    private VhostUserException Refused(VhostUserRequest request, string how) => new($"{Peer}: refused {request.WireName()} ({how})");

    private VhostUserException NotAgreed(VhostUserRequest request, string what) =>
        new($"{Peer}: {request.WireName()} cannot be sent: {what}");

    // Ends the connection because of what the peer did.
    private VhostUserException Break(VhostUserRequest request, string what, Exception? inner = null)
    {
        Abort($"{Peer}: {request.WireName()}: {what}");
        return new VhostUserException(LostReason!, isConnectionLost: true, inner);
    }

    // Calls back in the middle of a request. If that throws, the rest of the request is neither sent nor received: the connection is of no use any more.
    private void CallBack(VhostUserRequest request, Action call)
    {
        try
        {
            call();
        }
        catch (Exception e)
        {
            Break(request, $"a call-back failed: {e.Message}");
            throw;
        }
    }

    private void Check(VhostUserRequest request)
    {
        if (LostReason is { } lost)
            throw new VhostUserException(lost, isConnectionLost: true);
        VhostUserProtocolFeatures missing = MessageRule.Find(request)!.Value.Needs & ~ProtocolFeatures;
        if (missing != VhostUserProtocolFeatures.None)
            throw NotAgreed(request, $"the protocol feature {missing} was not agreed on");
    }

    private void Send(
        VhostUserRequest request, VhostUserFlags flags, ReadOnlySpan<byte> payload, ReadOnlySpan<FileDescriptor> descriptors)
    {
        s_log.Trace("{Peer}: {Request}, {Size} bytes", Peer, request, payload.Length);
        try
        {
            _connection.Send((uint)request, flags, payload, descriptors, TimeLeft(request));
        }
        catch (VhostUserException e)
        {
            throw Break(request, Without(e.Message), e);
        }
    }

    private VhostUserMessage Reply(VhostUserRequest request, int minSize, int maxSize, int maxDescriptors = 0)
    {
        VhostUserMessage? reply;
        try
        {
            reply = _connection.Receive(TimeLeft(request), TimeLeft(request));
        }
        catch (Exception e)
        {
            // Whatever it is: the answer may still come, and would be taken for that of the next request.
            throw Break(request, Without(e.Message), e);
        }
        if (reply is null)
            throw Break(request, $"the peer did not answer within {(Deadline?.Total ?? TimeLeft(request)).TotalSeconds:0.##} s");
        VhostUserHeader header = reply.Header;
        string? wrong = null;
        if (header.Request != (uint)request)
            wrong = $"the peer answers message {header.Request} instead";
        else if ((header.Flags & VhostUserFlags.Reply) == 0)
            wrong = "the peer's answer is not marked as a reply";
        // Some peers leave NEED_REPLY of the request in the reply.
        else if ((header.Flags & ~(VhostUserFlags.VersionMask | VhostUserFlags.Reply | VhostUserFlags.NeedReply)) != 0)
            wrong = $"the peer's answer has unknown flags (0x{(uint)header.Flags:x})";
        else if (header.Size < minSize || header.Size > maxSize)
            wrong = $"the peer's answer has {header.Size} bytes" + (minSize == maxSize ? $" and not {minSize}" : $", not {minSize} to {maxSize}");
        else if (reply.DescriptorCount > maxDescriptors)
            wrong = $"the peer's answer brings {reply.DescriptorCount} descriptors, of {maxDescriptors} at most";
        if (wrong is null)
            return reply;
        reply.Dispose();
        throw Break(request, wrong);
    }

    private TimeSpan TimeLeft(VhostUserRequest request)
    {
        if (Deadline is { } deadline)
            return deadline.Left;
        bool mapsMemory = request is VhostUserRequest.SetMemTable or VhostUserRequest.AddMemReg;
        return mapsMemory && _replyTimeout < MemoryTimeout ? MemoryTimeout : _replyTimeout;
    }

    // The connection's errors begin with the peer, as those here do.
    private string Without(string message) =>
        message.StartsWith(Peer + ": ", StringComparison.Ordinal) ? message[(Peer.Length + 2)..] : message;
}
