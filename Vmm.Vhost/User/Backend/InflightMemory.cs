using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Vhost.User.Backend;

/// <summary>The memory in which what is in flight outlives this process: a log for each ring, one after another. The front-end keeps it.</summary>
internal sealed unsafe class InflightMemory : IDisposable
{
    private readonly MemoryMapping _mapping;
    private readonly ulong _start;
    private readonly InflightPayload _payload;

    private InflightMemory(SharedFile file, in InflightPayload payload)
    {
        _mapping = file.Mapping;
        _start = file.Start;
        _payload = payload;
    }

    /// <summary>Bytes for <paramref name="queues"/> rings. Of which kind they will be need not be known yet.</summary>
    public static ulong SizeOf(int queues, int capacity) => (ulong)queues * VirtQueue.InflightSizeOf(isPacked: true, capacity);

    /// <summary>Maps what a front-end has kept.</summary>
    /// <exception cref="RefusedException">It cannot be mapped, or is too small.</exception>
    public static InflightMemory Map(in InflightPayload payload, FileDescriptor file)
    {
        if ((ulong)payload.RingCount * VirtQueue.InflightSizeOf(isPacked: false, payload.QueueSize) > payload.MmapSize)
            throw new RefusedException($"{payload.MmapSize} bytes are too few for {payload.RingCount} rings of {payload.QueueSize}");
        return new InflightMemory(SharedFile.Map(file, payload.MmapOffset, payload.MmapSize, "the in-flight log"), in payload);
    }

    /// <summary>The device's own memory, which lies behind the logs of the rings.</summary>
    /// <param name="size">Bytes.</param>
    /// <returns>Null where there is no room for it.</returns>
    public KeptMemory? Kept(int size)
    {
        ulong logs = SizeOf(_payload.RingCount, _payload.QueueSize);
        return size > 0 && logs <= _payload.MmapSize && (ulong)size <= _payload.MmapSize - logs ? new KeptMemory(_mapping, _start + logs, size) : null;
    }

    /// <summary>Has <paramref name="queue"/> use its part.</summary>
    /// <returns>False if there is none for it: cloud-hypervisor asks for as many parts as its guest uses queues, which may be others than the first.</returns>
    /// <exception cref="VirtqueueException">What is there is no such log.</exception>
    public bool TryTrack(VirtQueue queue, ulong features)
    {
        ulong size = VirtQueue.InflightSizeOf((features & VirtioFeatures.RingPacked) != 0, _payload.QueueSize);
        if (queue.Index >= _payload.RingCount || queue.Size > _payload.QueueSize || size * _payload.RingCount > _payload.MmapSize)
            return false;
        // SAFETY: the parts of all rings lie in the mapping, which is held as long as rings run.
        queue.TrackInflight(_mapping.Pointer + _start + size * (ulong)queue.Index, _payload.QueueSize);
        return true;
    }

    /// <summary>The number and the size of the rings that it has room for, for messages.</summary>
    public override string ToString() => $"in-flight log for {_payload.RingCount} rings of {_payload.QueueSize}";

    /// <summary>Has a ring begin anew: nothing of it is in flight.</summary>
    public void Forget(int index, bool isPacked)
    {
        ulong size = VirtQueue.InflightSizeOf(isPacked, _payload.QueueSize);
        if (index < _payload.RingCount && size * _payload.RingCount <= _payload.MmapSize)
            VirtQueue.ForgetInflight(_mapping.Pointer + _start + size * (ulong)index);
    }

    public void Dispose() => _mapping.Dispose();
}
