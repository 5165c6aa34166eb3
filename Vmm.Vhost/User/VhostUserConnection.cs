using System.Diagnostics;
using System.Runtime.InteropServices;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User;

/// <summary>Messages over a Unix socket (vhost-user.rst, "Message Specification"): header, payload and descriptors leave in one
/// sendmsg(2), and arrive in as many pieces as it pleases the peer. Both sides use it, on both channels.</summary>
/// <remarks>One thread may send while another receives; neither may be done by two at once.</remarks>
public sealed class VhostUserConnection : IDisposable
{
    private static readonly TimeSpan s_step = TimeSpan.FromMilliseconds(100);   // between two looks at what else may end a wait

    private readonly byte[] _sending = new byte[VhostUserHeader.WireSize + VhostUserHeader.MaxPayload];
    private readonly byte[] _header = new byte[VhostUserHeader.WireSize];

    /// <summary>Talks over <paramref name="socket"/>, which belongs to the connection from now on.</summary>
    /// <param name="socket">A connected socket.</param>
    /// <param name="peer">What the peer is called in messages, such as the socket's path.</param>
    public VhostUserConnection(UnixSocket socket, string peer)
    {
        ArgumentNullException.ThrowIfNull(socket);
        ArgumentNullException.ThrowIfNull(peer);
        Socket = socket;
        Peer = peer;
        Received = socket.Peer ??= new PeerDescriptors();
    }

    /// <summary>The socket, to wait for what the peer sends.</summary>
    public UnixSocket Socket { get; }

    /// <summary>What the peer is called in messages.</summary>
    public string Peer { get; }

    /// <summary>What closes the descriptors that come from the peer. One for all connections with the same peer bounds what it leaves behind.</summary>
    internal PeerDescriptors Received
    {
        get;
        init => Socket.Peer = field = value;
    }

    /// <summary>Whether it was the peer that ended the connection.</summary>
    internal bool IsClosedByPeer { get; private set; }

    /// <summary>Ends every wait when it becomes readable, with a <see cref="VhostUserException"/>; null for nothing.</summary>
    internal FileDescriptor? Cancelled { get; init; }

    /// <summary>Sends a message.</summary>
    /// <param name="request">Its number.</param>
    /// <param name="flags">Its flags, without the version.</param>
    /// <param name="payload">At most <see cref="VhostUserHeader.MaxPayload"/> bytes.</param>
    /// <param name="descriptors">What goes with it; they stay the caller's.</param>
    /// <param name="deadline">How long the peer may take to make room for it.</param>
    /// <exception cref="VhostUserException">The peer is gone, or does not read.</exception>
    public void Send(
        uint request, VhostUserFlags flags, ReadOnlySpan<byte> payload, ReadOnlySpan<FileDescriptor> descriptors, TimeSpan deadline)
    {
        var header = new VhostUserHeader(request, flags | VhostUserFlags.Version1, (uint)payload.Length);
        MemoryMarshal.Write(_sending, in header);
        payload.CopyTo(_sending.AsSpan(VhostUserHeader.WireSize));
        ReadOnlySpan<byte> rest = _sending.AsSpan(0, VhostUserHeader.WireSize + payload.Length);
        long start = Stopwatch.GetTimestamp();
        while (!rest.IsEmpty)
        {
            int result = Socket.TrySend(rest, descriptors);
            if (result > 0)
            {
                rest = rest[result..];
                descriptors = [];
            }
            else if (result != -Errnos.Eagain)
            {
                // One that does not wait for an answer may have left: that is no error of anybody's.
                throw result is -Errnos.Epipe or -Errnos.Econnreset ? Closed(isBetween: true) : Lost($"cannot be sent to (errno {-result})");
            }
            else if (!Wait(PollEvents.Writable, Remaining(start, deadline), wake: null))
            {
                throw Lost($"did not read for {deadline.TotalSeconds:0.#} s");
            }
        }
    }

    /// <summary>Receives the next message.</summary>
    /// <param name="timeout">How long to wait for it to begin; <see cref="Timeout.InfiniteTimeSpan"/> for as long as it takes.</param>
    /// <param name="deadline">How long it may take from its first byte to its last.</param>
    /// <param name="wake">Ends the wait for a message to begin when it becomes readable; null for none.</param>
    /// <returns>Null when <paramref name="timeout"/> passed, or <paramref name="wake"/> was signalled.</returns>
    /// <exception cref="VhostUserException">The peer closed the connection, or what it sends is no message.</exception>
    public VhostUserMessage? Receive(TimeSpan timeout, TimeSpan deadline, FileDescriptor? wake = null)
    {
        if (!Wait(PollEvents.Readable, timeout, wake))
            return null;
        if (!WaitForRoom(deadline, wake))
            return null;
        var descriptors = new List<FileDescriptor>();
        try
        {
            long start = Stopwatch.GetTimestamp();
            Fill(_header, descriptors, start, deadline, isStart: true);
            VhostUserHeader header = MemoryMarshal.Read<VhostUserHeader>(_header);
            if ((header.Flags & VhostUserFlags.VersionMask) != VhostUserFlags.Version1)
                throw Lost($"speaks version {(uint)(header.Flags & VhostUserFlags.VersionMask)} of the protocol, which has only 1");
            if (header.Size > VhostUserHeader.MaxPayload)
                throw Lost($"sends a message {header.Request} of {header.Size} bytes, of {VhostUserHeader.MaxPayload} at most");
            byte[] payload = new byte[header.Size];
            Fill(payload, descriptors, start, deadline, isStart: false);
            return new VhostUserMessage(header, payload, descriptors);
        }
        catch
        {
            foreach (FileDescriptor descriptor in descriptors)
                descriptor.Dispose();
            throw;
        }
    }

    /// <summary>Ends the connection, and closes the socket. Never waits, whatever the peer has sent.</summary>
    public void Dispose() => Socket.Dispose();

    /// <summary>The exception that says that the connection is of no use any more.</summary>
    internal VhostUserException Lost(string what) => new($"{Peer}: the peer {what}", isConnectionLost: true);

    private VhostUserException Closed(bool isBetween)
    {
        IsClosedByPeer = true;
        return new($"{Peer}: the peer closed the connection" + (isBetween ? "" : " in the middle of a message"), isConnectionLost: true) { IsEnd = isBetween };
    }

    // Whether more may be received; false if wake is readable first.
    private bool WaitForRoom(TimeSpan deadline, FileDescriptor? wake)
    {
        long start = Stopwatch.GetTimestamp();
        while (!Received.WaitForRoom(s_step))
        {
            if (Remaining(start, deadline) == TimeSpan.Zero)
                throw Lost($"has sent {PeerDescriptors.MaxWaiting} descriptors that could not be closed within {deadline.TotalSeconds:0.#} s");
            if (!Wait(PollEvents.Readable, TimeSpan.Zero, wake))
                return false;       // what has come is still there
        }
        return true;
    }

    private void Fill(Span<byte> buffer, List<FileDescriptor> descriptors, long start, TimeSpan deadline, bool isStart)
    {
        int filled = 0;
        while (filled < buffer.Length)
        {
            int result = Socket.TryReceive(buffer[filled..], descriptors, out bool truncated);
            if (truncated || descriptors.Count > VhostUserHeader.MaxDescriptors)
                throw Lost("sends more descriptors than a message can have, or than this process may open");
            if (result > 0)
                filled += result;
            else if (result is 0 or -Errnos.Econnreset)
                throw Closed(isBetween: isStart && filled == 0);
            else if (result == -Errnos.Eproto)
                throw Lost("sends a byte out of band");
            else if (result != -Errnos.Eagain)
                throw Lost($"cannot be heard any more (errno {-result})");
            else if (!Wait(PollEvents.Readable, Remaining(start, deadline), wake: null))
                throw Lost($"sent a part of a message and nothing more within {deadline.TotalSeconds:0.#} s");
        }
    }

    // Whether the socket is ready and wake is not readable; if not, the time may also have passed.
    private bool Wait(PollEvents events, TimeSpan timeout, FileDescriptor? wake)
    {
        Span<PollEntry> entries = [default, default, default];
        long start = Stopwatch.GetTimestamp();
        while (true)
        {
            entries[0] = new PollEntry(Socket, events);
            entries[1] = new PollEntry(wake, PollEvents.Readable);
            entries[2] = new PollEntry(Cancelled, PollEvents.Readable);
            TimeSpan remaining = timeout == Timeout.InfiniteTimeSpan ? timeout : Remaining(start, timeout);
            int milliseconds = remaining == Timeout.InfiniteTimeSpan ? -1 : (int)Math.Ceiling(remaining.TotalMilliseconds);
            try
            {
                Poll.Wait(entries, milliseconds);
            }
            catch (ErrnoException e)
            {
                throw Lost($"cannot be waited for ({e.Message})");
            }
            // Before the socket, on which a peer may send without end.
            if (entries[2].Happened != PollEvents.None)
                throw Lost("was not waited for any longer, as this process is about to end");
            if (entries[1].Happened != PollEvents.None)
                return false;
            if (entries[0].Happened != PollEvents.None)
                return true;
            // A signal ends a wait early: only the clock and the descriptors count.
            if (milliseconds >= 0 && Remaining(start, timeout) == TimeSpan.Zero)
                return false;
        }
    }

    private static TimeSpan Remaining(long start, TimeSpan deadline)
    {
        TimeSpan left = deadline - Stopwatch.GetElapsedTime(start);
        return left > TimeSpan.Zero ? left : TimeSpan.Zero;
    }
}
