using System.Buffers.Binary;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Net;

/// <summary>A broadcast by which switches learn behind which port a MAC address is now: a RARP request (RFC 903) of a station that asks
/// for its own IP address. Nobody is expected to answer.</summary>
internal static unsafe class RarpFrame
{
    /// <summary>Bytes: the smallest Ethernet frame, without its checksum.</summary>
    public const int Size = 60;

    private const ushort EtherType = 0x8035, Ethernet = 1, Ipv4 = 0x0800, RequestReverse = 3;
    private const int MacSize = 6, Ipv4Size = 4;

    /// <summary>Sends one for <paramref name="mac"/>.</summary>
    /// <returns>0 or more; less: the negated error number.</returns>
    public static int Send(IFramePort port, ReadOnlySpan<byte> mac)
    {
        Span<byte> packet = stackalloc byte[IFramePort.HeaderSize + Size];
        packet.Clear();     // no offloads, no IP addresses, and padding
        Write(packet[IFramePort.HeaderSize..], mac);
        fixed (byte* pointer = packet)
        {
            // SAFETY: pinned for the call.
            return port.TrySend(0, [new IoVector((nint)pointer, IFramePort.HeaderSize), new IoVector((nint)pointer + IFramePort.HeaderSize, Size)]);
        }
    }

    private static void Write(Span<byte> frame, ReadOnlySpan<byte> mac)
    {
        frame[..MacSize].Fill(0xFF);
        mac.CopyTo(frame[MacSize..]);
        BinaryPrimitives.WriteUInt16BigEndian(frame[12..], EtherType);
        Span<byte> request = frame[14..];
        BinaryPrimitives.WriteUInt16BigEndian(request, Ethernet);
        BinaryPrimitives.WriteUInt16BigEndian(request[2..], Ipv4);
        request[4] = MacSize;
        request[5] = Ipv4Size;
        BinaryPrimitives.WriteUInt16BigEndian(request[6..], RequestReverse);
        mac.CopyTo(request[8..]);       // sender, then its IP address
        mac.CopyTo(request[18..]);      // target: the same station
    }
}
