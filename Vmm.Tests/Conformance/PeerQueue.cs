using System.Diagnostics;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Conformance;

/// <summary>A piece of guest memory that a driver gives to its device.</summary>
internal readonly record struct PeerBuffer(GuestAddress Address, int Length, bool IsWritable);

/// <summary>A queue as a guest's kernel works it: kicks if the device wants it, and sleeps until it is called.</summary>
internal sealed class PeerQueue : IDisposable
{
    // Buffers of a request, when they are in an indirect table.
    private const int TableEntries = 8;
    private const int DescriptorSize = 16;

    // For a failure, not a figure: a daemon on a machine that is busy with other things.
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(30);

    private readonly DriverQueue _queue;
    private readonly ulong[] _tables;
    private readonly EventFd _kick = new();
    private readonly EventFd _call = new();
    private readonly EventFd _error = new();
    private int _submitted;

    public PeerQueue(GuestHeap heap, int index, int size, ulong features, int region = 0)
    {
        GuestAddress area = heap.Allocate((int)DriverQueue.AreaSize, region, 0x1000);
        _queue = DriverQueue.Create(heap.Memory.AddressSpace, area.Value, size, features);
        bool isIndirect = (features & VirtioFeatures.IndirectDescriptors) != 0;
        _tables = new ulong[isIndirect ? size : 0];
        for (int i = 0; i < _tables.Length; i++)
            _tables[i] = heap.Allocate(TableEntries * DescriptorSize, region).Value;
        Config = new VringConfig
        {
            Index = index,
            Size = size,
            DescriptorArea = _queue.Layout.DescriptorArea,
            DriverArea = _queue.Layout.DriverArea,
            DeviceArea = _queue.Layout.DeviceArea,
            Base = (features & VirtioFeatures.RingPacked) != 0 ? PackedDriverQueue.Start : 0,
            Kick = _kick,
            Call = _call,
            Error = _error,
        };
    }

    /// <summary>What a back-end must know to begin with it.</summary>
    public VringConfig Config { get; }

    /// <summary>Whether everything has come back, and there is nothing more to take.</summary>
    public bool IsIdle => _queue.Free == _queue.Size;

    /// <summary>Whether the device has said that it cannot go on with the queue.</summary>
    public bool IsBroken => _error.Drain() != 0;

    /// <summary>Makes a request available, what is to be read first, and kicks the device if it wants that.</summary>
    /// <returns>The number by which it comes back.</returns>
    public int Submit(params ReadOnlySpan<PeerBuffer> buffers)
    {
        var parts = new (ulong, uint, bool)[buffers.Length];
        for (int i = 0; i < parts.Length; i++)
            parts[i] = (buffers[i].Address.Value, (uint)buffers[i].Length, buffers[i].IsWritable);
        int id = _queue.Add(parts, _tables.Length > 0 ? _tables[_submitted % _tables.Length] : 0);
        _submitted++;
        if (_queue.NeedsKick())
            _kick.Signal();
        return id;
    }

    /// <summary>Takes a request that has come back, if there is one.</summary>
    public bool TryTake(out (int Id, int Written) result)
    {
        bool isThere = _queue.TryGetUsed(out ushort id, out uint written);
        result = (id, (int)written);
        return isThere;
    }

    /// <summary>Waits for a request to come back, by the call eventfd alone: a device that forgets to call fails the test.</summary>
    public (int Id, int Written) Take()
    {
        long start = Stopwatch.GetTimestamp();
        while (true)
        {
            if (TryTake(out (int, int) result))
                return result;
            _queue.EnableCalls();
            if (TryTake(out result))
                return result;
            PollEntry[] wait = [new(_call, PollEvents.Readable)];
            Poll.Wait(wait, 1000);
            if (wait[0].Happened == PollEvents.None && Stopwatch.GetElapsedTime(start) > s_limit)
                throw new AssertionException($"queue {Config.Index}: nothing came back{(TryTake(out _) ? ", or rather: it did, without a call" : "")}");
            _call.Drain();
        }
    }

    public void Dispose()
    {
        _kick.Dispose();
        _call.Dispose();
        _error.Dispose();
    }
}
