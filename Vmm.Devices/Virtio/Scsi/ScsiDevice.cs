using Vmm.Vhost;
using Vmm.Vhost.Kernel;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio.Scsi;

/// <summary>A SCSI host (VIRTIO 1.2 §5.6). The kernel works all its queues: control, events (LUNs that come and go), requests.</summary>
internal sealed class ScsiDevice : KernelVhostDevice
{
    private const ulong Hotplug = 1UL << 1;     // VIRTIO_SCSI_F_HOTPLUG
    private const int QueueSize = 128;

    private readonly ScsiDeviceOptions _options;

    /// <summary>Opens vhost-scsi and looks for the target.</summary>
    /// <exception cref="VhostException">One of them cannot be had.</exception>
    public ScsiDevice(ScsiDeviceOptions options, EventLoop events)
        : base($"--scsi wwpn={options.Wwpn}", () => OpenTarget(options), events) => _options = options;

    private static VhostScsi OpenTarget(ScsiDeviceOptions options)
    {
        try
        {
            return new VhostScsi(options.Wwpn, options.Tpgt, options.Queues);
        }
        catch (VhostException e) when (e.Message.StartsWith(VhostScsi.DefaultPath + ": ", StringComparison.Ordinal))
        {
            throw new VhostException($"{e.Message}; see docs/scsi.md", e);   // vhost-scsi is there, and there is something about the target
        }
    }

    /// <inheritdoc/>
    public override VirtioDeviceType Type => VirtioDeviceType.Scsi;

    /// <inheritdoc/>
    public override ulong Features => Backend.Features
        & (VirtioFeatures.Version1 | VirtioFeatures.IndirectDescriptors | VirtioFeatures.EventIndex | Hotplug);

    /// <inheritdoc/>
    public override int QueueCount => Backend.RingCount;

    /// <inheritdoc/>
    public override int ConfigSize => ScsiConfig.Size;

    /// <inheritdoc/>
    public override int MaxQueueSize(int queue) => QueueSize;

    /// <inheritdoc/>
    public override void ReadConfig(Span<byte> config) => ScsiConfig.Write(config, _options.Queues, QueueSize);
}
