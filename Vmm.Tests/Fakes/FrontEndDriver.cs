using System.Runtime.InteropServices;
using NUnit.Framework;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.User.Protocol;
using Feature = Vmm.Vhost.User.Protocol.VhostUserProtocolFeatures;
using Request = Vmm.Vhost.User.Protocol.VhostUserRequest;

namespace Vmm.Tests.Fakes;

/// <summary>Plays a vhost-user front-end, message by message, and the driver in its guest. What it sends is its test's business.</summary>
internal sealed class FrontEndDriver : IDisposable
{
    public const ulong MemorySize = 4 << 20;

    /// <summary>The guest's first address, and what the front-end calls it.</summary>
    public const ulong GuestBase = 0x1000_0000;

    public const ulong UserBase = 0x7F00_0000_0000;

    public const ulong Features = VirtioFeatures.Version1 | VirtioFeatures.VhostUserProtocolFeatures;

    private static readonly TimeSpan s_deadline = TimeSpan.FromSeconds(20);

    private VhostUserServer? _server;

    public FrontEndDriver(UnixSocket socket, VhostUserServer? server = null, GuestMemory? memory = null)
    {
        _server = server;
        Connection = new VhostUserConnection(socket, "the back-end");
        Memory = memory ?? GuestMemory.Create([(new(GuestBase), MemorySize)]);
    }

    public VhostUserConnection Connection { get; }

    public GuestMemory Memory { get; }

    /// <summary>A device that is served to this front-end over a pair of sockets.</summary>
    public static FrontEndDriver ConnectedTo(VhostUserDevice device, VhostUserServerOptions? options = null, GuestMemory? memory = null)
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        var server = new VhostUserServer(theirs, device, options);
        server.Start();
        return new FrontEndDriver(ours, server, memory);
    }

    public void Send(Request request, ReadOnlySpan<byte> payload = default, VhostUserFlags flags = 0, params ReadOnlySpan<FileDescriptor> descriptors) =>
        Connection.Send((uint)request, flags, payload, descriptors, s_deadline);

    public void Send<T>(Request request, in T payload, VhostUserFlags flags = 0, params ReadOnlySpan<FileDescriptor> descriptors)
        where T : unmanaged => Send(request, MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in payload)), flags, descriptors);

    public VhostUserMessage Receive() => Connection.Receive(s_deadline, s_deadline) ?? throw new AssertionException("no reply");

    /// <summary>The reply, which has exactly the flags of one.</summary>
    public VhostUserMessage Receive(Request request)
    {
        VhostUserMessage reply = Receive();
        Assert.That(reply.Header.Request, Is.EqualTo((uint)request));
        Assert.That(reply.Header.Flags, Is.EqualTo(VhostUserFlags.Version1 | VhostUserFlags.Reply));
        return reply;
    }

    public T Receive<T>(Request request)
        where T : unmanaged
    {
        using VhostUserMessage reply = Receive(request);
        Assert.That(reply.Payload.Length, Is.EqualTo(Marshal.SizeOf<T>()), $"{request}");
        Assert.That(reply.DescriptorCount, Is.Zero);
        return reply.Read<T>();
    }

    public ulong Get(Request request)
    {
        Send(request);
        return Receive<ulong>(request);
    }

    /// <summary>Sends a request and asks for a reply; 0 is a yes.</summary>
    public ulong Ask(Request request, ReadOnlySpan<byte> payload = default, params ReadOnlySpan<FileDescriptor> descriptors)
    {
        Send(request, payload, VhostUserFlags.NeedReply, descriptors);
        return Receive<ulong>(request);
    }

    public ulong Ask<T>(Request request, in T payload, params ReadOnlySpan<FileDescriptor> descriptors)
        where T : unmanaged => Ask(request, MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in payload)), descriptors);

    /// <summary>Whether the back-end has closed the connection, having said nothing more.</summary>
    public bool IsClosed()
    {
        try
        {
            using VhostUserMessage? message = Connection.Receive(s_deadline, s_deadline);
            Assert.Fail($"got {message?.Header} where the connection should have been closed");
            return false;
        }
        catch (VhostUserException e) when (e.IsConnectionLost)
        {
            return true;
        }
    }

    /// <summary>Agrees on features as QEMU does.</summary>
    public void Negotiate(ulong features = 0, Feature protocolFeatures = 0)
    {
        ulong offered = Get(Request.GetFeatures);
        Assert.That(offered & features, Is.EqualTo(features));
        Get(Request.GetProtocolFeatures);
        Send(Request.SetProtocolFeatures, (ulong)(protocolFeatures | Feature.ReplyAck));
        Send(Request.SetOwner);
        Assert.That(Ask(Request.SetFeatures, Features | features), Is.Zero);
    }

    public static ulong User(GuestAddress address) => address.Value - GuestBase + UserBase;

    public MemoryRegionPayload Region => new(GuestBase, MemorySize, UserBase, 0);

    public byte[] MemoryTable(params ReadOnlySpan<MemoryRegionPayload> regions) =>
        [.. Bytes(new MemoryTableHeader((uint)regions.Length, 0)), .. MemoryMarshal.AsBytes(regions)];

    public void ShareMemory() => Assert.That(Ask(Request.SetMemTable, MemoryTable(Region), Memory.File), Is.Zero);

    public static byte[] Bytes<T>(in T value)
        where T : unmanaged => MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)).ToArray();

    /// <summary>A ring of its own place in memory.</summary>
    public FrontEndRing Ring(int index = 0, int size = 16, ulong features = 0) =>
        new(this, index, DriverQueue.Create(Memory.AddressSpace, GuestBase + 0x10000 + (ulong)index * DriverQueue.AreaSize, size, features), features);

    /// <summary>Agrees on features, shares memory and sets one ring up.</summary>
    public FrontEndRing Start(ulong features = 0, int size = 16, Feature protocolFeatures = 0)
    {
        Negotiate(features, protocolFeatures);
        ShareMemory();
        FrontEndRing ring = Ring(0, size, features);
        ring.SetUp();
        ring.Enable(true);
        return ring;
    }

    /// <summary>Ends the connection, and waits until the back-end has noticed.</summary>
    public void Leave()
    {
        Connection.Dispose();
        _server?.Dispose();
        _server = null;
    }

    public void Dispose()
    {
        Leave();
        Memory.Dispose();
    }
}

/// <summary>A ring of a <see cref="FrontEndDriver"/>, with a driver that sends requests of one buffer to read and one to write.</summary>
internal sealed class FrontEndRing(FrontEndDriver frontEnd, int index, DriverQueue queue, ulong features) : IDisposable
{
    private static readonly TimeSpan s_deadline = TimeSpan.FromSeconds(20);

    private Dictionary<ushort, ulong> _buffers = [];

    public int Index => index;

    public DriverQueue Queue => queue;

    public EventFd Kick { get; } = new();

    public EventFd Call { get; } = new();

    public EventFd Error { get; } = new();

    public uint StartBase => (features & VirtioFeatures.RingPacked) != 0 ? PackedDriverQueue.Start : 0;

    public VringState State(uint value) => new((uint)index, value);

    public VringAddress Address => new(
        (uint)index,
        0,
        FrontEndDriver.User(queue.Layout.DescriptorArea),
        FrontEndDriver.User(queue.Layout.DeviceArea),
        FrontEndDriver.User(queue.Layout.DriverArea),
        queue.Layout.DeviceArea.Value);

    /// <summary>The same ring and its driver, over another connection.</summary>
    public FrontEndRing On(FrontEndDriver other) => new(other, index, queue, features) { _buffers = _buffers };

    /// <summary>Everything but ENABLE.</summary>
    public void SetUp(uint? start = null)
    {
        Assert.That(frontEnd.Ask(Request.SetVringNum, State((uint)queue.Size)), Is.Zero);
        Assert.That(frontEnd.Ask(Request.SetVringBase, State(start ?? StartBase)), Is.Zero);
        Assert.That(frontEnd.Ask(Request.SetVringAddr, Address), Is.Zero);
        Assert.That(frontEnd.Ask(Request.SetVringErr, (ulong)index, Error), Is.Zero);
        Assert.That(frontEnd.Ask(Request.SetVringKick, (ulong)index, Kick), Is.Zero);
        Assert.That(frontEnd.Ask(Request.SetVringCall, (ulong)index, Call), Is.Zero);
    }

    public void Enable(bool enabled) => Assert.That(frontEnd.Ask(Request.SetVringEnable, State(enabled ? 1U : 0)), Is.Zero);

    public uint Stop()
    {
        frontEnd.Send(Request.GetVringBase, State(0));
        VringState state = frontEnd.Receive<VringState>(Request.GetVringBase);
        Assert.That(state.Index, Is.EqualTo((uint)index));
        return state.Num;
    }

    /// <summary>Makes a request available, and kicks.</summary>
    public ushort Add(ReadOnlySpan<byte> data, uint room = 0, bool indirect = false, bool kick = true)
    {
        // A page for each request, the data in its first half.
        ulong page = FrontEndDriver.GuestBase + 0x100000 + (ulong)index * 0x80000 + (ulong)(_buffers.Count % 128) * 0x1000;
        while (_buffers.ContainsValue(page))
            page = FrontEndDriver.GuestBase + 0x100000 + (ulong)index * 0x80000 + (page + 0x1000) % 0x80000;
        data.CopyTo(frontEnd.Memory.Slice(new(page), data.Length));
        frontEnd.Memory.Slice(new(page + 0x800), (int)room).Clear();
        var buffers = new List<(ulong, uint, bool)>();
        if (data.Length > 0)
            buffers.Add((page, (uint)data.Length, false));
        if (room > 0)
            buffers.Add((page + 0x800, room, true));
        ushort id = queue.Add(CollectionsMarshal.AsSpan(buffers), indirect ? page + 0xF00 : 0);
        _buffers[id] = page;
        if (kick && queue.NeedsKick())
            Kick.Signal();
        return id;
    }

    /// <summary>What comes back next: its id, what was written, and the first bytes of that.</summary>
    public (ushort Id, uint Written, byte[] Bytes) Take()
    {
        ushort id = 0;
        uint written = 0;
        Eventually.True(() => queue.TryGetUsed(out id, out written), () => $"ring {index}: nothing was used");
        ulong page = _buffers[id];
        _buffers.Remove(id);
        return (id, written, frontEnd.Memory.Slice(new(page + 0x800), (int)Math.Min(written, 0x700)).ToArray());
    }

    /// <summary>The pages of the request that was used: of the data, and of the room.</summary>
    public ulong PageOf(ushort id) => _buffers[id];

    /// <summary>What was used is looked at by nobody.</summary>
    public void Forget(ushort id) => _buffers.Remove(id);

    public bool WaitForCall(TimeSpan? timeout = null)
    {
        Span<PollEntry> entries = [new PollEntry(Call, PollEvents.Readable)];
        return Poll.Wait(entries, (int)(timeout ?? s_deadline).TotalMilliseconds) == 1 && Call.Drain() > 0;
    }

    public void Dispose()
    {
        Kick.Dispose();
        Call.Dispose();
        Error.Dispose();
    }
}
