using Vmm.Vhost.Kernel;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio.Scsi;

/// <summary>A SCSI host whose LUNs are a target's in the kernel, worked by vhost-scsi.</summary>
public sealed record ScsiDeviceOptions : VirtioDeviceOptions
{
    /// <summary>The largest <see cref="Queues"/>.</summary>
    public const int MaxQueues = VhostScsi.MaxRequestRings;

    /// <summary>The name of the target's port: "naa." and 16 hexadecimal digits, a directory under /sys/kernel/config/target/vhost.</summary>
    public required string Wwpn { get; init; }

    /// <summary>Request queues, 1 to <see cref="MaxQueues"/>.</summary>
    public int Queues { get; init; } = 1;

    /// <summary>The number of the target portal group.</summary>
    public ushort Tpgt { get; init; } = 1;

    /// <inheritdoc/>
    public override string Label => "--scsi";

    /// <inheritdoc/>
    public override VirtioDevice Open(EventLoop events, CancellationToken cancellation = default) => new ScsiDevice(this, events);
}
