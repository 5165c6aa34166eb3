namespace Vmm.Devices.Virtio.VhostUser;

/// <summary>What has to be known of a device type to show one whose back-end does the rest (VIRTIO 1.2 §5, and later drafts): the
/// number of queues is no part of the vhost-user protocol, nor is the size of the configuration space.</summary>
public sealed record DeviceKind
{
    /// <summary>The number of the type.</summary>
    public required VirtioDeviceType Type { get; init; }

    /// <summary>Its name on the command line.</summary>
    public required string Word { get; init; }

    /// <summary>Queues that come before those whose number varies.</summary>
    public int LeadingQueues { get; init; }

    /// <summary>How many there are of those whose number varies, unless said otherwise.</summary>
    public int Queues { get; init; } = 1;

    /// <summary>Queues after them that the back-end does not work: they are the VMM's.</summary>
    public int OwnQueues { get; init; }

    /// <summary>Descriptors in each queue at most, unless said otherwise. Back-ends refuse a ring that is larger than theirs.</summary>
    public int QueueSize { get; init; } = 64;

    /// <summary>Bytes of configuration space, without what later features add.</summary>
    public int ConfigSize { get; init; }

    /// <summary>Whether a driver can do nothing without the configuration.</summary>
    public bool NeedsConfig { get; init; }

    /// <summary>Features that are hidden from the driver where the number of queues is the usual one.</summary>
    public ulong HiddenFeatures { get; init; }

    /// <summary>The parts of the configuration space that a back-end may have changed when it comes back: those that a driver reads again,
    /// and those that we replace.</summary>
    public IReadOnlyList<Range> ChangeableConfig { get; init; } = [];

    private const ulong ConsoleMultiport = 1UL << 1;    // VIRTIO_CONSOLE_F_MULTIPORT: more queues

    private static readonly DeviceKind[] s_known =
    [
        new() { Type = VirtioDeviceType.Scsi, Word = "scsi", LeadingQueues = 2, QueueSize = 128, ConfigSize = 36, ChangeableConfig = [0..sizeof(uint)] },   // num_queues is ours
        // The driver reads its CID again after the event that tells of the back-end's end, or of another CID (VIRTIO 1.2 §5.10.6.7).
        new()
        {
            Type = VirtioDeviceType.Vsock, Word = "vsock", Queues = 2, OwnQueues = 1, QueueSize = 128, ConfigSize = 8, NeedsConfig = true,
            ChangeableConfig = [0..sizeof(ulong)],
        },
        new() { Type = VirtioDeviceType.Rng, Word = "rng" },
        new() { Type = VirtioDeviceType.Console, Word = "console", Queues = 2, ConfigSize = 12, HiddenFeatures = ConsoleMultiport },
        new() { Type = VirtioDeviceType.Gpio, Word = "gpio", Queues = 2, ConfigSize = 8, NeedsConfig = true },
        new() { Type = VirtioDeviceType.I2c, Word = "i2c" },
        // What a back-end gives depends on what was selected last.
        new() { Type = VirtioDeviceType.Input, Word = "input", Queues = 2, ConfigSize = 136, NeedsConfig = true, ChangeableConfig = [0..^0] },
        new() { Type = VirtioDeviceType.Gpu, Word = "gpu", Queues = 2, ConfigSize = 16, NeedsConfig = true },
        new() { Type = VirtioDeviceType.Sound, Word = "snd", Queues = 4, ConfigSize = 12, NeedsConfig = true },
        new() { Type = VirtioDeviceType.Can, Word = "can", Queues = 3, ConfigSize = 2 },
    ];

    /// <summary>The types that have a name.</summary>
    public static IReadOnlyList<DeviceKind> Known => s_known;

    /// <summary>The type of this number: a known one, or one of which nothing is known.</summary>
    public static DeviceKind Of(VirtioDeviceType type) =>
        Array.Find(s_known, kind => kind.Type == type) ?? new DeviceKind { Type = type, Word = $"{(uint)type}", QueueSize = 256 };
}
