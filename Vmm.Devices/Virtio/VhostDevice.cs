using System.Runtime.InteropServices;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio;

/// <summary>A device with one back-end, whose rings are the device's first queues.</summary>
internal abstract class VhostDevice : VirtioDevice
{
    private const int MaxWarnings = 16;   // bounds what a guest that tries again and again makes us write

    private static readonly BoundedLog s_log = new("Vmm.Devices.Virtio");

    private readonly EventLoop _events;
    private readonly EventFd _ringError = new();
    private int _warnings;

    /// <summary>Nothing is waited for yet.</summary>
    /// <param name="name">The device in messages.</param>
    /// <param name="events">Where they are waited for.</param>
    protected VhostDevice(string name, EventLoop events)
    {
        Name = name;
        _events = events;
    }

    /// <inheritdoc/>
    public override string Name { get; }

    /// <summary>The data plane; null only while the device is being made.</summary>
    protected abstract IVhostBackend? DataPlane { get; }

    /// <inheritdoc/>
    public override void Listen() => _events.Add(_ringError, RingFailed, failed: Fail);

    /// <inheritdoc/>
    public override bool IsDelegated(int queue) => queue < Rings.RingCount;

    private IVhostBackend Rings => DataPlane!;

    /// <inheritdoc/>
    public override bool AcceptFeatures(ulong features, GuestMemory memory)
    {
        string why;
        try
        {
            if (!Rings.MayWrite(memory))
            {
                Rings.SetFeatures(features);
                return true;
            }
            why = $"{Rings.Name}: a back-end that did not finish its requests may still write to guest memory: restart the guest";
        }
        catch (VhostException e)
        {
            why = e.Message;
        }
        if (_warnings++ < MaxWarnings)
            s_log.Warn("{Device}: the driver is refused: {Reason}", Name, why);
        return false;
    }

    /// <inheritdoc/>
    public override bool MayWrite(GuestMemory memory) => Rings.MayWrite(memory);

    /// <inheritdoc/>
    public override void Start(ulong features, GuestMemory memory, IReadOnlyList<VringConfig> queues)
    {
        Rings.SetMemory(memory);
        StartRings(queues.Where(queue => IsDelegated(queue.Index)));
    }

    /// <summary>Starts rings of the back-end's.</summary>
    /// <exception cref="VhostException">It refused; none of them runs.</exception>
    protected void StartRings(IEnumerable<VringConfig> queues)
    {
        List<VringConfig> rings = [.. queues.Select(queue => queue with { Error = _ringError })];
        Rings.Start(CollectionsMarshal.AsSpan(rings));
    }

    /// <inheritdoc/>
    public override void Stop()
    {
        Rings.StopAll();
        _ringError.DrainPeer();
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        _events.Remove(_ringError);
        DataPlane?.Dispose();
        _ringError.Dispose();
    }

    private void RingFailed()
    {
        lock (Sync)
        {
            if (_ringError.IsClosed || !IsSignalled(_ringError))
                return;
            // Drained only afterwards: the stop that follows looks whether a ring has failed.
            Host.NeedsReset($"{Rings.Name} cannot go on with a ring: the driver has put something into it that makes no sense");
            _ringError.DrainPeer();
        }
    }

    private static bool IsSignalled(EventFd descriptor) => Poll.Wait([new PollEntry(descriptor, PollEvents.Readable)], 0) > 0;
}
