using NUnit.Framework;
using Vmm.Devices.Backends.Net;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;

namespace Vmm.Tests.Devices.Backends.Net;

/// <summary>The transmit queue on a wire that takes nothing.</summary>
public sealed class NetTransmitRingTests
{
    [Test]
    public void Wire_TakesNothing_IsWaitedForOnceInATurn()
    {
        const int frames = 10;
        using var device = new DeviceOnPort(new FullPort());
        using var ring = new DeviceRing(device, 0, VirtioFeatures.Version1);
        for (int turn = 1; turn <= 2; turn++)
        {
            for (int i = 0; i < frames; i++)
                ring.AddData(new byte[12 + 60]);
            ring.Process();
            for (int i = 0; i < frames; i++)
                Assert.That(ring.Take(), Is.Not.Null, "its frames are dropped");
            Assert.That(device.Port.Waits, Is.EqualTo(turn));
        }
        Assert.That(device.Port.Tries, Is.EqualTo(2 * frames + 2));
    }

    private sealed class FullPort : IFramePort
    {
        private readonly EventFd _never = new();

        public int Waits { get; private set; }

        public int Tries { get; private set; }

        public ulong Features => 0;

        public string? Fate => null;

        public bool CanBeGone => false;

        public int? Mtu => null;

        public FileDescriptor Receiver(int pair)
        {
            Waits++;
            return _never;
        }

        public void Accept(ulong features)
        {
        }

        public void Use(int pair, bool use)
        {
        }

        public int TrySend(int pair, ReadOnlySpan<IoVector> vectors)
        {
            Tries++;
            return -Errnos.Eagain;
        }

        public int TryReceive(int pair, Span<byte> buffer) => -Errnos.Eagain;

        public void Dispose() => _never.Dispose();
    }

    private sealed class DeviceOnPort(FullPort port) : VhostUserDevice, IDisposable
    {
        public FullPort Port => port;

        public override string Name => "full";

        public override ulong Features => 0;

        public override int RingCount => 1;

        public override IRingHandler StartRing(BackendRing ring) => new NetTransmitRing(port, 0, 12);

        public void Dispose() => port.Dispose();
    }
}
