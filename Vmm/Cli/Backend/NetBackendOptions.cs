using System.Net;
using CommandLine;
using Vmm.Devices.Backends;
using Vmm.Devices.Backends.Net;
using Vmm.Devices.Virtio.Net;
using Vmm.Vhost.Native;

namespace Vmm.Cli.Backend;

/// <summary>The options of <c>vmm backend net</c>.</summary>
[Verb("net", HelpText = "A network interface.")]
internal sealed class NetBackendOptions : BackendOptions
{
    [Option("tap", MetaValue = "NAME", HelpText = "On a tap interface; made if it is not there.")]
    public string? Tap { get; set; }

    [Option("socket-udp", MetaValue = "WIRE", HelpText = "On UDP: local=ADDRESS:PORT,remote=ADDRESS:PORT; each datagram is one Ethernet frame. "
        + "The Nth pair of queues behind the first uses the Nth port behind those.")]
    public string? SocketUdp { get; set; }

    [Option("stream", MetaValue = "PATH", HelpText = "On a stream of frames, each behind its length in four bytes: QEMU's -netdev stream,server=on or passt listens there.")]
    public string? Stream { get; set; }

    [Option("user", HelpText = "On this host's own network, by passt, without any rights: the guest is 10.0.2.15/24, the gateway 10.0.2.2, the resolver 10.0.2.3.")]
    public bool User { get; set; }

    [Option("port", MetaValue = "[udp:][ADDRESS:]HOST:GUEST[+…]", HelpText = "Ports of this host that lead into the guest, with --user (default address: 127.0.0.1). Repeatable.")]
    public string? Port { get; set; }

    [Option("host", HelpText = "With --user: the guest reaches what serves this host's 127.0.0.1, by the gateway's address. A port of UDP needs it.")]
    public bool Host { get; set; }

    [Option("vhost-user", HelpText = "With --user, --fd and --once: this process becomes passt once a front-end has connected, and passt works the guest's queues. "
        + "It then sees all memory that the front-end shares, and confines itself. Without --host there is no IPv6.")]
    public bool VhostUser { get; set; }

    [Option("queues", MetaValue = "PAIRS", HelpText = "Pairs of a receive and a transmit queue, 1 to 127 (default: 1).")]
    public string? Queues { get; set; }

    [Option("mtu", MetaValue = "N", HelpText = "Told to the guest, and set on the tap (default: neither).")]
    public string? Mtu { get; set; }

    /// <inheritdoc/>
    public override Func<ServedDevice> Read()
    {
        int pairs = Queues is string queues ? (int)NumberValue.Parse(new OptionValue("--queues", null, queues), 1, NetDeviceOptions.MaxQueuePairs) : 1;
        int? mtu = Mtu is string text ? NetOption.ParseMtu(new OptionValue("--mtu", null, text)) : null;
        string[] wires = [.. new[] { (Tap is not null, "--tap"), (SocketUdp is not null, "--socket-udp"), (Stream is not null, "--stream"), (User, "--user") }
            .Where(wire => wire.Item1).Select(wire => wire.Item2)];
        if (wires.Length > 1)
            throw new UsageException($"{wires[1]}: cannot stand beside {wires[0]}: there is one wire");
        if (Port is not null && !User)
            throw new UsageException("--port: has no effect without --user");
        if (Host && !User)
            throw new UsageException("--host: has no effect without --user");
        if (VhostUser && !User)
            throw new UsageException("--vhost-user: has no effect without --user");
        if (Tap is not null)
        {
            string name = NetOption.ParseInterface(new OptionValue("--tap", null, Tap));
            return Opened("--tap", () => new ServedDevice(NetBackend.OnTap(name, pairs, mtu), new Confinement { Calls = NetBackend.TapCalls }));
        }
        if (User || Stream is not null)
            return ReadStream(pairs, mtu);
        if (SocketUdp is null)
            throw new UsageException("--tap is missing: name a tap, or give two addresses by --socket-udp, a socket by --stream, or --user");
        KeyValueList list = KeyValueList.Parse("--socket-udp", SocketUdp, "local", "remote");
        IPEndPoint local = ParseAddress(list, "local", pairs), remote = ParseAddress(list, "remote", pairs);
        if (local.AddressFamily != remote.AddressFamily)
            throw list.Find("remote")!.Value.Refuse($"is not of the same family as {local}");
        return Opened("--socket-udp", () =>
        {
            NetBackend device = NetBackend.OnUdp(local, remote, pairs, mtu);
            return new ServedDevice(device, new Confinement { SendsDescriptors = false, Refused = device.Refused });
        });
    }

    private Func<ServedDevice> ReadStream(int pairs, int? mtu)
    {
        if (pairs > 1)
            throw new OptionValue("--queues", null, Queues!).Refuse("is not possible: a stream has one pair");
        if (!User)
        {
            string stream = RequirePath("--stream", Stream);
            return Opened("--stream", () => new ServedDevice(NetBackend.OnStream(stream, mtu), new Confinement()));
        }
        if (Mtu is not null)
            throw new UsageException($"--mtu: cannot stand beside --user: there it is {UserNetwork.Mtu}");
        IReadOnlyList<ForwardedPort> ports = Port is null ? [] : PortValue.ParseAll(new OptionValue("--port", null, string.Join('+', RepeatableOptions.Values(Port))));
        if (!Host)
            PortValue.RefuseUdp(ports, "--port", "--host");
        if (VhostUser)
        {
            if (Fd is null || !Once)
                throw new UsageException("--vhost-user: only with --fd and --once: passt has one front-end");
            int number = (int)NumberValue.Parse(new OptionValue("--fd", null, Fd), 0, int.MaxValue);
            return Opened("--user", () =>
            {
                SignalDisposition.Restore(BackendCommand.RefreshNumber);
                PasstProgram.Become(number, ports, Host);
                return null!;
            });
        }
        return Opened("--user", () => new ServedDevice(NetBackend.OnPasst(ports, Host), new Confinement()));
    }

    private static IPEndPoint ParseAddress(KeyValueList list, string key, int pairs)
    {
        OptionValue value = list.Find(key) ?? throw new UsageException($"--socket-udp: {key}=ADDRESS:PORT is missing");
        // A bare address would parse too, with port 0.
        if (!IPEndPoint.TryParse(value.Text, out IPEndPoint? address) || address.Port == 0)
            throw value.Refuse("is not an address and a port, such as 127.0.0.1:5000 or [::1]:5000");
        return address.Port + pairs - 1 <= IPEndPoint.MaxPort
            ? address
            : throw value.Refuse($"leaves no port for each of {pairs} pairs of queues");
    }
}
