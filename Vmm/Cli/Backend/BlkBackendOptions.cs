using CommandLine;
using Vmm.Devices.Backends.Block;

namespace Vmm.Cli.Backend;

/// <summary>The options of <c>vmm backend blk</c>.</summary>
[Verb("blk", HelpText = "A disk.")]
internal sealed class BlkBackendOptions : BackendOptions
{
    /// <summary>The option by which the process that starts this one says that it keeps the disk, and which one it is.</summary>
    public const string KeyOption = "kept";

    [Option("path", MetaValue = "FILE", HelpText = "A raw image or a block device.")]
    public string? Path { get; set; }

    [Option("blk-file", MetaValue = "FILE", HelpText = "The same, as management layers have it.")]
    public string? BlkFile { get; set; }

    [Option("readonly", HelpText = "The guest may not write.")]
    public bool ReadOnly { get; set; }

    [Option("read-only", HelpText = "The same, as management layers have it.")]
    public bool ReadOnlyToo { get; set; }

    [Option("queues", MetaValue = "N", HelpText = "Request queues, 1 to 64 (default: 1).")]
    public string? Queues { get; set; }

    [Option("direct", HelpText = "Past the host's page cache (O_DIRECT).")]
    public bool Direct { get; set; }

    [Option("logical-block-size", MetaValue = "N", HelpText = "The sectors that the guest sees, in bytes: 512, 1024, 2048 or 4096 (default: those of "
        + "the block device, 512 for a file).")]
    public string? LogicalBlockSize { get; set; }

    [Option("lock", MetaValue = "on|off|defer", HelpText = "Lock the image, as QEMU does: while the process runs; not at all; or as soon as a guest "
        + "uses it, for the destination of a migration (default: on).")]
    public string? Lock { get; set; }

    [Option(KeyOption, MetaValue = "ID", HelpText = "For vmm run, which keeps the image locked itself and starts this process: the file or device that the image must be.")]
    public string? Key { get; set; }

    [Option("discard", MetaValue = "on|off", HelpText = "Whether the guest can give parts of the image back to the host (default: on).")]
    public string? Discard { get; set; }

    [Option("serial", MetaValue = "TEXT", HelpText = "The disk's serial number, up to 20 characters (default: made from the file).")]
    public string? Serial { get; set; }

    [Option("engine", MetaValue = "HOW", HelpText = "Who waits for the disk: auto, io_uring or threads (default: auto).")]
    public string? Engine { get; set; }

    /// <inheritdoc/>
    public override Func<ServedDevice> Read()
    {
        if (Path is not null && BlkFile is not null)
            throw new UsageException("--blk-file: cannot stand beside --path: they say the same");
        if (Serial is string serial)
            CheckSerial(new OptionValue("--serial", null, serial));
        BlockLocking locking = Choice.Parse(
            new OptionValue("--lock", null, Lock ?? "on"),
            ("on", BlockLocking.On), ("off", BlockLocking.Off), ("defer", BlockLocking.Deferred));
        if (Key is not null && locking == BlockLocking.Deferred)
            throw new UsageException($"--{KeyOption}: cannot stand beside --lock defer: whoever starts this process has the disk already");
        var options = new BlockOptions
        {
            Path = RequirePath("--path", Path ?? BlkFile),
            ReadOnly = ReadOnly || ReadOnlyToo,
            Direct = Direct,
            Queues = Queues is string queues ? (int)NumberValue.Parse(new OptionValue("--queues", null, queues), 1, BlockOptions.MaxQueues) : 1,
            Serial = Serial,
            LogicalBlockSize = LogicalBlockSize is string size ? ParseBlockSize(new OptionValue("--logical-block-size", null, size)) : null,
            Locking = Key is not null && locking == BlockLocking.On ? BlockLocking.Kept : locking,
            Key = Key,
            Discard = Choice.ParseSwitch(new OptionValue("--discard", null, Discard ?? "on")),
            Engine = Choice.Parse(
                new OptionValue("--engine", null, Engine ?? "auto"),
                ("auto", BlockEngineKind.Auto), ("io_uring", BlockEngineKind.IoUring), ("threads", BlockEngineKind.Threads)),
        };
        return Opened(Path is null ? "--blk-file" : "--path", () =>
        {
            var device = new BlockBackend(options);
            return new ServedDevice(device, device.Confinement, Refresh: device.Refresh);
        });
    }

    /// <summary>The block size that <paramref name="value"/> is.</summary>
    /// <exception cref="UsageException">It cannot be one.</exception>
    public static int ParseBlockSize(OptionValue value) => Choice.Parse(value, ("512", 512), ("1024", 1024), ("2048", 2048), ("4096", 4096));

    /// <summary>The serial number that <paramref name="value"/> is.</summary>
    /// <exception cref="UsageException">It cannot be one.</exception>
    public static string CheckSerial(OptionValue value) =>
        value.Text.Length is > 0 and <= BlockOptions.MaxSerial && value.Text.All(character => character is >= ' ' and <= '~')
            ? value.Text
            : throw value.Refuse($"is not 1 to {BlockOptions.MaxSerial} printable ASCII characters");
}
