using Vmm.Devices.Virtio.VhostUser;

namespace Vmm.Cli;

/// <summary>The value of <c>--disk</c>: <c>[queues=N][,readonly=on]</c> and the keys of <see cref="VhostUserPeerKeys"/>.</summary>
internal static class DiskOption
{
    /// <summary>The option's name.</summary>
    public const string Name = "--" + Option;

    /// <summary>The same without its dashes.</summary>
    public const string Option = "disk";

    /// <summary>The keys of a disk.</summary>
    public static readonly string[] Keys = ["queues", "readonly", .. VhostUserPeerKeys.All];

    /// <summary>The device that <paramref name="text"/> describes.</summary>
    /// <exception cref="UsageException">The value is malformed or contradicts itself.</exception>
    public static BlockOptions Parse(string text) => Read(Name, text, KeyValueList.Parse(Name, text, Keys));

    /// <summary>The device that <paramref name="list"/>, with no more than <see cref="Keys"/>, describes.</summary>
    /// <exception cref="UsageException">A value is wrong.</exception>
    public static BlockOptions Read(string option, string text, KeyValueList list) => new()
    {
        Peer = VhostUserPeerKeys.Parse(option, text, list),
        Queues = list.Find("queues") is { } queues ? (int)NumberValue.Parse(queues, 1, BlockOptions.MaxQueues) : 1,
        IsReadOnly = list.Find("readonly") is { } readOnly && Choice.ParseSwitch(readOnly),
    };
}
