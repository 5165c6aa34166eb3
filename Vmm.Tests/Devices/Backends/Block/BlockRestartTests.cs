using System.Buffers.Binary;
using System.Runtime.InteropServices;
using NUnit.Framework;
using Tmds.Linux;
using Vmm.Devices.Backends.Block;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Protocol;
using Request = Vmm.Vhost.User.Protocol.VhostUserRequest;

namespace Vmm.Tests.Devices.Backends.Block;

/// <summary>A back-end that is killed while requests are under way, and started again: its front-end keeps what is in flight
/// (vhost-user.rst, "Inflight I/O tracking").</summary>
public sealed class BlockRestartTests
{
    private const int Depth = 32;
    private const int RingSize = 64;
    private const int Kills = 10;
    private const int Block = 4096;
    private const int BlocksOfASlot = 16;
    private const ulong Buffers = FrontEndDriver.GuestBase + 0x100000;
    private const ulong Room = 0x2000;          // of each slot: header, status and table in the first page, data in the second

    private readonly Random _random = new(7);
    private readonly Slot[] _slots = new Slot[Depth];
    private readonly Dictionary<ushort, Slot> _under = [];
    private readonly GuestMemory _memory = GuestMemory.Create([(new(FrontEndDriver.GuestBase), FrontEndDriver.MemorySize)]);
    private readonly SplitDriverQueue _queue;
    private byte[] _expected = [];
    private int _completed;
    private int _outOfOrder;
    private int _latest;
    private int _sequence;

    public BlockRestartTests() => _queue = new SplitDriverQueue(_memory.AddressSpace, FrontEndDriver.GuestBase + 0x10000, RingSize, 0);

    [OneTimeTearDown]
    public void Free() => _memory.Dispose();

    [Test]
    public void Killed_WithRequestsUnderWay_LosesAndDoublesNothing([Values("io_uring", "threads")] string engine, [Values] bool direct)
    {
        if (engine == "io_uring" && IoUring.Probe() != 0)
            Assert.Ignore("no io_uring here");
        var test = new BlockRestartTests();
        test.Run(engine, direct);
        test.Free();
    }

    private void Run(string engine, bool direct)
    {
        using var image = new Image(Depth * BlocksOfASlot * Block);
        _expected = [.. image.Original];
        string path = image.Path + ".sock";
        FileDescriptor? inflight = null;
        for (int i = 0; i < Depth; i++)
            _slots[i] = new Slot(i);
        for (int life = 0; life <= Kills; life++)
        {
            // The just-in-time compiler needs more than a confined back-end may do.
            List<string> arguments = ["backend", "blk", "--socket-path", path, "--path", image.Path, "--engine", engine,
                "--sandbox", VmmProcess.IsNative ? "on" : "off"];
            if (direct)
                arguments.Add("--direct");
            using var backend = VmmProcess.Start(arguments, Path.GetTempPath());
            var frontEnd = new FrontEndDriver(Connect(backend, path), null, _memory);
            FrontEndRing ring;
            try
            {
                ring = Begin(frontEnd, ref inflight);
            }
            catch (VhostUserException e)
            {
                throw new AssertionException($"{e.Message}; {backend.WaitForEnd().Summary}");
            }
            int until = _completed + _random.Next(50, 2000);
            for (bool isLast = life == Kills; isLast ? _under.Count > 0 || _completed < until : _completed < until;)
            {
                Submit(ring, refill: _completed < until);
                Take(backend);
            }
            if (life < Kills)
                backend.Signal(LibC.SIGKILL);
            else
                backend.Signal(LibC.SIGTERM);
            backend.WaitForEnd();
            ring.Dispose();
            frontEnd.Connection.Dispose();
        }
        inflight!.Dispose();
        File.Delete(path);
        Assert.That(_under, Is.Empty);
        Assert.That(image.Content.AsSpan().SequenceEqual(_expected), "the image is what was written");
        Assert.That(_outOfOrder, Is.GreaterThan(0), "requests that came back before older ones");
    }

    private static UnixSocket Connect(VmmProcess backend, string path)
    {
        UnixSocket? socket = null;
        Eventually.True(
            () => UnixSocket.TryConnect(path, out socket) == 0 || (backend.EndsWithin(TimeSpan.Zero) ? throw new AssertionException(backend.WaitForEnd().Summary) : false),
            () => "the back-end does not listen");
        return socket!;
    }

    private FrontEndRing Begin(FrontEndDriver frontEnd, ref FileDescriptor? inflight)
    {
        frontEnd.Negotiate(VirtioFeatures.IndirectDescriptors | BlockFeatures.Flush, protocolFeatures: VhostUserProtocolFeatures.InflightShmFd);
        frontEnd.ShareMemory();
        var payload = new InflightPayload(0, 0, 1, RingSize);
        if (inflight is null)
        {
            frontEnd.Send(Request.GetInflightFd, in payload);
            using VhostUserMessage reply = frontEnd.Receive(Request.GetInflightFd);
            payload = reply.Read<InflightPayload>();
            inflight = reply.TakeDescriptor()!;
        }
        else
        {
            FileKind.TryGetSize(inflight, out ulong size, out _);
            payload = payload with { MmapSize = size };
        }
        Assert.That(frontEnd.Ask(Request.SetInflightFd, in payload, inflight), Is.Zero);
        var ring = new FrontEndRing(frontEnd, 0, _queue, 0);
        // What the dead one took last is not known: what is used is, and the rest is in the log.
        ring.SetUp(_queue.UsedIndex);
        ring.Enable(true);
        return ring;
    }

    private void Submit(FrontEndRing ring, bool refill)
    {
        foreach (Slot slot in _slots)
        {
            if (slot.IsUnder || !refill)
                continue;
            slot.IsUnder = true;
            slot.Sequence = _sequence++;
            ulong page = Buffers + (ulong)slot.Index * Room;
            ulong data = page + 0x1000;
            // One block, or a part of it that takes longer.
            int length = _random.Next(3) == 0 ? 512 : Block;
            slot.Offset = (slot.Index * BlocksOfASlot + _random.Next(BlocksOfASlot)) * Block;
            slot.Length = length;
            slot.Type = _random.Next(8) switch { 0 => BlockDriver.Flush, 1 or 2 or 3 => BlockDriver.In, _ => BlockDriver.Out };
            Span<byte> header = _memory.Slice(new(page), 16);
            BinaryPrimitives.WriteUInt32LittleEndian(header, slot.Type);
            BinaryPrimitives.WriteUInt64LittleEndian(header[8..], (ulong)slot.Offset / 512);
            _memory.Write(new(page + 0x40), (byte)0xFF);
            Span<byte> bytes = _memory.Slice(new(data), length);
            var buffers = new List<(ulong, uint, bool)> { (page, 16, false) };
            if (slot.Type == BlockDriver.Out)
            {
                _random.NextBytes(bytes);
                bytes.CopyTo(_expected.AsSpan(slot.Offset));
            }
            if (slot.Type != BlockDriver.Flush)
                buffers.Add((data, (uint)length, slot.Type == BlockDriver.In));
            buffers.Add((page + 0x40, 1, true));
            // Every request is one descriptor, so that all of them are under way at a time.
            ushort id = _queue.Add(CollectionsMarshal.AsSpan(buffers), page + 0x100);
            _under.Add(id, slot);
        }
        if (_queue.NeedsKick())
            ring.Kick.Signal();
    }

    private void Take(VmmProcess backend)
    {
        ushort id = 0;
        Eventually.True(
            () => _queue.TryGetUsed(out id, out _) || (backend.EndsWithin(TimeSpan.Zero) ? throw new AssertionException(backend.WaitForEnd().Summary) : false),
            () => $"nothing comes back of {_under.Count} requests");
        Assert.That(_under.Remove(id, out Slot? slot), $"request {id} came back twice");
        slot!.IsUnder = false;
        _completed++;
        if (slot.Sequence < _latest)
            _outOfOrder++;
        _latest = Math.Max(_latest, slot.Sequence);
        ulong page = Buffers + (ulong)slot.Index * Room;
        Assert.That(_memory.Read<byte>(new(page + 0x40)), Is.EqualTo(BlockDriver.Ok));
        if (slot.Type == BlockDriver.In)
        {
            Assert.That(_memory.Slice(new(page + 0x1000), slot.Length).SequenceEqual(_expected.AsSpan(slot.Offset, slot.Length)),
                $"block at {slot.Offset} is what was written last");
        }
    }

    private sealed class Slot(int index)
    {
        public int Index => index;

        public bool IsUnder { get; set; }

        public int Sequence { get; set; }

        public uint Type { get; set; }

        public int Offset { get; set; }

        public int Length { get; set; }
    }
}
