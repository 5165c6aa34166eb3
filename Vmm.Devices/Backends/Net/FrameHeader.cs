using Vmm.Devices.Net;


namespace Vmm.Devices.Backends.Net;

/// <summary>What struct virtio_net_hdr_v1 (VIRTIO 1.2 §5.1.6) before a frame says about it.</summary>
internal static class FrameHeader
{
    private const int FlagsOffset = 0, GsoTypeOffset = 1;
    private const byte NeedsChecksum = 1;                               // VIRTIO_NET_HDR_F_NEEDS_CSUM
    private const byte GsoNone = 0, GsoTcp4 = 1, GsoUdp = 3, GsoTcp6 = 4;   // VIRTIO_NET_HDR_GSO_*
    private const byte GsoEcn = 0x80;

    /// <summary>Whether a driver that accepted <paramref name="features"/> can take the frame. The kernel makes frames as the driver accepted
    /// them, but those that wait in a tap were made for the driver before: after a reset a boot loader, which accepts nothing, would get large
    /// segments.</summary>
    /// <param name="header">12 bytes at least.</param>
    /// <param name="features">What the driver accepted.</param>
    public static bool Suits(ReadOnlySpan<byte> header, ulong features)
    {
        byte type = header[GsoTypeOffset];
        ulong needed = (header[FlagsOffset] & NeedsChecksum) != 0 ? NetFeatures.GuestCsum : 0;
        needed |= (type & GsoEcn) != 0 ? NetFeatures.GuestEcn : 0;
        switch ((byte)(type & ~GsoEcn))
        {
            case GsoNone:
                break;
            case GsoTcp4:
                needed |= NetFeatures.GuestTso4;
                break;
            case GsoTcp6:
                needed |= NetFeatures.GuestTso6;
                break;
            case GsoUdp:
                needed |= NetFeatures.GuestUfo;
                break;
            default:
                return false;   // of a kind that nobody has agreed on
        }
        return (features & needed) == needed;
    }
}
