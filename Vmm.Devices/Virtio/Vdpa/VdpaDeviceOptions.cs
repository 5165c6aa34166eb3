using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio.Vdpa;

/// <summary>A vDPA device of the host, whatever its type, worked by vhost-vdpa.</summary>
public sealed record VdpaDeviceOptions : VirtioDeviceOptions
{
    /// <summary>The device node, such as /dev/vhost-vdpa-0.</summary>
    public required string Path { get; init; }

    /// <summary>How many of the device's queues the guest sees, 1 to 256; null for all.</summary>
    public int? Queues { get; init; }

    /// <inheritdoc/>
    public override string Label => "--vdpa";

    /// <inheritdoc/>
    public override VirtioDevice Open(EventLoop events, CancellationToken cancellation = default) => new VdpaDevice(this, events);
}
