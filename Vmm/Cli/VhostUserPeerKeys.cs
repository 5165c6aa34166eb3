using Vmm.Devices.Virtio.VhostUser;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;

namespace Vmm.Cli;

/// <summary>The keys that all vhost-user devices have: <c>socket=PATH[,server=on]|fd=N[,reconnect=on|off][,timeout=5s][,queue_size=N]</c>.</summary>
internal static class VhostUserPeerKeys
{
    /// <summary>Those keys.</summary>
    public static readonly string[] All = ["socket", "server", "fd", "reconnect", "timeout", "queue_size"];

    /// <summary>The back-end that <paramref name="list"/> describes.</summary>
    /// <param name="option">The option, for messages.</param>
    /// <param name="text">Its value, for messages.</param>
    /// <param name="list">The value taken apart.</param>
    /// <exception cref="UsageException">There is none, or the keys contradict each other.</exception>
    public static VhostUserPeer Parse(string option, string text, KeyValueList list)
    {
        if (list.Find("fd") is { } fd)
        {
            if (list.Find("socket") is { } both)
                throw both.Refuse("cannot stand beside fd=: a back-end is reached by a path or by a descriptor");
            if (list.Find("server") is { } server)
                throw server.Refuse("cannot stand beside fd=: the connection is there already");
            if (list.Find("reconnect") is { } again && Choice.ParseSwitch(again))
                throw again.Refuse("cannot stand beside fd=: a connection that was inherited cannot be made again");
            return ParseRest(list) with { Endpoint = VhostUserEndpoint.Inherit(NumberValue.ParseDescriptor(fd)), Reconnect = false };
        }
        OptionValue socket = list.Find("socket") ?? throw new UsageException($"{option}: '{text}' names no back-end: write socket=PATH, or fd=N for an inherited socket");
        if (ByteText.Encode(socket.Text).Length > UnixSocket.MaxPathBytes)
            throw socket.Refuse($"is too long: the path of a socket has at most {UnixSocket.MaxPathBytes} bytes");
        bool listens = list.Find("server") is { } role && Choice.ParseSwitch(role);
        return ParseRest(list) with
        {
            Endpoint = listens ? VhostUserEndpoint.ListenOn(socket.Text) : VhostUserEndpoint.ConnectTo(socket.Text),
        };
    }

    /// <summary>What there is beside where the back-end is.</summary>
    /// <exception cref="UsageException">A value is wrong.</exception>
    public static VhostUserPeer ParseRest(KeyValueList list)
    {
        var peer = new VhostUserPeer
        {
            Reconnect = list.Find("reconnect") is not { } reconnect || Choice.ParseSwitch(reconnect),
            QueueSize = list.Find("queue_size") is { } size ? NumberValue.ParseQueueSize(size) : null,
        };
        // Without it the time depends on who starts the back-end.
        return list.Find("timeout") is { } timeout ? peer with { Timeout = DurationValue.Parse(timeout) } : peer;
    }
}
