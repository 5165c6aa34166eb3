using NUnit.Framework;
using Tmds.Linux;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Native;

/// <summary>Counters that a peer has, too.</summary>
public class EventFdTests
{
    [Test]
    public void Peer_MadeItBlocking_NobodyWaits()
    {
        using var counter = new EventFd();
        MakeBlocking(counter);
        Assert.That(Task.Run(counter.DrainPeer).Wait(5000), "read(2) waits");
        Fill(counter);
        Assert.That(Task.Run(counter.SignalPeer).Wait(5000), "write(2) waits");
        Assert.That(counter.DrainPeer(), Is.EqualTo(ulong.MaxValue - 1));
        counter.SignalPeer();
        Assert.That(counter.DrainPeer(), Is.EqualTo(1));
    }

    private static void MakeBlocking(EventFd counter)
    {
        using HeldDescriptor held = counter.Hold();
        Assert.That(LibC.fcntl(held.Number, LibC.F_SETFL, 0), Is.Zero);
    }

    private static unsafe void Fill(EventFd counter)
    {
        ulong all = ulong.MaxValue - 1;
        using HeldDescriptor held = counter.Hold();
        Assert.That((long)LibC.write(held.Number, &all, sizeof(ulong)), Is.EqualTo(sizeof(ulong)));
    }
}
