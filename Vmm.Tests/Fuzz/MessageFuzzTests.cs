using System.Runtime.InteropServices;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Fuzz;

/// <summary>Streams of messages with descriptors: sessions of real front-ends, more or less broken.</summary>
public sealed partial class MessageFuzzTests
{
    private const int MaxMessages = 64;

    [Test]
    public void Session_AnyStream_EndsWithoutHarm()
    {
        using var pool = new DescriptorPool();
        var device = new FuzzDevice();
        FuzzRun.All(1000, random => RunOne(random, pool, device));
        TestContext.Out.WriteLine($"{device.Reached.Rings} rings started, {device.Reached.Requests} requests taken");
        Assert.That(device.Reached.Rings, Is.GreaterThan(1), "some sessions get far");
        Assert.That(device.Reached.Requests, Is.GreaterThan(1));
    }

    private static void RunOne(Random random, DescriptorPool pool, FuzzDevice device)
    {
        var plan = FuzzPlan.Make(random);
        pool.Shuffle(random, plan);
        List<FuzzMessage> session = FuzzSessions.Make(random, plan);
        FuzzMutator.Mutate(random, session);
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (ours)
        {
            foreach (FuzzMessage message in session.Take(MaxMessages))
                message.Send(random, ours, pool);
            // The end comes after the last message; replies can still be sent.
            _ = Shutdown(ours.Number, 1);
            using var stop = new EventFd();
            var options = new VhostUserServerOptions { SharesThread = random.Next(2) == 0, Deadline = TimeSpan.FromSeconds(5) };
            using var backend = new BackendSession(new VhostUserConnection(theirs, "fuzz"), device, options);
            backend.Serve(stop);
        }
    }

    [LibraryImport("libc", EntryPoint = "shutdown")]
    private static partial int Shutdown(int socket, int how);
}

/// <summary>A message as it may go over the wire.</summary>
internal sealed record FuzzMessage(uint Request, byte[] Payload, params DescriptorKind[] Descriptors)
{
    public uint Flags { get; set; } = 1;

    /// <summary>Added to the size that the header says.</summary>
    public int Lie { get; set; }

    /// <summary>Sends it, sometimes in pieces.</summary>
    public void Send(Random random, UnixSocket socket, DescriptorPool pool)
    {
        byte[] bytes = [.. FrontEndDriver.Bytes(new VhostUserHeader(Request, (VhostUserFlags)Flags, (uint)(Payload.Length + Lie))), .. Payload];
        FileDescriptor[] descriptors = [.. Descriptors.Take(32).Select(pool.Get)];
        int split = random.Next(20) == 0 ? random.Next(1, bytes.Length) : bytes.Length;
        if (socket.TrySend(bytes.AsSpan(0, split), descriptors) > 0 && split < bytes.Length)
            socket.TrySend(bytes.AsSpan(split), random.Next(4) == 0 ? descriptors : []);
    }
}

/// <summary>Kinds of descriptors that a front-end may send.</summary>
internal enum DescriptorKind
{
    Memory,
    Event,
    Log,
    Inflight,
    Socket,
    Pipe,
    ReadOnly,
}

/// <summary>One descriptor of each kind, made once; what is in memory changes.</summary>
internal sealed class DescriptorPool : IDisposable
{
    public const int MemorySize = 0x40000;

    private readonly FileDescriptor _memory = MemFd.Create("fuzz-memory", MemorySize);
    private readonly MemoryMapping _mapping;
    private readonly EventFd _event = new();
    private readonly FileDescriptor _log = MemFd.Create("fuzz-log", 0x10000);
    private readonly FileDescriptor _inflight = MemFd.Create("fuzz-inflight", 0x4000);
    private readonly MemoryMapping _inflightMapping;
    private readonly (UnixSocket First, UnixSocket Second) _sockets = UnixSocket.Pair();
    private readonly Pipe _pipe = new();
    private readonly FileDescriptor _readOnly = FileDescriptor.Open("/proc/self/exe", OpenMode.ReadOnly);

    public DescriptorPool()
    {
        _mapping = MemoryMapping.Map(_memory, MemorySize, MappingAccess.SharedReadWrite);
        _inflightMapping = MemoryMapping.Map(_inflight, 0x4000, MappingAccess.SharedReadWrite);
        _pipe.Writer.SetNonBlocking();
    }

    public FileDescriptor Get(DescriptorKind kind) => kind switch
    {
        DescriptorKind.Memory => _memory,
        DescriptorKind.Event => _event,
        DescriptorKind.Log => _log,
        DescriptorKind.Inflight => _inflight,
        DescriptorKind.Socket => _sockets.Second,
        DescriptorKind.Pipe => _pipe.Writer,
        _ => _readOnly,
    };

    /// <summary>New rings in memory, good ones mostly, and kicks.</summary>
    public unsafe void Shuffle(Random random, FuzzPlan plan)
    {
        var memory = new Span<byte>(_mapping.Pointer, MemorySize);
        memory[..0x10000].Clear();
        var space = new GuestAddressSpace(new GuestRegion(new(FuzzSessions.Guest), MemorySize, 0, (nint)_mapping.Pointer));
        for (int i = 0; i < 3; i++)
        {
            ulong area = FuzzSessions.Guest + (ulong)i * DriverQueue.AreaSize;
            if (random.Next(8) == 0)
                FuzzRings.Fill(random, memory.Slice(i * (int)DriverQueue.AreaSize, (int)DriverQueue.AreaSize), MemorySize);
            else
                FuzzRings.Good(
                    random, space, area, FuzzSessions.Guest + 0xC000, FuzzSessions.Guest + 0x10000, FuzzSessions.Guest + MemorySize, plan.Size, plan.Features);
            if (random.Next(3) == 0)
                FuzzRings.Scribble(random, memory.Slice(i * (int)DriverQueue.AreaSize, 16 * plan.Size), random.Next(4));
        }
        var inflight = new Span<byte>(_inflightMapping.Pointer, 0x4000);
        if (random.Next(2) == 0)
            inflight.Clear();
        else
            FuzzRings.Scribble(random, inflight, random.Next(1, 20));
        _event.Signal();
    }

    public void Dispose()
    {
        _inflightMapping.Dispose();
        _mapping.Dispose();
        _memory.Dispose();
        _event.Dispose();
        _log.Dispose();
        _inflight.Dispose();
        _sockets.First.Dispose();
        _sockets.Second.Dispose();
        _pipe.Dispose();
        _readOnly.Dispose();
    }
}
