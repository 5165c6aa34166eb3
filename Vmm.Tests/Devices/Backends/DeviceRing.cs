using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Tests.Devices.Backends;

/// <summary>One ring of a device and the guest's driver of it, both on the calling thread.</summary>
internal sealed class DeviceRing : IDisposable
{
    private const int MemorySize = 4 << 20;
    private const ulong Buffers = 0x10000;

    private readonly GuestMemory _memory = GuestMemory.Create([(new(0), MemorySize)]);
    private readonly Dictionary<ushort, (ulong Address, uint Length)[]> _added = [];
    private readonly DriverQueue _queue;
    private readonly IRingHandler _handler;
    private ulong _next = Buffers;

    public DeviceRing(VhostUserDevice device, int index, ulong features = 0, int size = 64)
    {
        features |= VirtioFeatures.IndirectDescriptors;
        _queue = DriverQueue.Create(_memory.AddressSpace, 0, size, features);
        RingLayout layout = _queue.Layout with { Index = index };
        Ring = new BackendRing(device, index, features, VirtQueue.Create(_memory.AddressSpace, layout, features));
        _handler = device.StartRing(Ring);
    }

    public BackendRing Ring { get; }

    /// <summary>What the ring would wait for.</summary>
    public FileDescriptor? Ready => _handler.Ready;

    /// <summary>Adds a request of these buffers to write.</summary>
    public void AddRoom(params ReadOnlySpan<int> lengths)
    {
        var buffers = new (ulong, uint, bool)[lengths.Length];
        for (int i = 0; i < lengths.Length; i++)
            buffers[i] = (Allocate(lengths[i]), (uint)lengths[i], true);
        Add(buffers);
    }

    /// <summary>Adds a request with <paramref name="data"/> to read, the first buffers of these lengths, and one for the rest.</summary>
    public void AddData(ReadOnlySpan<byte> data, params ReadOnlySpan<int> cuts) => Add(data, cuts, room: 0);

    /// <summary>Adds a request with <paramref name="data"/> to read, cut as above, and <paramref name="room"/> bytes to write, if any.</summary>
    public void Add(ReadOnlySpan<byte> data, ReadOnlySpan<int> cuts, int room) => Add(data, cuts, room > 0 ? [room] : []);

    /// <summary>The same, with <paramref name="rooms"/> to write, each a buffer.</summary>
    public void Add(ReadOnlySpan<byte> data, ReadOnlySpan<int> cuts, ReadOnlySpan<int> rooms)
    {
        var buffers = new List<(ulong, uint, bool)>();
        for (int i = 0; !data.IsEmpty; i++)
        {
            int length = Math.Min(data.Length, i < cuts.Length ? cuts[i] : data.Length);
            ulong address = Allocate(length);
            data[..length].CopyTo(_memory.Slice(new(address), length));
            buffers.Add((address, (uint)length, false));
            data = data[length..];
        }
        foreach (int room in rooms)
            buffers.Add((Allocate(room), (uint)room, true));
        Add([.. buffers]);
    }

    /// <summary>Has the device work.</summary>
    public void Process() => Ring.Process(_handler);

    /// <summary>Has it work until <paramref name="done"/>, whenever what it waits for is ready.</summary>
    public void ProcessUntil(Func<bool> done) => Eventually.True(
        () =>
        {
            Process();
            return done();
        },
        () => "the device did not do it");

    public void Drain() => _handler.Drain(Ring);

    /// <summary>What came back next: the bytes that were written, cut off where the device says; null if nothing did.</summary>
    public byte[]? Take()
    {
        if (!_queue.TryGetUsed(out ushort id, out uint written))
            return null;
        Assert.That(_added.Remove(id, out (ulong Address, uint Length)[]? buffers), $"request {id} came back that was not there");
        var data = new List<byte>();
        foreach ((ulong address, uint length) in buffers!)
            data.AddRange(_memory.Slice(new(address), (int)Math.Min(length, written - data.Count)));
        Assert.That(data, Has.Count.EqualTo(written), "the device says that it has written more than there is room for");
        return [.. data];
    }

    /// <summary>The same; something must have come back.</summary>
    public byte[] Await()
    {
        byte[]? data = null;
        ProcessUntil(() => (data = Take()) is not null);
        return data!;
    }

    public void Dispose()
    {
        _handler.Drain(Ring);
        _handler.Dispose();
        _memory.Dispose();
    }

    private void Add(ReadOnlySpan<(ulong Address, uint Length, bool Write)> buffers)
    {
        ushort id = _queue.Add(buffers, buffers.Length > _queue.Size ? Allocate(16 * buffers.Length) : 0);     // indirectly
        var places = new (ulong, uint)[buffers.Length];
        for (int i = 0; i < buffers.Length; i++)
            places[i] = (buffers[i].Address, buffers[i].Write ? buffers[i].Length : 0);
        _added[id] = places;
    }

    // Memory is used again from its start: no test has so much underway.
    private ulong Allocate(int length)
    {
        if (_next + (ulong)length > MemorySize)
            _next = Buffers;
        ulong address = _next;
        _next += (ulong)length;
        return address;
    }
}
