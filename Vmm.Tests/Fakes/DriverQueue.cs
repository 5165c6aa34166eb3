using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using NUnit.Framework;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Fakes;

/// <summary>A piece of guest memory that a driver gives to its device.</summary>
internal readonly record struct DriverBuffer(GuestAddress Address, int Length, bool IsWritable);

/// <summary>Plays the driver's side of a virtqueue as a guest's kernel does: makes requests available, kicks if the device wants it, and
/// sleeps until it is called. <see cref="SplitDriverQueue"/> and <see cref="PackedDriverQueue"/> are the two formats.</summary>
internal abstract class DriverQueue : IDisposable
{
    /// <summary>At most so many buffers in a request, when they are in an indirect table.</summary>
    protected const int TableSize = 8;

    protected const ushort FlagNext = 1;
    protected const ushort FlagWrite = 2;
    protected const ushort FlagIndirect = 4;
    protected const int DescriptorSize = 16;

    // For a failure, not a figure: a daemon on a machine that is busy with other things.
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(30);

    private readonly GuestAddress _tables;

    protected DriverQueue(GuestHeap heap, int index, int size, ulong features, int region)
    {
        Memory = heap.Memory;
        Index = index;
        Size = size;
        HasEventIndex = (features & VirtioFeatures.EventIndex) != 0;
        IsIndirect = (features & VirtioFeatures.IndirectDescriptors) != 0;
        if (IsIndirect)
            _tables = heap.Allocate(size * TableSize * DescriptorSize, region);
    }

    /// <summary>A queue of the format that <paramref name="features"/> say.</summary>
    public static DriverQueue Create(GuestHeap heap, int index, int size, ulong features, int region = 0) =>
        (features & VirtioFeatures.RingPacked) != 0
            ? new PackedDriverQueue(heap, index, size, features, region)
            : new SplitDriverQueue(heap, index, size, features, region);

    public int Index { get; }

    public int Size { get; }

    public EventFd Kick { get; } = new();

    public EventFd Call { get; } = new();

    public EventFd Error { get; } = new();

    /// <summary>What a back-end must know to begin with a new queue.</summary>
    public abstract VringConfig Config { get; }

    /// <summary>Requests that the device has not given back.</summary>
    public int Pending { get; private set; }

    protected GuestMemory Memory { get; }

    protected bool HasEventIndex { get; }

    protected bool IsIndirect { get; }

    /// <summary>Makes a request available and kicks the device if it wants that.</summary>
    /// <returns>The number by which it comes back.</returns>
    public int Submit(params ReadOnlySpan<DriverBuffer> buffers)
    {
        int id = Add(buffers);
        Pending++;
        if (WantsKick())
            Kick.Signal();
        return id;
    }

    /// <summary>Waits for a request to come back, by the call eventfd alone: a device that forgets to call fails the test.</summary>
    /// <param name="limit">How long; half a minute by default.</param>
    public (int Id, int Written) Take(TimeSpan? limit = null)
    {
        long start = Stopwatch.GetTimestamp();
        (int Id, int Written) result;
        while (!TryTake(out result))
        {
            if (WantCall())
                continue;
            TimeSpan left = (limit ?? s_limit) - Stopwatch.GetElapsedTime(start);
            PollEntry[] wait = [new(Call, PollEvents.Readable)];
            Poll.Wait(wait, Math.Max((int)left.TotalMilliseconds, 0));
            if (wait[0].Happened == PollEvents.None && left <= TimeSpan.Zero)
                throw new AssertionException($"queue {Index}: of {Pending} requests none came back{(TryTake(out _) ? ", or rather: it did, without a call" : "")}");
            Call.Drain();
        }
        return result;
    }

    /// <summary>Takes a request that has come back.</summary>
    public bool TryTake(out (int Id, int Written) result)
    {
        bool isThere = TryRemove(out result);
        Pending -= isThere ? 1 : 0;
        return isThere;
    }

    public void Dispose()
    {
        Kick.Dispose();
        Call.Dispose();
        Error.Dispose();
    }

    protected abstract int Add(ReadOnlySpan<DriverBuffer> buffers);

    protected abstract bool TryRemove(out (int Id, int Written) result);

    /// <summary>Whether the device wants to know of what was added since this was last asked.</summary>
    protected abstract bool WantsKick();

    /// <summary>Says that the next used request shall be told of.</summary>
    /// <returns>Whether there is one already.</returns>
    protected abstract bool WantCall();

    /// <summary>The memory at <paramref name="address"/>, which the device sees too: to be read and written by <see cref="Volatile"/>.</summary>
    protected ref T Shared<T>(GuestAddress address)
        where T : unmanaged => ref MemoryMarshal.AsRef<T>(Memory.Slice(address, Unsafe.SizeOf<T>()));

    /// <summary>Writes the indirect table of request <paramref name="id"/>, whose descriptors say with <paramref name="link"/> what comes
    /// in their last four bytes.</summary>
    protected DriverBuffer FillTable(int id, ReadOnlySpan<DriverBuffer> buffers, Func<int, bool, uint> link)
    {
        Assert.That(buffers.Length, Is.LessThanOrEqualTo(TableSize));
        GuestAddress table = _tables + (ulong)(id * TableSize * DescriptorSize);
        for (int i = 0; i < buffers.Length; i++)
            WriteDescriptor(table + (ulong)(i * DescriptorSize), buffers[i], link(i, i == buffers.Length - 1));
        return new DriverBuffer(table, buffers.Length * DescriptorSize, false);
    }

    protected void WriteDescriptor(GuestAddress at, in DriverBuffer buffer, uint link)
    {
        Memory.Write(at, buffer.Address.Value);
        Memory.Write(at + 8, buffer.Length);
        Memory.Write(at + 12, link);
    }
}
