using System.Buffers.Binary;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio.VhostUser;

/// <summary>A disk (VIRTIO 1.2 §5.2). Its configuration is the back-end's, but for the number of queues, and the limit of segments where the ring is small.</summary>
internal sealed class BlockDevice : VhostUserFrontendDevice
{
    private const ulong SegmentLimit = 1UL << 2;    // VIRTIO_BLK_F_SEG_MAX
    private const ulong ReadOnly = 1UL << 5;        // VIRTIO_BLK_F_RO
    private const ulong ConfigWce = 1UL << 11;      // VIRTIO_BLK_F_CONFIG_WCE: the driver may turn the write cache on and off
    private const ulong MultiQueue = 1UL << 12;     // VIRTIO_BLK_F_MQ
    private const int SpaceSize = 60;               // struct virtio_blk_config up to what discards and zeroes need: all back-ends have it
    private const int SegmentLimitOffset = 12;
    private const int WritebackOffset = 32;
    private const int NumQueuesOffset = 34;
    private const int CapacitySize = 8;             // at offset 0

    private readonly BlockDeviceOptions _options;

    /// <summary>Connects to the back-end.</summary>
    /// <exception cref="VhostException">There is none, or it has no such disk.</exception>
    public BlockDevice(BlockDeviceOptions options, EventLoop events, CancellationToken cancellation)
        : base($"--disk {options.Peer.Place}", options.Peer, events)
    {
        _options = options;
        try
        {
            Connect(new VhostUserShape("--disk", options.Queues, DefaultQueueSize)
            {
                ConfigSize = SpaceSize,
                NeedsConfig = true,
                CompletesRequests = true,
                RequiredFeatures = options.Queues > 1 ? MultiQueue : 0,
                // A driver reads the capacity again when it changes (VIRTIO 1.2 §5.2.4), and the number of queues is ours.
                ChangeableConfig = [0..CapacitySize, NumQueuesOffset..(NumQueuesOffset + sizeof(ushort))],
            }, cancellation);
            if (options.Queues > 1 && (Frontend.Features & MultiQueue) == 0)
                throw new VhostException($"{Frontend.Name}: the back-end has one queue (no VIRTIO_BLK_F_MQ): leave queues={options.Queues} out");
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public override VirtioDeviceType Type => VirtioDeviceType.Block;

    /// <inheritdoc/>
    public override ulong Features => (base.Features & ~(_options.Queues == 1 ? MultiQueue : 0)) | (_options.IsReadOnly ? ReadOnly : 0);

    /// <inheritdoc/>
    public override void ReadConfig(Span<byte> config)
    {
        base.ReadConfig(config);
        // A request is its segments, a header and a status. A driver without indirect descriptors has no more room than the ring for them.
        if ((Features & SegmentLimit) != 0 && config.Length >= SegmentLimitOffset + sizeof(uint))
        {
            uint limit = BinaryPrimitives.ReadUInt32LittleEndian(config[SegmentLimitOffset..]);
            BinaryPrimitives.WriteUInt32LittleEndian(config[SegmentLimitOffset..], Math.Min(limit, (uint)Math.Max(1, MaxQueueSize(0) - 2)));
        }
        if (config.Length >= NumQueuesOffset + sizeof(ushort))
            BinaryPrimitives.WriteUInt16LittleEndian(config[NumQueuesOffset..], (ushort)_options.Queues);
    }

    /// <inheritdoc/>
    public override void WriteConfig(int offset, ReadOnlySpan<byte> data)
    {
        // All else is for reading (VIRTIO 1.2 §5.2.4).
        if ((Features & ConfigWce) != 0 && offset == WritebackOffset && data.Length == 1)
            WriteToBackend(offset, data);
    }
}
