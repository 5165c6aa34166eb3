using System.Buffers.Binary;

namespace Vmm.Devices.Backends.Net;

/// <summary>The addresses by which a host means itself: they have no place on a wire (RFC 1122 §3.2.1.3, RFC 4291 §2.5).</summary>
internal static class Loopback
{
    private const int TypeOffset = 12, PacketOffset = 14;
    private const ushort Ipv4 = 0x0800, Ipv6 = 0x86DD;
    private const int Ipv4Destination = PacketOffset + 16, Ipv6Destination = PacketOffset + 24;
    private const int Ipv6Size = 16, Ipv6Zeros = 10;

    /// <summary>Whether an Ethernet frame is for such an address: 0.0.0.0/8 or 127.0.0.0/8; ::, ::1, or an address of IPv4 within one of IPv6 (::/96, ::ffff:0:0/96).</summary>
    public static bool IsMeant(ReadOnlySpan<byte> frame)
    {
        if (frame.Length < PacketOffset)
            return false;
        ushort type = BinaryPrimitives.ReadUInt16BigEndian(frame[TypeOffset..]);
        if (type == Ipv4)
            return frame.Length > Ipv4Destination && frame[Ipv4Destination] is 0 or 127;
        if (type != Ipv6 || frame.Length < Ipv6Destination + Ipv6Size)
            return false;
        ReadOnlySpan<byte> destination = frame.Slice(Ipv6Destination, Ipv6Size);
        return !destination[..Ipv6Zeros].ContainsAnyExcept((byte)0) && BinaryPrimitives.ReadUInt16BigEndian(destination[Ipv6Zeros..]) is 0 or 0xFFFF;
    }
}
