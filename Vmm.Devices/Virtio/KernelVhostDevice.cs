using System.Runtime.InteropServices;
using Vmm.Vhost;
using Vmm.Vhost.Kernel;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio;

/// <summary>A device with one kernel back-end, whose rings are the device's first queues.</summary>
internal abstract class KernelVhostDevice : VirtioDevice
{
    private readonly EventLoop _events;
    private readonly EventFd _ringError = new();

    /// <summary>Opens the back-end.</summary>
    /// <param name="name">The device in messages.</param>
    /// <param name="open">Opens it.</param>
    /// <param name="events">Where ring errors are waited for.</param>
    /// <exception cref="VhostException">It cannot be had; the message begins with <paramref name="name"/>.</exception>
    protected KernelVhostDevice(string name, Func<VhostKernelBackend> open, EventLoop events)
    {
        Name = name;
        _events = events;
        try
        {
            Backend = open();
        }
        catch (VhostException e)
        {
            _ringError.Dispose();
            throw new VhostException($"{name}: {e.Message}", e);
        }
        events.Add(_ringError, RingFailed);
    }

    /// <inheritdoc/>
    public override string Name { get; }

    /// <summary>The data plane.</summary>
    protected VhostKernelBackend Backend { get; }

    /// <inheritdoc/>
    public override bool IsDelegated(int queue) => queue < Backend.RingCount;

    /// <inheritdoc/>
    public override void Start(ulong features, GuestMemory memory, IReadOnlyList<VringConfig> queues)
    {
        Backend.SetFeatures(features);
        Backend.SetMemory(memory);
        List<VringConfig> rings = [.. queues.Where(queue => IsDelegated(queue.Index)).Select(queue => queue with { Error = _ringError })];
        Backend.Start(CollectionsMarshal.AsSpan(rings));
    }

    /// <inheritdoc/>
    public override void Stop()
    {
        for (int i = 0; i < Backend.RingCount; i++)
            Backend.Stop(i);
        _ringError.Drain();
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        _events.Remove(_ringError);
        Backend.Dispose();
        _ringError.Dispose();
    }

    private void RingFailed()
    {
        lock (Sync)
        {
            if (!_ringError.IsClosed && _ringError.Drain() > 0)
                Host.NeedsReset($"{Backend.Name} cannot go on with a ring: the driver has put something into it that is not in memory");
        }
    }
}
