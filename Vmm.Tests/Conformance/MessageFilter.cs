using System.Collections.Concurrent;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Frontend;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Conformance;

/// <summary>Stands between a front-end and a back-end, takes bits out of what is offered, and hangs up on one request. Rings and memory go
/// past it.</summary>
internal sealed class MessageFilter : IDisposable
{
    private static readonly TimeSpan s_deadline = TimeSpan.FromSeconds(30);

    private readonly string _backend;
    private readonly UnixListener _listener;
    private readonly EventFd _stop = new();
    private readonly Thread _thread;
    private readonly ConcurrentQueue<VhostUserRequest> _passed = [];

    /// <summary>Listens on <paramref name="path"/> for a front-end, for which it connects to <paramref name="backend"/>.</summary>
    public MessageFilter(string path, string backend)
    {
        _backend = backend;
        _listener = UnixListener.Listen(path);
        _thread = new Thread(Run) { Name = "filter", IsBackground = true };
        _thread.Start();
    }

    /// <summary>Protocol features that the back-end is not seen to offer.</summary>
    public VhostUserProtocolFeatures HiddenFeatures { get; init; }

    /// <summary>The request that ends the connection.</summary>
    public VhostUserRequest Forbidden { get; init; }

    /// <summary>What the front-end has asked.</summary>
    public VhostUserRequest[] Passed => [.. _passed];

    public void Dispose()
    {
        _stop.Signal();
        _thread.Join();
        _listener.Dispose();
        _stop.Dispose();
    }

    private void Run()
    {
        PollEntry[] entries = [new(_listener, PollEvents.Readable), new(_stop, PollEvents.Readable)];
        Poll.Wait(entries, -1);
        if (_listener.TryAccept() is not { } accepted)
            return;
        using var front = new VhostUserConnection(accepted, "the front-end");
        try
        {
            using var connector = new PeerConnector(VhostUserEndpoint.ConnectTo(_backend), "the back-end");
            using var back = new VhostUserConnection(connector.Connect(s_deadline), "the back-end");
            while (Pass(front, back))
            {
            }
        }
        catch (VhostException)
        {
            // One of them is gone, and so is the other's connection.
        }
    }

    private bool Pass(VhostUserConnection front, VhostUserConnection back)
    {
        using VhostUserMessage? message = front.Receive(Timeout.InfiniteTimeSpan, s_deadline, _stop);
        if (message is null)
            return false;
        var request = (VhostUserRequest)message.Header.Request;
        _passed.Enqueue(request);
        if (request == Forbidden)
            return false;
        Send(back, message, message.Payload);
        if (MessageRule.Find(request) is not { HasReply: true } && (message.Header.Flags & VhostUserFlags.NeedReply) == 0)
            return true;
        using VhostUserMessage? reply = back.Receive(s_deadline, s_deadline);
        if (reply is null)
            return false;
        Send(front, reply, request == VhostUserRequest.GetProtocolFeatures
            ? BitConverter.GetBytes(reply.Read<ulong>() & ~(ulong)HiddenFeatures)
            : reply.Payload);
        return true;
    }

    private static void Send(VhostUserConnection to, VhostUserMessage message, ReadOnlySpan<byte> payload)
    {
        var descriptors = new List<FileDescriptor>();
        try
        {
            while (message.TakeDescriptor() is { } descriptor)
                descriptors.Add(descriptor);
            to.Send(message.Header.Request, message.Header.Flags & ~VhostUserFlags.VersionMask, payload, [.. descriptors], s_deadline);
        }
        finally
        {
            foreach (FileDescriptor descriptor in descriptors)
                descriptor.Dispose();
        }
    }
}
