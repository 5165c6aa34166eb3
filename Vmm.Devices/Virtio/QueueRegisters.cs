using System.Numerics;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio;

/// <summary>One queue as its driver sets it up.</summary>
internal sealed class QueueRegisters(int index, int maxSize) : IDisposable
{
    private const int DescriptorSize = 16;
    private const int AvailableEntrySize = 2;
    private const int UsedEntrySize = 8;
    private const int RingHeaderAndEvent = 6;   // flags, idx and the event index (VIRTIO 1.2 §2.7.6, §2.7.8)
    private const int EventSuppressionSize = 4; // of a packed ring (VIRTIO 1.2 §2.8.10)

    public int MaxSize { get; } = maxSize;

    public bool Ready { get; set; }

    public uint Size { get; set; } = (uint)maxSize;

    public ulong Descriptors { get; set; }

    public ulong Driver { get; set; }

    public ulong Device { get; set; }

    public EventFd Kick { get; } = new();

    /// <summary>Forgets what the driver wrote.</summary>
    public void Reset()
    {
        Ready = false;
        Size = (uint)MaxSize;
        Descriptors = Driver = Device = 0;
        Kick.DrainPeer();
    }

    /// <summary>Checks what the driver wrote: this is the one place where a ring's size and addresses are looked at.</summary>
    /// <param name="memory">The memory in which all three areas must lie, each in one region.</param>
    /// <param name="features">What the driver accepted.</param>
    /// <param name="call">What the back-end signals.</param>
    /// <exception cref="VhostException">The driver's mistake, in a few words.</exception>
    public VringConfig Check(GuestMemory memory, ulong features, EventFd call)
    {
        bool packed = (features & VirtioFeatures.RingPacked) != 0;
        if (Size == 0 || Size > MaxSize || (!packed && !BitOperations.IsPow2(Size)))
            throw new VhostException($"queue {index} has a size of {Size}, of {MaxSize} at most");
        CheckArea(memory, "descriptors", Descriptors, DescriptorSize * Size, alignment: 16);
        CheckArea(memory, "driver area", Driver, packed ? EventSuppressionSize : RingHeaderAndEvent + AvailableEntrySize * Size, packed ? 4U : 2);
        CheckArea(memory, "device area", Device, packed ? EventSuppressionSize : RingHeaderAndEvent + UsedEntrySize * Size, alignment: 4);
        return new VringConfig
        {
            Index = index,
            Size = (int)Size,
            DescriptorArea = new(Descriptors),
            DriverArea = new(Driver),
            DeviceArea = new(Device),
            Base = packed ? PackedStart : 0,
            Kick = Kick,
            Call = call,
        };
    }

    // Both wrap counters start at 1 (VIRTIO 1.2 §2.8.1); they are bits 15 and 31 (vhost-user.rst, "Vring state").
    private const uint PackedStart = 0x8000_8000;

    /// <inheritdoc/>
    public void Dispose() => Kick.Dispose();

    private void CheckArea(GuestMemory memory, string what, ulong address, ulong length, uint alignment)
    {
        if (address % alignment != 0 || !memory.TrySlice(new(address), length, out _))
            throw new VhostException($"the {what} of queue {index} at 0x{address:x}+0x{length:x} are not in memory, or not aligned");
    }
}
