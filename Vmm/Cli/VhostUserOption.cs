using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.VhostUser;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Cli;

/// <summary>The value of <c>--vhost-user</c>: <c>type=WORD|NUMBER[,queues=N][,config=HEX][,config_size=N]</c> and the keys of
/// <see cref="VhostUserPeerKeys"/>; for fs, blk and net also those of <c>--fs</c>, <c>--disk</c> and <c>--net</c>.</summary>
internal static class VhostUserOption
{
    /// <summary>The option's name.</summary>
    public const string Name = "--" + Option;

    /// <summary>The same without its dashes.</summary>
    public const string Option = "vhost-user";

    private const uint MaxType = 0xFFFF;
    private const int MaxQueues = 256;

    private static readonly string[] s_common = ["type", "config"];
    private static readonly string[] s_generic = [.. s_common, "queues", "config_size", .. VhostUserPeerKeys.All];

    private static readonly (string Word, VirtioDeviceType Type)[] s_words =
    [
        ("fs", VirtioDeviceType.FileSystem), ("blk", VirtioDeviceType.Block), ("net", VirtioDeviceType.Net),
        .. DeviceKind.Known.Select(kind => (kind.Word, kind.Type)),
    ];

    /// <summary>The device that <paramref name="text"/> describes.</summary>
    /// <exception cref="UsageException">The value is malformed or contradicts itself.</exception>
    public static VirtioDeviceOptions Parse(string text)
    {
        (KeyValueList list, VirtioDeviceType type) = Read(text);
        ReadOnlyMemory<byte>? config = list.Find("config") is { } hex ? (ReadOnlyMemory<byte>?)ParseConfig(hex) : null;
        switch (type)
        {
            case VirtioDeviceType.FileSystem:
                list.AllowOnly([.. s_common, .. FsOption.Keys]);
                FsDeviceOptions fs = FsOption.Read(Name, text, list);
                return fs with { Peer = fs.Peer with { Config = config } };
            case VirtioDeviceType.Block:
                list.AllowOnly([.. s_common, .. DiskOption.Keys]);
                BlockDeviceOptions disk = DiskOption.Read(Name, text, list);
                return disk with { Peer = disk.Peer with { Config = config } };
            case VirtioDeviceType.Net:
                list.AllowOnly(["type", .. NetOption.SocketKeys]);   // its configuration is all the VMM's
                return NetOption.ReadSocket(Name, text, list);
            case VirtioDeviceType kind:
                list.AllowOnly(s_generic);
                return ReadGeneric(text, list, DeviceKind.Of(kind), config);
        }
    }

    /// <summary>The type of the device that <paramref name="text"/> describes.</summary>
    /// <exception cref="UsageException">The value is malformed, or has no type.</exception>
    public static VirtioDeviceType TypeOf(string text) => Read(text).Type;

    private static (KeyValueList List, VirtioDeviceType Type) Read(string text)
    {
        string[] all = [.. s_generic.Concat(FsOption.Keys).Concat(DiskOption.Keys).Concat(NetOption.SocketKeys).Distinct()];
        KeyValueList list = KeyValueList.Parse(Name, text, all);
        OptionValue type = list.Find("type") ?? throw new UsageException($"{Name}: '{text}' has no type: write type= and one of {Words()}, or a number");
        return (list, ParseType(type));
    }

    private static GenericDeviceOptions ReadGeneric(string text, KeyValueList list, DeviceKind kind, ReadOnlyMemory<byte>? config)
    {
        int? size = list.Find("config_size") is { } value ? (int)NumberValue.Parse(value, 0, ConfigHeader.MaxConfigSize) : null;
        if (config is not null && list.Find("config_size") is { } both)
            throw both.Refuse("cannot stand beside config=, which has its own size");
        return new GenericDeviceOptions
        {
            Kind = kind,
            Peer = VhostUserPeerKeys.Parse(Name, text, list) with { Config = config },
            Queues = list.Find("queues") is { } queues
                ? (int)NumberValue.Parse(queues, 1, (ulong)(MaxQueues - kind.LeadingQueues - kind.OwnQueues)) : null,
            ConfigSize = size,
        };
    }

    private static VirtioDeviceType ParseType(OptionValue value)
    {
        foreach ((string word, VirtioDeviceType type) in s_words)
        {
            if (word == value.Text)
                return type;
        }
        return value.Text.Length > 0 && char.IsAsciiDigit(value.Text[0])
            ? (VirtioDeviceType)NumberValue.Parse(value, 1, MaxType)
            : throw value.Refuse($"is not allowed: choose one of {Words()}, or a number");
    }

    private static byte[] ParseConfig(OptionValue value)
    {
        const string expected = "is not of hexadecimal digits, two for each byte";
        if (value.Text.Length % 2 != 0 || !value.Text.All(char.IsAsciiHexDigit))
            throw value.Refuse(expected);
        byte[] config = Convert.FromHexString(value.Text);
        return config.Length <= VirtioDevice.MaxConfigSize
            ? config
            : throw value.Refuse($"is larger than a configuration space, {VirtioDevice.MaxConfigSize} bytes");
    }

    private static string Words() => string.Join(", ", s_words.Select(known => known.Word));
}
