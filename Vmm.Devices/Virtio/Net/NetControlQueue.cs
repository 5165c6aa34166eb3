using System.Buffers.Binary;
using Vmm.Devices.Net;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Devices.Virtio.Net;

/// <summary>A network device's control queue (VIRTIO 1.2 §5.1.6.5): each request is a class, a command and its data, and gets one byte
/// for an answer.</summary>
internal sealed class NetControlQueue(SplitVirtqueue queue, INetControl control)
{
    private const byte Ok = 0;
    private const byte Error = 1;
    private const int HeaderSize = 2;
    private const int MaxVlan = 4095;

    private ReceiveFilter _filter = new();

    /// <summary>Answers the requests that are there, but for those that a driver goes on adding meanwhile.</summary>
    /// <param name="hasMore">Whether there may be more, for which no kick comes.</param>
    /// <returns>Whether the driver wants an interrupt for that.</returns>
    /// <exception cref="VirtqueueException">The queue is broken.</exception>
    public bool Process(out bool hasMore)
    {
        hasMore = true;
        for (int i = 0; i < queue.Size; i++)
        {
            if (queue.TryTake(out DescriptorChain request))
            {
                byte answer = Execute(in request) ? Ok : Error;
                queue.Return(request.Head, (uint)request.Write(0, [answer]));
            }
            else if (!queue.EnableKicks())
            {
                hasMore = false;
                break;
            }
        }
        return queue.ShouldCall();
    }

    private bool Execute(ref readonly DescriptorChain request)
    {
        Span<byte> header = stackalloc byte[HeaderSize];
        if (request.WritableLength == 0 || request.Read(0, header) != HeaderSize)
            return false;
        return (header[0], header[1]) switch
        {
            (0, <= 5) => SetReceiveMode(header[1], in request),
            (1, 0) => SetAddresses(in request),
            (1, 1) => SetMac(in request),
            (2, 0 or 1) => TryRead(in request, sizeof(ushort), out ulong vlan) && vlan <= MaxVlan,   // a tap knows no VLANs: all pass
            (3, 0) => Announced(),
            (4, 0) => TryRead(in request, sizeof(ushort), out ulong pairs) && control.TrySetQueuePairs((int)pairs),
            (5, 0) => TryRead(in request, sizeof(ulong), out ulong offloads) && control.TrySetOffloads(offloads),
            _ => false,
        };
    }

    private bool SetReceiveMode(byte command, ref readonly DescriptorChain request)
    {
        if (!TryRead(in request, sizeof(byte), out ulong on))
            return false;
        // The others (ALLUNI, NOMULTI, NOUNI, NOBCAST) only allow to pass less than now: a filter is best effort.
        if (command == 0)
            _filter = _filter with { Promiscuous = on != 0 };
        else if (command == 1)
            _filter = _filter with { AllMulticast = on != 0 };
        control.SetReceiveFilter(_filter);
        return true;
    }

    // Two tables, of single addresses and of groups: a count and the addresses each.
    private bool SetAddresses(ref readonly DescriptorChain request)
    {
        var addresses = new List<MacAddress>();
        bool tooMany = false;
        ulong offset = HeaderSize;
        Span<byte> field = stackalloc byte[MacAddress.Size];
        for (int table = 0; table < 2; table++)
        {
            if (request.Read(offset, field[..sizeof(uint)]) != sizeof(uint))
                return false;
            ulong count = BinaryPrimitives.ReadUInt32LittleEndian(field);
            offset += sizeof(uint);
            if (request.ReadableLength - offset < count * MacAddress.Size)
                return false;
            tooMany |= count > (ulong)(ReceiveFilter.MaxAddresses - addresses.Count);
            for (ulong i = 0; i < count && !tooMany; i++)
            {
                request.Read(offset + i * MacAddress.Size, field);
                addresses.Add(new MacAddress(field));
            }
            offset += count * MacAddress.Size;
        }
        if (offset != request.ReadableLength)
            return false;
        _filter = _filter with { Addresses = tooMany ? null : addresses };
        control.SetReceiveFilter(_filter);
        return true;
    }

    private bool SetMac(ref readonly DescriptorChain request)
    {
        Span<byte> bytes = stackalloc byte[MacAddress.Size];
        if (request.ReadableLength != HeaderSize + MacAddress.Size || request.Read(HeaderSize, bytes) != bytes.Length)
            return false;
        var address = new MacAddress(bytes);
        if (address.IsMulticast || address.IsZero)
            return false;
        control.SetMac(address);
        return true;
    }

    private bool Announced()
    {
        control.AcknowledgeAnnounce();
        return true;
    }

    // The data of a command that is one little-endian number, and nothing after it.
    private static bool TryRead(ref readonly DescriptorChain request, int size, out ulong value)
    {
        Span<byte> bytes = stackalloc byte[sizeof(ulong)];
        bytes.Clear();
        bool isThere = request.ReadableLength == (ulong)(HeaderSize + size) && request.Read(HeaderSize, bytes[..size]) == size;
        value = BinaryPrimitives.ReadUInt64LittleEndian(bytes);
        return isThere;
    }
}
