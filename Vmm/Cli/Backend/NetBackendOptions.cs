using System.Net;
using CommandLine;
using Vmm.Devices.Backends;
using Vmm.Devices.Backends.Net;
using Vmm.Devices.Virtio.Net;

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

    [Option("queues", MetaValue = "PAIRS", HelpText = "Pairs of a receive and a transmit queue, 1 to 127 (default: 1).")]
    public string? Queues { get; set; }

    [Option("mtu", MetaValue = "N", HelpText = "Told to the guest, and set on the tap (default: neither).")]
    public string? Mtu { get; set; }

    /// <inheritdoc/>
    public override Func<ServedDevice> Read()
    {
        int pairs = Queues is string queues ? (int)NumberValue.Parse(new OptionValue("--queues", null, queues), 1, NetOptions.MaxQueuePairs) : 1;
        int? mtu = Mtu is string text ? (int)NumberValue.Parse(new OptionValue("--mtu", null, text), NetOption.MinMtu, NetOption.MaxMtu) : null;
        if (Tap is not null && SocketUdp is not null)
            throw new UsageException("--socket-udp: cannot stand beside --tap: there is one wire");
        if (Tap is not null)
        {
            string name = NetOption.ParseInterface(new OptionValue("--tap", null, Tap));
            return () => new ServedDevice(NetBackend.OnTap(name, pairs, mtu), new Confinement { Calls = NetBackend.TapCalls });
        }
        if (SocketUdp is null)
            throw new UsageException("--tap is missing: name a tap, or give two addresses by --socket-udp");
        KeyValueList list = KeyValueList.Parse("--socket-udp", SocketUdp, "local", "remote");
        IPEndPoint local = ParseAddress(list, "local", pairs), remote = ParseAddress(list, "remote", pairs);
        if (local.AddressFamily != remote.AddressFamily)
            throw list.Find("remote")!.Value.Refuse($"is not of the same family as {local}");
        return () =>
        {
            NetBackend device = NetBackend.OnUdp(local, remote, pairs, mtu);
            return new ServedDevice(device, new Confinement { SendsDescriptors = false, Refused = device.Refused });
        };
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
