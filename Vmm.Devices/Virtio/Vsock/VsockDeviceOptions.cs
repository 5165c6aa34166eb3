using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio.Vsock;

/// <summary>Sockets between host and guest, worked by the kernel's vhost-vsock.</summary>
public sealed record VsockDeviceOptions : VirtioDeviceOptions
{
    /// <summary>The guest's context id, 3 to 0xFFFFFFFE: no two guests of a host have the same.</summary>
    public required uint Cid { get; init; }

    /// <inheritdoc/>
    public override string Label => "--vsock";

    /// <inheritdoc/>
    public override VirtioDevice Open(EventLoop events, CancellationToken cancellation = default) => new VsockDevice(this, events);
}
