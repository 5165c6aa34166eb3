using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Memory;

namespace Vmm.Tests.Conformance;

/// <summary>Plays a guest's network driver on one queue pair (VIRTIO 1.2 §5.1.6).</summary>
internal sealed class NetClient
{
    private const int HeaderSize = 12;   // struct virtio_net_hdr of a device that is no legacy device
    private const int BufferSize = 2048;
    private const int Buffers = 32;

    private readonly GuestMemory _memory;
    private readonly PeerQueue _receive;
    private readonly PeerQueue _transmit;
    private readonly GuestAddress _sending;
    private readonly Dictionary<int, GuestAddress> _receiving = [];

    public NetClient(GuestHeap heap, PeerQueue receive, PeerQueue transmit)
    {
        _memory = heap.Memory;
        _receive = receive;
        _transmit = transmit;
        _sending = heap.Allocate(BufferSize);
        for (int i = 0; i < Buffers; i++)
            Offer(heap.Allocate(BufferSize));
    }

    /// <summary>Sends a frame and waits until the device has taken it.</summary>
    public void Send(ReadOnlySpan<byte> frame)
    {
        _memory.Slice(_sending, HeaderSize).Clear();
        frame.CopyTo(_memory.Slice(_sending + HeaderSize, frame.Length));
        int id = _transmit.Submit(new PeerBuffer(_sending, HeaderSize + frame.Length, false));
        Assert.That(_transmit.Take().Id, Is.EqualTo(id));
    }

    /// <summary>Waits for a frame.</summary>
    public byte[] Receive()
    {
        (int id, int written) = _receive.Take();
        Assert.That(_receiving.Remove(id, out GuestAddress buffer), $"buffer {id} came back, which is not on its way");
        Assert.That(written, Is.InRange(HeaderSize, BufferSize));
        byte[] frame = _memory.Slice(buffer + HeaderSize, written - HeaderSize).ToArray();
        Offer(buffer);
        return frame;
    }

    /// <summary>Whether a frame is there already.</summary>
    public bool HasReceived => _receive.TryTake(out _);

    private void Offer(GuestAddress buffer) => _receiving.Add(_receive.Submit(new PeerBuffer(buffer, BufferSize, true)), buffer);
}
