using NUnit.Framework;
using Vmm.Devices.Net;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.User.Frontend;
using Feature = Vmm.Vhost.User.Protocol.VhostUserProtocolFeatures;
using Request = Vmm.Vhost.User.Protocol.VhostUserRequest;

namespace Vmm.Tests.Devices.Backends.Net;

/// <summary>What a network back-end says to front-ends, and does for them.</summary>
public sealed class NetBackendMessageTests
{
    private static readonly byte[] s_mac = [0x52, 0x54, 0, 1, 2, 3];

    // QEMU and DPDK count pairs; cloud-hypervisor counts rings, of which it takes two for granted where it cannot ask.
    [TestCase(1, false)]
    [TestCase(2, true)]
    [TestCase(4, true)]
    public void GetQueueNum_Pairs_AreCountedAndNotRings(int pairs, bool canAsk)
    {
        using UdpWires udp = UdpWires.Open(pairs);
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(udp.Device);
        frontEnd.Get(Request.GetFeatures);
        var offered = (Feature)frontEnd.Get(Request.GetProtocolFeatures);
        Assert.That(offered.HasFlag(Feature.Mq), Is.EqualTo(canAsk));
        frontEnd.Send(Request.SetProtocolFeatures, (ulong)(offered & Feature.Mq));
        if (canAsk)
            Assert.That(frontEnd.Get(Request.GetQueueNum), Is.EqualTo((ulong)pairs));
    }

    [TestCase(1, 1, true)]
    [TestCase(1, 2, false)]
    [TestCase(2, 2, true)]
    [TestCase(2, 3, false)]
    [TestCase(3, 2, true)]
    public void Open_OurFrontEndWithPairs_TakesNoMoreThanThereAre(int has, int wants, bool isTaken)
    {
        using UdpWires udp = UdpWires.Open(has);
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using var server = new VhostUserServer(theirs, udp.Device);
        server.Start();
        var options = new VhostUserFrontendOptions
        {
            Endpoint = VhostUserEndpoint.Inherit(ours.Number),
            Device = "--net",
            RingCount = 2 * wants,
            RingsPerQueue = 2,
            QueueSize = 256,
            Sync = new Lock(),
        };
        ours.SetHandleAsInvalid();
        if (isTaken)
        {
            using VhostUserFrontend frontend = VhostUserFrontend.Open(options);
            Assert.That(frontend.MaxRingCount, Is.EqualTo(2 * has));
        }
        else
        {
            Assert.That(() => VhostUserFrontend.Open(options), Throws.TypeOf<VhostException>().With.Message.Contains(
                $"has {has} {(has == 1 ? "pair" : "pairs")} of queues ({2 * has} rings), fewer than the {2 * wants} rings of the device"));
        }
    }

    [Test]
    public void Features_OfANetworkBackEnd_AreWhatFrontEndsHaveAUseFor()
    {
        using UdpWires udp = UdpWires.Open(1);
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(udp.Device);
        ulong features = frontEnd.Get(Request.GetFeatures);
        ulong wanted = NetFeatures.GuestAnnounce | NetFeatures.Mtu | NetFeatures.MrgRxbuf;
        Assert.That(features & wanted, Is.EqualTo(wanted));
        Assert.That(features & NetFeatures.Status, Is.Zero, "there is no configuration that would say it");
        var offered = (Feature)frontEnd.Get(Request.GetProtocolFeatures);
        Assert.That(offered & (Feature.Rarp | Feature.Mtu | Feature.Config), Is.EqualTo(Feature.Rarp | Feature.Mtu), "QEMU warns of CONFIG");
    }

    [Test]
    public void SendRarp_AfterAMigration_AnnouncesTheGuestOnTheWire()
    {
        using UdpWires udp = UdpWires.Open(1);
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(udp.Device);
        frontEnd.Negotiate(0, Feature.Rarp);
        Assert.That(frontEnd.Ask(Request.SendRarp, [.. s_mac, 0, 0]), Is.Zero);
        AssertIsRarp(udp.Receive(), s_mac);
    }

    [TestCase(67UL, null, false)]
    [TestCase(68UL, null, true)]
    [TestCase(9000UL, null, true)]
    [TestCase(9000UL, 9000, true)]
    [TestCase(9001UL, 9000, false)]
    [TestCase(65536UL, null, false)]
    [TestCase(ulong.MaxValue, null, false)]
    public void SetMtu_OfAFrontEnd_IsTakenWhereItCanBe(ulong mtu, int? limit, bool isTaken)
    {
        using UdpWires udp = UdpWires.Open(1, limit);
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(udp.Device);
        frontEnd.Negotiate(NetFeatures.Mtu, Feature.Mtu);
        Assert.That(frontEnd.Ask(Request.NetSetMtu, mtu) == 0, Is.EqualTo(isTaken));
        Assert.That(frontEnd.Ask(Request.SetOwner), Is.Zero, "the connection goes on");
    }

    /// <summary>A whole RARP request for itself, as RFC 903 has it.</summary>
    internal static void AssertIsRarp(byte[] frame, byte[] mac) => Assert.That(frame, Is.EqualTo((byte[])
    [
        0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, .. mac, 0x80, 0x35,
        0, 1, 8, 0, 6, 4, 0, 3, .. mac, 0, 0, 0, 0, .. mac, 0, 0, 0, 0,
        .. new byte[18],
    ]));
}
