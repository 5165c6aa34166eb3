using System.Buffers.Binary;
using Vmm.Devices.Net;

namespace Vmm.Devices.Virtio.Net;

/// <summary>The configuration space of a network device, the beginning of struct virtio_net_config (VIRTIO 1.2 §5.1.4).</summary>
internal static class NetConfig
{
    /// <summary>Bytes, up to the MTU.</summary>
    public const int Size = 12;

    private const ushort LinkUp = 1;        // of the status
    private const ushort Announce = 2;

    /// <summary>Fills <paramref name="config"/>.</summary>
    /// <param name="config"><see cref="Size"/> bytes.</param>
    /// <param name="mac">The guest's address.</param>
    /// <param name="isUp">Whether the link is up.</param>
    /// <param name="announce">Whether the driver is to announce itself.</param>
    /// <param name="pairs">Pairs of queues.</param>
    /// <param name="mtu">The largest packet, if it is told.</param>
    public static void Write(Span<byte> config, MacAddress mac, bool isUp, bool announce, int pairs, int? mtu)
    {
        mac.CopyTo(config);
        BinaryPrimitives.WriteUInt16LittleEndian(config[6..], (ushort)((isUp ? LinkUp : 0) | (announce ? Announce : 0)));
        BinaryPrimitives.WriteUInt16LittleEndian(config[8..], (ushort)pairs);
        BinaryPrimitives.WriteUInt16LittleEndian(config[10..], (ushort)(mtu ?? 0));
    }
}
