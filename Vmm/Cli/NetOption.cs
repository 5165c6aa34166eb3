using System.Text;
using NLog;
using Vmm.Cli.Backend;
using Vmm.Devices.Backends.Net;
using Vmm.Devices.Net;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Net;
using Vmm.Devices.Virtio.VhostUser;

namespace Vmm.Cli;

/// <summary>The value of <c>--net</c>: <c>[tap=NAME|fd=N[:N…]][,mac=MAC][,queues=N][,queue_size=N][,mtu=N][,vhost=on]</c>, <c>tap</c> without a
/// value for one that is made; or <c>user[,mac=MAC][,port=[udp:][ADDRESS:]HOST:GUEST[+…]][,host=on][,vhost_user=on|off]</c> for the host's own network by passt; or <c>socket=PATH</c> with <see cref="SocketKeys"/> for a switch that is another process.</summary>
internal static class NetOption
{
    /// <summary>The option's name.</summary>
    public const string Name = "--" + Option;

    /// <summary>The same without its dashes.</summary>
    public const string Option = "net";

    /// <summary>The keys of a device whose back-end is another process.</summary>
    public static readonly string[] SocketKeys = ["mac", "queues", "mtu", .. VhostUserPeerKeys.All];

    private const string UserWord = "user";

    /// <summary>The device that <paramref name="text"/> describes.</summary>
    /// <exception cref="UsageException">The value is malformed or contradicts itself.</exception>
    public static VirtioDeviceOptions Parse(string text)
    {
        if (text == "tap")
            return new NetDeviceOptions();
        if (IsUser(text))
            return ReadUser(text);
        if (text.StartsWith("tap,", StringComparison.Ordinal))
            return ReadTap(KeyValueList.Parse(Name, text["tap,".Length..], "mac", "queues", "queue_size", "mtu", "vhost"));
        if (!text.Contains('=', StringComparison.Ordinal))
            throw new OptionValue(Name, null, text).Refuse($"is no network: write tap=NAME, tap, fd=N, socket=PATH or {UserWord}");
        KeyValueList list = KeyValueList.Parse(
            Name, text, "tap", "fd", "socket", "mac", "queues", "queue_size", "mtu", "vhost", "server", "reconnect", "timeout");
        if (list.Find("socket") is null)
        {
            list.AllowOnly("tap", "fd", "socket", "mac", "queues", "queue_size", "mtu", "vhost");
            return ReadTap(list);
        }
        foreach (string key in new[] { "tap", "fd", "vhost" })
        {
            if (list.Find(key) is { } both)
                throw both.Refuse("cannot stand beside socket=: packets go to a tap or to another process");
        }
        return ReadSocket(Name, text, list);
    }

    /// <summary>Whether <paramref name="text"/> describes a device on the host's own network.</summary>
    public static bool IsUser(string text) => text == UserWord || text.StartsWith(UserWord + ",", StringComparison.Ordinal);

    /// <summary>The device that <paramref name="list"/>, with no more than <see cref="SocketKeys"/>, describes.</summary>
    /// <exception cref="UsageException">A value is wrong.</exception>
    public static VhostUserNetDeviceOptions ReadSocket(string option, string text, KeyValueList list) => new()
    {
        Peer = VhostUserPeerKeys.Parse(option, text, list),
        Mac = list.Find("mac") is { } mac ? ParseMac(mac) : null,
        QueuePairs = list.Find("queues") is { } queues ? (int)NumberValue.Parse(queues, 1, NetDeviceOptions.MaxQueuePairs) : 1,
        Mtu = list.Find("mtu") is { } mtu ? ParseMtu(mtu) : null,
    };

    // The back-end starts passt, or becomes it: what is decided here holds for the next back-end, too, because the guest knows the features of the first.
    private static VhostUserNetDeviceOptions ReadUser(string text)
    {
        KeyValueList? list = text == UserWord ? null : KeyValueList.Parse(Name, text[(UserWord.Length + 1)..], "mac", "port", "host", "vhost_user");
        IReadOnlyList<ForwardedPort> ports = list?.Find("port") is { } port ? PortValue.ParseAll(port) : [];
        bool opensHost = list?.Find("host") is { } host && Choice.ParseSwitch(host);
        if (!opensHost)
            PortValue.RefuseUdp(ports, Name, $"host=on ({Name} {UserWord},host=on)");
        bool? isVhostUser = list?.Find("vhost_user") is { } vhostUser ? Choice.ParseSwitch(vhostUser) : null;
        IReadOnlyList<string> Arguments() =>
        [
            "--user",
            .. ports.Count > 0 ? ["--port", string.Join('+', ports)] : Array.Empty<string>(),
            .. opensHost ? ["--host"] : Array.Empty<string>(),
            .. isVhostUser ?? PasstProgram.WorksQueues(opensHost) ? ["--vhost-user"] : Array.Empty<string>(),
        ];
        return new VhostUserNetDeviceOptions
        {
            Peer = new VhostUserPeer
            {
                // It says of everything that it was started as root, for example.
                Program = OwnBackend.Serve("net", text, Arguments) with { Advice = PasstProgram.Advice, LevelOf = static _ => LogLevel.Debug },
            },
            Mac = list?.Find("mac") is { } mac ? ParseMac(mac) : null,
            Mtu = UserNetwork.Mtu,
        };
    }

    private static NetDeviceOptions ReadTap(KeyValueList list)
    {
        if (list.Find("vhost") is { } vhost && !Choice.ParseSwitch(vhost))
            throw vhost.Refuse("is not possible: packets are always the kernel's vhost-net's; leave it out");
        int[] fds = list.Find("fd") is { } fd ? ParseFds(fd) : [];
        if (fds.Length > 0 && list.Find("tap") is { } both)
            throw both.Refuse("cannot stand beside fd=: an interface is given by name or by descriptors");
        int pairs = Math.Max(fds.Length, 1);
        if (list.Find("queues") is { } queues)
        {
            pairs = (int)NumberValue.Parse(queues, 1, NetDeviceOptions.MaxQueuePairs);
            if (fds.Length > 0 && pairs != fds.Length)
                throw queues.Refuse($"is not the number of descriptors, {fds.Length}: fd= wants one for each pair of queues");
        }
        return new NetDeviceOptions
        {
            Tap = list.Find("tap") is { } tap ? ParseInterface(tap) : null,
            Fds = fds,
            Mac = list.Find("mac") is { } mac ? ParseMac(mac) : null,
            QueuePairs = pairs,
            QueueSize = list.Find("queue_size") is { } size ? NumberValue.ParseQueueSize(size) : 256,
            Mtu = list.Find("mtu") is { } mtu ? ParseMtu(mtu) : null,
        };
    }

    /// <summary>An MTU, in bytes.</summary>
    /// <exception cref="UsageException">It is none, or out of range.</exception>
    public static int ParseMtu(OptionValue value) => (int)NumberValue.Parse(value, NetLimits.MinMtu, NetLimits.MaxMtu);

    /// <summary>The interface that <paramref name="value"/> names.</summary>
    /// <exception cref="UsageException">It cannot be the name of one.</exception>
    public static string ParseInterface(OptionValue value)
    {
        if (value.Text.Length == 0)
            throw value.Refuse("is not the name of an interface");
        if (Encoding.UTF8.GetByteCount(value.Text) > NetLimits.MaxInterfaceName)
            throw value.Refuse($"is too long for an interface: at most {NetLimits.MaxInterfaceName} bytes");
        foreach (char character in value.Text)
        {
            // dev_valid_name (Linux net/core/dev.c); a % would be a pattern for a name.
            if (character is '/' or ':' or '%' || char.IsWhiteSpace(character) || char.IsControl(character))
                throw value.Refuse("is not the name of an interface");
        }
        return value.Text is not ("." or "..") ? value.Text : throw value.Refuse("is not the name of an interface");
    }

    private static int[] ParseFds(OptionValue value)
    {
        string[] parts = value.Text.Split(':');
        if (parts.Length > NetDeviceOptions.MaxQueuePairs)
            throw value.Refuse($"has more than {NetDeviceOptions.MaxQueuePairs} descriptors");
        int[] fds = Array.ConvertAll(parts, part => NumberValue.ParseDescriptor(value with { Text = part }));
        return fds.Distinct().Count() == fds.Length ? fds : throw value.Refuse("names a descriptor twice");
    }

    private static MacAddress ParseMac(OptionValue value)
    {
        if (!MacAddress.TryParse(value.Text, out MacAddress address))
            throw value.Refuse("is not an Ethernet address: write it as 02:00:00:12:34:56");
        if (address.IsMulticast || address.IsZero)
            throw value.Refuse("cannot be an interface's: the first byte must be even, and not all may be zero");
        return address;
    }
}
