using NUnit.Framework;
using Vmm.Devices.Backends.Net;
using Vmm.Devices.Net;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;

namespace Vmm.Tests.Devices.Backends.Net;

/// <summary>The receive queue on a wire that says what no wire says when it is asked to.</summary>
public sealed class NetReceiveRingTests
{
    private const int Emfile = 24, Enobufs = 105, Eacces = 13, Eio = 5;
    private const int Header = 12;

    [TestCase(Eacces)]
    [TestCase(Enobufs)]
    [TestCase(Emfile)]
    [TestCase(Eio)]
    [TestCase(9999)]
    public void Error_OfTheMoment_IsTriedAgainAfterAWhile(int errno)
    {
        using var device = new DeviceOnPort(new ScriptedPort(-errno, -errno, -errno, -errno, -errno, 60));
        using var ring = new DeviceRing(device, 0, VirtioFeatures.Version1);
        ring.AddRoom(2000);
        for (byte[]? frame = null; frame is null; frame = ring.Take())
        {
            Assert.That(Poll.Wait([new PollEntry(ring.Ready, PollEvents.Readable)], 20_000), Is.EqualTo(1), "the ring is not woken any more");
            ring.Process();
        }
        Assert.That(device.Failure, Is.Null);
    }

    [TestCase(Errnos.Ebadf)]
    [TestCase(Errnos.Ebadfd)]
    [TestCase(Errnos.Enotsock)]
    public void Error_OfTheDescriptor_IsTheEnd(int errno)
    {
        using var device = new DeviceOnPort(new ScriptedPort(-errno));
        using var ring = new DeviceRing(device, 0, VirtioFeatures.Version1);
        ring.Process();
        ring.Process();
        Assert.That(device.Failure, Does.Contain("cannot receive").And.Contain($"errno {errno}"));
        Assert.That(ring.Ready, Is.Null);
    }

    // A frame's flags and kind, and whether a driver that accepted nothing, checksums, or segments of TCP over IPv4 can take it.
    [TestCase(0, 0, true, true, true)]
    [TestCase(1, 0, false, true, true)]        // VIRTIO_NET_HDR_F_NEEDS_CSUM
    [TestCase(2, 0, true, true, true)]         // VIRTIO_NET_HDR_F_DATA_VALID
    [TestCase(1, 1, false, false, true)]       // VIRTIO_NET_HDR_GSO_TCPV4
    [TestCase(1, 0x81, false, false, false)]   // with VIRTIO_NET_HDR_GSO_ECN
    [TestCase(1, 4, false, false, false)]      // VIRTIO_NET_HDR_GSO_TCPV6
    [TestCase(1, 3, false, false, false)]      // VIRTIO_NET_HDR_GSO_UDP
    [TestCase(1, 5, false, false, false)]      // VIRTIO_NET_HDR_GSO_UDP_L4
    [TestCase(0, 77, false, false, false)]
    public void Frame_MadeForADriverBefore_ComesOnlyToOneThatCanTakeIt(int flags, int kind, bool isForNone, bool isForChecksums, bool isForTcp)
    {
        const ulong checksums = NetFeatures.GuestCsum, tcp = checksums | NetFeatures.GuestTso4;
        foreach ((ulong features, bool isTaken) in new[] { (0UL, isForNone), (checksums, isForChecksums), (tcp, isForTcp) })
        {
            using var device = new DeviceOnPort(new ScriptedPort(100, 61) { Flags = (byte)flags, Kind = (byte)kind });
            using var ring = new DeviceRing(device, 0, VirtioFeatures.Version1 | NetFeatures.MrgRxbuf | features);
            ring.AddRoom(2000);
            ring.AddRoom(2000);
            Assert.That(ring.Await(), Has.Length.EqualTo(Header + (isTaken ? 100 : 61)), $"with features 0x{features:x}");
        }
    }

    /// <summary>Gives results in turn: the length of a frame, or a negated error number; at the end nothing more. The first frame has the header.</summary>
    private sealed class ScriptedPort(params int[] results) : IFramePort
    {
        private readonly EventFd _readable = new();
        private int _next;
        private bool _wasFirst;

        public byte Flags { get; init; }

        public byte Kind { get; init; }

        public ulong Features => 0;

        public string? Fate => null;

        public bool CanBeGone => false;

        public int? Mtu => null;

        public FileDescriptor Receiver(int pair)
        {
            if (_next < results.Length)
                _readable.Signal();
            return _readable;
        }

        public void Accept(ulong features)
        {
        }

        public void Use(int pair, bool use)
        {
        }

        public int TrySend(int pair, ReadOnlySpan<IoVector> vectors) => 0;

        public int TryReceive(int pair, Span<byte> buffer)
        {
            _readable.Drain();
            if (_next == results.Length)
                return -Errnos.Eagain;
            int result = results[_next++];
            if (result < 0)
                return result;
            buffer[..(Header + result)].Clear();
            if (!_wasFirst)
                (buffer[0], buffer[1]) = (Flags, Kind);
            _wasFirst = true;
            return Header + result;
        }

        public void Dispose() => _readable.Dispose();
    }

    private sealed class DeviceOnPort(ScriptedPort port) : VhostUserDevice, IDisposable
    {
        public string? Failure { get; private set; }

        public override string Name => "scripted";

        public override ulong Features => 0;

        public override int RingCount => 1;

        public override IRingHandler StartRing(BackendRing ring) => new NetReceiveRing(port, 0, ring, Header, reason => Failure = reason);

        public void Dispose() => port.Dispose();
    }
}
