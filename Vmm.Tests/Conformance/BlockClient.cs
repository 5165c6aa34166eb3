using System.Buffers.Binary;
using System.Text;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Memory;

namespace Vmm.Tests.Conformance;

/// <summary>Plays a guest's block driver on one queue (VIRTIO 1.2 §5.2.6).</summary>
internal sealed class BlockClient
{
    public const int SectorSize = 512;
    public const byte Ok = 0;
    public const byte IoError = 1;
    public const byte Unsupported = 2;

    private const int HeaderSize = 16;
    private const uint In = 0;
    private const uint Out = 1;
    private const uint FlushType = 4;
    private const uint GetIdType = 8;
    private const uint DiscardType = 11;
    private const uint WriteZeroesType = 13;

    private readonly PeerQueue _queue;
    private readonly GuestMemory _memory;
    private readonly Stack<Slot> _free = new();
    private readonly Dictionary<int, Slot> _pending = [];

    /// <summary>A driver with room for <paramref name="depth"/> requests at a time, whose buffers are in <paramref name="region"/>.</summary>
    public BlockClient(GuestHeap heap, PeerQueue queue, int depth = 1, int region = 0, int slotSize = 256 * 1024)
    {
        _queue = queue;
        _memory = heap.Memory;
        for (int i = 0; i < depth; i++)
            _free.Push(new Slot(heap.Allocate(HeaderSize, region), heap.Allocate(slotSize, region), heap.Allocate(1, region)));
    }

    /// <summary>Where the data of requests goes that are not on their way.</summary>
    public GuestAddress[] FreeBuffers => [.. _free.Select(slot => slot.Data)];

    /// <summary>Reads and waits for it.</summary>
    public byte[] Read(long sector, int length)
    {
        SubmitRead(sector, length);
        (Slot slot, byte status) = Complete();
        Assert.That(status, Is.EqualTo(Ok), $"reading {length} bytes at sector {sector}");
        return slot.Read(_memory);
    }

    public void Write(long sector, ReadOnlySpan<byte> data)
    {
        SubmitWrite(sector, data);
        Assert.That(Complete().Status, Is.EqualTo(Ok), $"writing {data.Length} bytes at sector {sector}");
    }

    public void Flush()
    {
        Submit(FlushType, 0, [], 0);
        Assert.That(Complete().Status, Is.EqualTo(Ok), "flushing");
    }

    /// <summary>The identification, up to its first null.</summary>
    public string GetId()
    {
        Submit(GetIdType, 0, [], 20);
        (Slot slot, byte status) = Complete();
        Assert.That(status, Is.EqualTo(Ok), "identifying");
        return Encoding.ASCII.GetString(slot.Read(_memory)).TrimEnd('\0');
    }

    public void Discard(long sector, int sectors) => SendRange(DiscardType, sector, sectors, 0);

    /// <summary>Writes zeros; with <paramref name="mayUnmap"/> as a hole.</summary>
    public void WriteZeroes(long sector, int sectors, bool mayUnmap) => SendRange(WriteZeroesType, sector, sectors, mayUnmap ? 1U : 0);

    /// <summary>The status of a request of type <paramref name="type"/> with <paramref name="room"/> bytes for an answer.</summary>
    public byte Try(uint type, long sector, int room)
    {
        Submit(type, sector, [], room);
        return Complete().Status;
    }

    public void SubmitRead(long sector, int length, object? tag = null) => Submit(In, sector, [], length, tag);

    public void SubmitWrite(long sector, ReadOnlySpan<byte> data, object? tag = null) => Submit(Out, sector, data, 0, tag);

    /// <summary>Waits for a request, whichever comes back first.</summary>
    public (Slot Slot, byte Status) Complete()
    {
        (int id, int written) = _queue.Take();
        Assert.That(_pending.Remove(id, out Slot? slot), $"request {id} came back, which is not on its way");
        byte status = _memory.Read<byte>(slot!.Status);
        Assert.That(written, Is.EqualTo(slot.Room + 1), "bytes written to the request");
        _free.Push(slot);
        return (slot, status);
    }

    private void SendRange(uint type, long sector, int sectors, uint flags)
    {
        byte[] range = new byte[16];
        BinaryPrimitives.WriteInt64LittleEndian(range, sector);
        BinaryPrimitives.WriteInt32LittleEndian(range.AsSpan(8), sectors);
        BinaryPrimitives.WriteUInt32LittleEndian(range.AsSpan(12), flags);
        Submit(type, 0, range, 0);
        Assert.That(Complete().Status, Is.EqualTo(Ok), $"request of type {type} for {sectors} sectors at {sector}");
    }

    private void Submit(uint type, long sector, ReadOnlySpan<byte> data, int room, object? tag = null)
    {
        Slot slot = _free.Pop();
        slot.Room = room;
        slot.Tag = tag;
        _memory.Write(slot.Header, type);
        _memory.Write(slot.Header + 4, 0U);
        _memory.Write(slot.Header + 8, sector);
        _memory.Write(slot.Status, (byte)0xFF);
        data.CopyTo(_memory.Slice(slot.Data, data.Length));
        var header = new PeerBuffer(slot.Header, HeaderSize, false);
        var status = new PeerBuffer(slot.Status, 1, true);
        int id = data.Length > 0 ? _queue.Submit(header, new(slot.Data, data.Length, false), status)
            : room > 0 ? _queue.Submit(header, new(slot.Data, room, true), status)
            : _queue.Submit(header, status);
        _pending.Add(id, slot);
    }

    /// <summary>The memory of one request.</summary>
    internal sealed class Slot(GuestAddress header, GuestAddress data, GuestAddress status)
    {
        public GuestAddress Header { get; } = header;

        public GuestAddress Data { get; } = data;

        public GuestAddress Status { get; } = status;

        public int Room { get; set; }

        /// <summary>What the test said about the request.</summary>
        public object? Tag { get; set; }

        /// <summary>What the device has written.</summary>
        public byte[] Read(GuestMemory memory) => memory.Slice(Data, Room).ToArray();
    }
}
