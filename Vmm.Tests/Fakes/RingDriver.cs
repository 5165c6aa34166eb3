using System.Runtime.InteropServices;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Fakes;

/// <summary>Plays the driver's side of a split virtqueue (VIRTIO 1.2 §2.7): puts chains into a ring, and finds what came back.</summary>
internal sealed class RingDriver : IDisposable
{
    public const ushort Next = 1;
    public const ushort Write = 2;
    public const ushort Indirect = 4;
    public const ulong MemorySize = 1 << 20;

    private const ulong Descriptors = 0x1000;
    private const ulong Available = 0x3000;
    private const ulong Used = 0x4000;

    private readonly EventFd _kick = new();
    private readonly EventFd _call = new();
    private ushort _published;

    public RingDriver(int size = 8, int index = 0)
    {
        Memory = GuestMemory.Create([(new(0), MemorySize)]);
        Config = new VringConfig
        {
            Index = index,
            Size = size,
            DescriptorArea = new(Descriptors),
            DriverArea = new(Available),
            DeviceArea = new(Used),
            Kick = _kick,
            Call = _call,
        };
    }

    public GuestMemory Memory { get; }

    public VringConfig Config { get; }

    public ushort UsedIndex => Memory.Read<ushort>(new(Used + 2));

    /// <summary>The event index that the device writes behind its ring.</summary>
    public ushort AvailableEvent => Memory.Read<ushort>(new(Used + 4 + 8 * (ulong)Config.Size));

    public void SetFlags(ushort flags) => Memory.Write(new(Available), flags);

    public void SetUsedEvent(ushort value) => Memory.Write(new(Available + 4 + 2 * (ulong)Config.Size), value);

    public void SetAvailableIndex(ushort value) => Memory.Write(new(Available + 2), _published = value);

    public void SetDescriptor(int index, ulong address, uint length, ushort flags, ushort next = 0, ulong table = Descriptors) =>
        Memory.Write(new(table + 16 * (ulong)index), new Descriptor { Address = address, Length = length, Flags = flags, Next = next });

    /// <summary>Makes the chain that begins at <paramref name="head"/> available.</summary>
    public void Publish(ushort head)
    {
        Memory.Write(new(Available + 4 + 2 * (ulong)(_published % Config.Size)), head);
        SetAvailableIndex((ushort)(_published + 1));
    }

    /// <summary>Makes a request available: one descriptor to read with <paramref name="data"/>, one of <paramref name="room"/> bytes to
    /// write behind it, from descriptor 0 on. Its buffers are at <see cref="DataAddress"/> and <see cref="RoomAddress"/>.</summary>
    public void PublishRequest(ReadOnlySpan<byte> data, int room)
    {
        data.CopyTo(Memory.Slice(new(DataAddress), data.Length));
        SetDescriptor(0, DataAddress, (uint)data.Length, room > 0 ? Next : (ushort)0, 1);
        SetDescriptor(1, RoomAddress, (uint)room, Write);
        Publish(0);
    }

    public const ulong DataAddress = 0x8000;

    public const ulong RoomAddress = 0x20000;

    /// <summary>The entry of the used ring.</summary>
    public (uint Id, uint Length) UsedEntry(int index) =>
        (Memory.Read<uint>(new(Used + 4 + 8 * (ulong)index)), Memory.Read<uint>(new(Used + 8 + 8 * (ulong)index)));

    public void Dispose()
    {
        Memory.Dispose();
        _kick.Dispose();
        _call.Dispose();
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct Descriptor
    {
        public ulong Address;
        public uint Length;
        public ushort Flags;
        public ushort Next;
    }
}
