using System.Buffers.Binary;

namespace Vmm.Devices.Virtio.Scsi;

/// <summary>The configuration space of a SCSI host, struct virtio_scsi_config (VIRTIO 1.2 §5.6.4).</summary>
internal static class ScsiConfig
{
    /// <summary>Bytes.</summary>
    public const int Size = 36;

    private const int EventSize = 16;           // sizeof(struct virtio_scsi_event)
    private const int SenseSize = 96;           // what vhost-scsi works with, and the default
    private const int CdbSize = 32;
    private const ushort MaxTarget = 255;
    private const uint MaxLun = 16383;          // the flat space of SAM
    private const uint MaxSectors = 0xFFFF;

    /// <summary>Fills <paramref name="config"/> for a host with so many request queues, of that size.</summary>
    public static void Write(Span<byte> config, int queues, int queueSize)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(config, (uint)queues);
        BinaryPrimitives.WriteUInt32LittleEndian(config[4..], (uint)Math.Max(queueSize - 2, 1));    // seg_max: a request has two headers
        BinaryPrimitives.WriteUInt32LittleEndian(config[8..], MaxSectors);
        BinaryPrimitives.WriteUInt32LittleEndian(config[12..], (uint)queueSize);                    // cmd_per_lun
        BinaryPrimitives.WriteUInt32LittleEndian(config[16..], EventSize);
        BinaryPrimitives.WriteUInt32LittleEndian(config[20..], SenseSize);
        BinaryPrimitives.WriteUInt32LittleEndian(config[24..], CdbSize);
        BinaryPrimitives.WriteUInt16LittleEndian(config[28..], 0);                                  // max_channel
        BinaryPrimitives.WriteUInt16LittleEndian(config[30..], MaxTarget);
        BinaryPrimitives.WriteUInt32LittleEndian(config[32..], MaxLun);
    }
}
