using System.Buffers.Binary;
using NUnit.Framework;
using Vmm.Devices.Backends.Block;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Tests.Devices.Backends.Block;

/// <summary>What came back of a request.</summary>
internal readonly record struct BlockAnswer(byte Status, uint Written, byte[] Data);

/// <summary>A range of a discard or write zeroes, in sectors.</summary>
internal readonly record struct SectorRange(ulong Sector, uint Count, uint Flags = 0);

/// <summary>A block device with one ring, and the guest's driver of it: all on the calling thread.</summary>
internal sealed class BlockDriver : IDisposable
{
    public const byte Ok = 0;
    public const byte IoError = 1;
    public const byte Unsupported = 2;

    public const uint In = 0;
    public const uint Out = 1;
    public const uint Flush = 4;
    public const uint GetId = 8;
    public const uint Discard = 11;
    public const uint WriteZeroes = 13;

    private const int MemorySize = 8 << 20;
    private const ulong Buffers = 0x10000;

    private bool _isDisposed;
    private readonly Dictionary<ushort, (ulong Room, int Length)> _under = [];
    private readonly GuestMemory _memory = GuestMemory.Create([(new(0), MemorySize)]);
    private readonly DriverQueue _queue;
    private readonly IRingHandler _handler;
    private ulong _next = Buffers;

    public BlockDriver(BlockOptions options, int size = 64, ulong without = 0)
    {
        Device = new BlockBackend(options);
        ulong features = (Device.Features & ~without) | VirtioFeatures.Version1 | VirtioFeatures.IndirectDescriptors;
        Device.FeaturesAccepted(features);
        _queue = DriverQueue.Create(_memory.AddressSpace, 0, size, features);
        Ring = new BackendRing(Device, 0, features, VirtQueue.Create(_memory.AddressSpace, _queue.Layout, features));
        _handler = Device.StartRing(Ring);
    }

    public BlockBackend Device { get; }

    public BackendRing Ring { get; }

    public DriverQueue Queue => _queue;

    public IRingHandler Handler => _handler;

    /// <summary>A request, whose parts are cut up into pieces of these sizes; the last piece takes the rest.</summary>
    public BlockAnswer Do(uint type, ulong sector, ReadOnlySpan<byte> data = default, int room = 0, int[]? readableCuts = null, int[]? writableCuts = null,
        bool indirect = false)
    {
        ushort id = Add(type, sector, data, room, readableCuts, writableCuts, indirect);
        (ushort used, BlockAnswer answer) = Take();
        Assert.That(used, Is.EqualTo(id));
        return answer;
    }

    public BlockAnswer Do(uint type, params ReadOnlySpan<SectorRange> ranges) => Do(type, 0, Bytes(ranges));

    public ushort Add(uint type, ulong sector, ReadOnlySpan<byte> data = default, int room = 0, int[]? readableCuts = null, int[]? writableCuts = null,
        bool indirect = false)
    {
        var readable = new byte[16 + data.Length];
        BinaryPrimitives.WriteUInt32LittleEndian(readable, type);
        BinaryPrimitives.WriteUInt64LittleEndian(readable.AsSpan(8), sector);
        data.CopyTo(readable.AsSpan(16));
        return AddRaw(readable, room + 1, readableCuts ?? [16], writableCuts ?? [room], indirect);
    }

    public ushort AddRaw(ReadOnlySpan<byte> readable, int writable, int[] readableCuts, int[] writableCuts, bool indirect = false)
    {
        ulong start = Place(readable.Length);
        ulong room = Place(writable);
        readable.CopyTo(_memory.Slice(new(start), readable.Length));
        _memory.Slice(new(room), writable).Fill(0xEE);
        List<(ulong, uint, bool)> buffers = [.. Cut(start, readable.Length, readableCuts, false), .. Cut(room, writable, writableCuts, true)];
        ushort id = _queue.Add(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(buffers), indirect ? Place(16 * buffers.Count) : 0);
        _under[id] = (room, writable);
        return id;
    }

    /// <summary>A large request: one buffer, the same for all of these requests, which comes <paramref name="times"/> times.</summary>
    public ushort AddLarge(uint type, ulong sector, int length, int times)
    {
        ulong header = Place(16), room = Place(1), table = Place(16 * (times + 2)), data = MemorySize - (ulong)length;
        _memory.Write(new(header), type);
        _memory.Write(new(header + 8), sector);
        List<(ulong, uint, bool)> buffers = [(header, 16, false)];
        for (int i = 0; i < times; i++)
            buffers.Add((data, (uint)length, type == In));
        buffers.Add((room, 1, true));
        ushort id = _queue.Add(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(buffers), table);
        _under[id] = (room, 1);
        return id;
    }

    /// <summary>Has the device work until something has come back.</summary>
    public (ushort Id, BlockAnswer Answer) Take()
    {
        (ushort, BlockAnswer) taken = default;
        Eventually.True(
            () =>
            {
                Work();
                return TryTake(out taken);
            },
            () => "no request came back");
        return taken;
    }

    public bool TryTake(out (ushort Id, BlockAnswer Answer) taken)
    {
        taken = default;
        if (!_queue.TryGetUsed(out ushort id, out uint written))
            return false;
        Assert.That(_under.Remove(id, out (ulong Room, int Length) room), $"{id} was not under way");
        byte[] bytes = _memory.Slice(new(room.Room), room.Length).ToArray();
        taken = (id, new BlockAnswer(bytes.Length > 0 ? bytes[^1] : (byte)0xFF, written, bytes.Length > 0 ? bytes[..^1] : []));
        return true;
    }

    public void Work()
    {
        Ring.Process(_handler);
        if (_handler.Ready is FileDescriptor ready)
            Poll.Wait([new PollEntry(ready, PollEvents.Readable)], 100);
    }

    public static byte[] Bytes(ReadOnlySpan<SectorRange> ranges)
    {
        var bytes = new byte[16 * ranges.Length];
        for (int i = 0; i < ranges.Length; i++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(16 * i), ranges[i].Sector);
            BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(16 * i + 8), ranges[i].Count);
            BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(16 * i + 12), ranges[i].Flags);
        }
        return bytes;
    }

    public void Dispose()
    {
        if (_isDisposed)
            return;
        _isDisposed = true;
        _handler.Drain(Ring);
        _handler.Dispose();
        Device.Dispose();
        _memory.Dispose();
    }

    private ulong Place(int length)
    {
        // Round and round; what is under way is never that much.
        if (_next + (ulong)length > MemorySize)
            _next = Buffers;
        ulong place = _next;
        _next = (_next + (ulong)length + 4095) & ~4095UL;
        return place;
    }

    private static IEnumerable<(ulong, uint, bool)> Cut(ulong start, int length, int[] cuts, bool write)
    {
        foreach (int cut in cuts)
        {
            int part = Math.Min(cut, length);
            if (part == 0)
                continue;
            yield return (start, (uint)part, write);
            start += (ulong)part;
            length -= part;
        }
        if (length > 0)
            yield return (start, (uint)length, write);
    }
}
