using Vmm.Cli.Backend;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.VhostUser;
using Vmm.Devices.Virtio.Vsock;
using Vmm.Vhost.Kernel;

namespace Vmm.Cli;

/// <summary>The value of <c>--vsock</c>: <c>cid=N</c> for the kernel's vhost-vsock, or <c>cid=N,socket=PATH[,guest_connections=connect|accept]</c> for Unix sockets.</summary>
internal static class VsockOption
{
    /// <summary>The option's name.</summary>
    public const string Name = "--" + Option;

    /// <summary>The same without its dashes.</summary>
    public const string Option = "vsock";

    /// <summary>The device that <paramref name="text"/> describes.</summary>
    /// <exception cref="UsageException">The value is malformed.</exception>
    public static VirtioDeviceOptions Parse(string text)
    {
        KeyValueList list = KeyValueList.Parse(Name, text, "cid", "socket", "guest_connections");
        OptionValue cid = list.Find("cid") ?? throw new UsageException($"{Name}: '{text}' has no address: write cid=3");
        uint number = (uint)NumberValue.Parse(cid, VhostVsock.MinCid, VhostVsock.MaxCid);
        OptionValue? connections = list.Find("guest_connections");
        if (list.Find("socket") is not { } socket)
            return connections is null ? new VsockDeviceOptions { Cid = number } : throw connections.Value.Refuse("has no effect without socket=PATH");
        VsockBackendOptions.CheckPath(socket, connects: connections is null || VsockBackendOptions.ParseConnects(connections.Value));
        string label = $"cid={number},socket={socket.Text}";
        string[] arguments =
        [
            "--uds-path", socket.Text, "--guest-cid", $"{number}",
            .. connections is null ? Array.Empty<string>() : [VsockBackendOptions.GuestConnectionsName, connections.Value.Text],
        ];
        return new GenericDeviceOptions
        {
            Kind = DeviceKind.Of(VirtioDeviceType.Vsock),
            Peer = new VhostUserPeer
            {
                Program = OwnBackend.Serve("vsock", label, arguments) with { Socket = socket.Text },
            },
        };
    }
}
