using Vmm.Vhost.Virtqueue;

namespace Vmm.Devices.Virtio.Vsock;

/// <summary>The event queue of a socket device (VIRTIO 1.2 §5.10.6.7). Its one event tells the driver that all connections are gone and that
/// its CID may be another: Linux then ends every connected socket, so that nobody waits for a peer that does not exist any more.</summary>
internal sealed class VsockEventQueue(VirtQueue queue)
{
    // struct virtio_vsock_event with the id VIRTIO_VSOCK_EVENT_TRANSPORT_RESET, which is 0.
    private static readonly byte[] s_transportReset = new byte[sizeof(uint)];

    private bool _isDue;

    /// <summary>The event is to be told as soon as the driver has a buffer for it.</summary>
    public void TransportWasReset() => _isDue = true;

    /// <summary>Tells the event, if one is due and the driver has a buffer for it.</summary>
    /// <returns>Whether the driver wants an interrupt for that.</returns>
    /// <exception cref="VirtqueueException">The queue is broken.</exception>
    public bool Process()
    {
        bool hasReturned = false;
        // Each turn gives a buffer back, and the driver is held up while this thread has the lock: the bound is for other vCPUs.
        for (int i = 0; _isDue && i < queue.Size; i++)
        {
            if (!queue.TryTake(out DescriptorChain buffer))
            {
                if (!queue.EnableKicks())
                    break;
                continue;
            }
            int written = buffer.Write(0, s_transportReset);
            queue.Return(buffer.Head, (uint)written);
            hasReturned = true;
            _isDue = written < s_transportReset.Length;   // a buffer that is too small does not hold it
        }
        return hasReturned && queue.ShouldCall();
    }
}
