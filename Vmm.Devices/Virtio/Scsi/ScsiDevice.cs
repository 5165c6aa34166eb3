using System.Buffers.Binary;
using Vmm.Vhost;
using Vmm.Vhost.Kernel;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio.Scsi;

/// <summary>A SCSI host (VIRTIO 1.2 §5.6). The kernel works all its queues: control, events (LUNs that come and go), requests.</summary>
internal sealed class ScsiDevice : KernelVhostDevice
{
    private const ulong Hotplug = 1UL << 1;     // VIRTIO_SCSI_F_HOTPLUG
    private const int QueueSize = 128;
    private const int EventSize = 16;           // sizeof(struct virtio_scsi_event)
    private const int SenseSize = 96;           // what vhost-scsi works with (VIRTIO 1.2 §5.6.4)
    private const int CdbSize = 32;
    private const ushort MaxTarget = 255;
    private const uint MaxLun = 16383;          // the flat space of SAM
    private const uint MaxSectors = 0xFFFF;

    private readonly ScsiOptions _options;

    /// <summary>Opens vhost-scsi and looks for the target.</summary>
    /// <exception cref="VhostException">One of them cannot be had.</exception>
    public ScsiDevice(ScsiOptions options, EventLoop events)
        : base($"--scsi wwpn={options.Wwpn}", () => new VhostScsi(options.Wwpn, options.Tpgt, options.Queues), events) => _options = options;

    /// <inheritdoc/>
    public override VirtioDeviceType Type => VirtioDeviceType.Scsi;

    /// <inheritdoc/>
    public override ulong Features => Backend.Features
        & (VirtioFeatures.Version1 | VirtioFeatures.IndirectDescriptors | VirtioFeatures.EventIndex | Hotplug);

    /// <inheritdoc/>
    public override int QueueCount => Backend.RingCount;

    /// <inheritdoc/>
    public override int ConfigSize => 36;

    /// <inheritdoc/>
    public override int MaxQueueSize(int queue) => QueueSize;

    /// <inheritdoc/>
    public override void ReadConfig(Span<byte> config)
    {
        // struct virtio_scsi_config (VIRTIO 1.2 §5.6.4).
        BinaryPrimitives.WriteUInt32LittleEndian(config, (uint)_options.Queues);
        BinaryPrimitives.WriteUInt32LittleEndian(config[4..], QueueSize - 2);    // seg_max: a request has two headers
        BinaryPrimitives.WriteUInt32LittleEndian(config[8..], MaxSectors);
        BinaryPrimitives.WriteUInt32LittleEndian(config[12..], QueueSize);       // cmd_per_lun
        BinaryPrimitives.WriteUInt32LittleEndian(config[16..], EventSize);
        BinaryPrimitives.WriteUInt32LittleEndian(config[20..], SenseSize);
        BinaryPrimitives.WriteUInt32LittleEndian(config[24..], CdbSize);
        BinaryPrimitives.WriteUInt16LittleEndian(config[28..], 0);               // max_channel
        BinaryPrimitives.WriteUInt16LittleEndian(config[30..], MaxTarget);
        BinaryPrimitives.WriteUInt32LittleEndian(config[32..], MaxLun);
    }
}
