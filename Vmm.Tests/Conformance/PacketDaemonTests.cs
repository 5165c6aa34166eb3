using NUnit.Framework;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Conformance;

/// <summary>The front-end and DPDK's vhost library in testpmd, which sends every packet back, with a software guest of one queue pair or two.</summary>
public sealed class PacketDaemonTests : PeerTest
{
    private const ulong MergeableBuffers = 1UL << 15;
    private const ulong Multiqueue = 1UL << 22;
    private const byte Ready = 1 | 2 | 4 | 8;   // ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK
    private const ulong SplitFeatures = VirtioFeatures.Version1 | MergeableBuffers;
    private const ulong PackedFeatures = SplitFeatures | VirtioFeatures.RingPacked;

    [SetUp]
    public void SetUp() => Require(TestPmd);

    [Test]
    public void Packets_OnEachPair_ComeBackWhereTheyWereSent()
    {
        string socket = Path.Combine(Scratch, "net.sock");
        using HostDaemon daemon = HostDaemon.PacketEcho(socket);
        // One daemon for all of them: it needs a processor for itself. A connection after another is what it is made for.
        foreach ((ulong features, int pairCount) in new[]
        {
            (SplitFeatures | Multiqueue, 2),
            (PackedFeatures | Multiqueue, 2),
            (SplitFeatures | Multiqueue | VirtioFeatures.IndirectDescriptors | VirtioFeatures.EventIndex, 2),
            (SplitFeatures, 1),
            (PackedFeatures, 1),
        })
        {
            using var guest = new PeerGuest(
                socket, 2 * pairCount, null, options => options with { RingsPerQueue = 2, Reconnect = (features & VirtioFeatures.RingPacked) == 0 });
            Assert.That(guest.Frontend.MaxRingCount, Is.GreaterThanOrEqualTo(2 * pairCount));
            Assert.That(guest.Start(features), Is.EqualTo(features), "what was agreed on");
            Assert.That(guest.Frontend.ProtocolFeatures & VhostUserProtocolFeatures.Status, Is.EqualTo(VhostUserProtocolFeatures.Status));
            Assert.That(guest.Frontend.Session.GetStatus(), Is.EqualTo(Ready));
            var pairs = new NetClient[pairCount];
            for (int i = 0; i < pairCount; i++)
                pairs[i] = new NetClient(guest.Heap, guest.Queues[2 * i], guest.Queues[2 * i + 1]);
            for (int i = 0; i < 100 * pairCount; i++)
            {
                byte[] frame = Frame(i);
                NetClient pair = pairs[i % pairCount];
                pair.Send(frame);
                Assert.That(pair.Receive(), Is.EqualTo(frame), $"packet {i} with features 0x{features:x}");
            }
            Assert.That(pairs.Any(pair => pair.HasReceived), Is.False, "of what nobody sent");

            Assert.That(guest.Pause().Select(next => next & 0x7FFF), Is.All.EqualTo(100));
            byte[] last = Frame(777);
            pairs[^1].Send(last);
            Assert.That(pairs[^1].Receive(), Is.EqualTo(last), "after a pause");
            Assert.That(guest.Told, Is.Empty);
        }
    }

    private static byte[] Frame(int number)
    {
        byte[] frame = new byte[60 + number % 1400];
        new Random(number).NextBytes(frame);
        new byte[] { 0x56, 0x48, 0x4F, 0x53, 0x54, 0, 2, 0, 0, 0, 0, (byte)number, 0x88, 0xB5 }.CopyTo(frame, 0);
        return frame;
    }
}
