using System.Buffers.Binary;
using System.Text;

namespace Vmm.Devices;

/// <summary>The configuration space of a file system, struct virtio_fs_config (VIRTIO 1.2 §5.11.4): a tag, and how many request queues there are.</summary>
public static class FsConfig
{
    /// <summary>The most bytes of a tag, by which the guest mounts the file system.</summary>
    public const int MaxTagBytes = 36;

    /// <summary>Bytes of it, without what only devices with notifications have.</summary>
    public const int Size = MaxTagBytes + sizeof(uint);

    /// <summary>Fills <paramref name="config"/>.</summary>
    /// <param name="config">At least <see cref="Size"/> bytes.</param>
    /// <param name="tag">At most <see cref="MaxTagBytes"/> as UTF-8; null to leave the one that is there.</param>
    /// <param name="queues">Request queues.</param>
    public static void Write(Span<byte> config, string? tag, int queues)
    {
        if (tag is not null)
        {
            config[..MaxTagBytes].Clear();
            Encoding.UTF8.GetBytes(tag, config[..MaxTagBytes]);
        }
        BinaryPrimitives.WriteUInt32LittleEndian(config[MaxTagBytes..], (uint)queues);
    }
}
