using Vmm.Cli.Backend;
using Vmm.Devices.Backends.Block;
using Vmm.Devices.Virtio.VhostUser;

namespace Vmm.Cli;

/// <summary>The value of <c>--disk</c>: <c>path=FILE[,direct=on][,logical_block_size=N][,lock=off][,discard=off][,serial=TEXT]</c>, for an image or a block device that our own
/// back-end serves, or the keys of <see cref="VhostUserPeerKeys"/> for a back-end that is there; then <c>[,queues=N][,readonly=on]</c>.</summary>
internal static class DiskOption
{
    /// <summary>The option's name.</summary>
    public const string Name = "--" + Option;

    /// <summary>The same without its dashes.</summary>
    public const string Option = "disk";

    /// <summary>The keys of a disk.</summary>
    public static readonly string[] Keys = ["queues", "readonly", .. VhostUserPeerKeys.All];

    private const int MaxDefaultQueues = 8;

    private static readonly string[] s_ownKeys = ["path", "direct", "logical_block_size", "lock", "discard", "serial"];

    /// <summary>The device that <paramref name="text"/> describes.</summary>
    /// <param name="text">The option's value.</param>
    /// <param name="cpus">The guest's CPUs: a disk of our own has as many queues where nothing is said, up to 8.</param>
    /// <exception cref="UsageException">The value is malformed or contradicts itself.</exception>
    public static BlockDeviceOptions Parse(string text, int cpus)
    {
        KeyValueList list = KeyValueList.Parse(Name, text, [.. s_ownKeys, .. Keys]);
        if (list.Find("path") is { } path)
            return ReadOwn(list, path, cpus);
        foreach (string key in s_ownKeys)
        {
            if (list.Find(key) is { } own)
                throw own.Refuse("has no effect without path=: it is for a back-end that is started here");
        }
        return Read(Name, text, list);
    }

    /// <summary>The device that <paramref name="list"/>, with no more than <see cref="Keys"/>, describes.</summary>
    /// <exception cref="UsageException">A value is wrong.</exception>
    public static BlockDeviceOptions Read(string option, string text, KeyValueList list) => new()
    {
        Peer = VhostUserPeerKeys.Parse(option, text, list),
        Queues = list.Find("queues") is { } queues ? (int)NumberValue.Parse(queues, 1, BlockDeviceOptions.MaxQueues) : 1,
        IsReadOnly = list.Find("readonly") is { } readOnly && Choice.ParseSwitch(readOnly),
    };

    private static BlockDeviceOptions ReadOwn(KeyValueList list, OptionValue path, int cpus)
    {
        foreach (string key in new[] { "socket", "fd", "server" })
        {
            if (list.Find(key) is { } both)
                throw both.Refuse("cannot stand beside path=: either there is a back-end, or one is started");
        }
        bool isReadOnly = list.Find("readonly") is { } readOnly && Choice.ParseSwitch(readOnly);
        int queues = list.Find("queues") is { } count
            ? (int)NumberValue.Parse(count, 1, BlockOptions.MaxQueues)
            : Math.Min(cpus, MaxDefaultQueues);
        List<string> arguments = ["--path", path.Text, "--queues", $"{queues}"];
        if (isReadOnly)
            arguments.Add("--readonly");
        if (list.Find("direct") is { } direct && Choice.ParseSwitch(direct))
            arguments.Add("--direct");
        if (list.Find("logical_block_size") is { } blockSize)
            arguments.AddRange(["--logical-block-size", $"{BlkBackendOptions.ParseBlockSize(blockSize)}"]);
        bool isLocked = list.Find("lock") is not { } locking || Choice.ParseSwitch(locking);
        if (!isLocked)
            arguments.AddRange(["--lock", "off"]);
        if (list.Find("discard") is { } discard && !Choice.ParseSwitch(discard))
            arguments.AddRange(["--discard", "off"]);
        if (list.Find("serial") is { } serial)
            arguments.AddRange(["--serial", BlkBackendOptions.CheckSerial(serial)]);
        DaemonProgram program = OwnBackend.Serve("blk", $"path={path.Text}", arguments);
        if (!path.Text.StartsWith(BlockOptions.NullPrefix, StringComparison.Ordinal))
            program = program with { Disk = new DaemonDisk(path.Text, isReadOnly, isLocked, $"--{BlkBackendOptions.KeyOption}") };
        return new BlockDeviceOptions
        {
            Peer = VhostUserPeerKeys.ParseRest(list) with { Program = program },
            Queues = queues,
            IsReadOnly = isReadOnly,
        };
    }
}
