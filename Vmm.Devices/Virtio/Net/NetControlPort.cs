using Vmm.Devices.Net;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Devices.Virtio.Net;

/// <summary>The control queue of a network device in its place: started and stopped with the device, worked on the thread of the vCPU
/// that kicks it.</summary>
/// <param name="device">The device, whose <see cref="VirtioDevice.Sync"/> is held for every call.</param>
/// <param name="control">What the requests are for.</param>
/// <param name="events">Where kicks are waited for that do not come by <see cref="VirtioDevice.Notify"/>, and what a call has left goes on.</param>
internal sealed class NetControlPort(VirtioDevice device, INetControl control, EventLoop events)
{
    /// <summary>The size that a control queue may have.</summary>
    public const int QueueSize = 64;

    private NetControlQueue? _queue;
    private EventFd? _kick;

    /// <summary>Which of the queues of a device with <paramref name="pairs"/> pairs is the control queue. Without MQ it comes after the
    /// first pair (VIRTIO 1.2 §5.1.2).</summary>
    public static int IndexOf(ulong features, int pairs) => (features & NetFeatures.Mq) != 0 ? 2 * pairs : 2;

    /// <summary>Begins to work <paramref name="queue"/>.</summary>
    /// <exception cref="VirtqueueException">It is not in memory.</exception>
    public void Start(GuestMemory memory, VringConfig queue, ulong features)
    {
        _queue = new NetControlQueue(new SplitVirtqueue(memory.AddressSpace, queue, features), control);
        // A driver with MQ kicks by Notify: what that call has left undone goes on here. A driver without MQ has the control queue in the place of a data queue, so KVM signals its kicks.
        // An earlier driver may have had a data queue there, with a back-end that still has the eventfd and may have made it blocking: hence the calls for peers.
        _kick = queue.Kick;
        events.Add(queue.Kick, () =>
        {
            lock (device.Sync)
            {
                if (_kick is null)
                    return;
                _kick.DrainPeer();
                Process();
            }
        }, failed: Fail);
    }

    /// <summary>Forgets the queue.</summary>
    public void Stop()
    {
        if (_kick is not null)
            events.Remove(_kick);
        _kick = null;
        _queue = null;
    }

    /// <summary>Answers what is in the queue.</summary>
    public void Process()
    {
        if (_queue is null)
            return;
        try
        {
            if (_queue.Process(out bool hasMore))
                device.Host.InterruptQueue();
            if (hasMore)
                _kick?.SignalPeer();
        }
        catch (VhostException e)
        {
            device.Host.NeedsReset($"control queue: {e.Message}");
        }
    }

    private void Fail(string reason)
    {
        lock (device.Sync)
            device.Host.NeedsReset($"control queue: {reason}");
    }
}
