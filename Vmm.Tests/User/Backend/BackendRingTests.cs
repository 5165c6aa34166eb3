using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost;

namespace Vmm.Tests.User.Backend;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class BackendRingTests : IDisposable
{
    private const ulong Split = 0;
    private const ulong Packed = VirtioFeatures.RingPacked;
    private const ulong EventIndex = VirtioFeatures.EventIndex;

    private readonly EchoDevice _device = new();
    private readonly FrontEndDriver _frontEnd;

    public BackendRingTests() => _frontEnd = FrontEndDriver.ConnectedTo(_device);

    public void Dispose() => _frontEnd.Dispose();

    [TestCase(Split)]
    [TestCase(Packed)]
    [TestCase(Split | EventIndex)]
    [TestCase(Packed | EventIndex | VirtioFeatures.IndirectDescriptors)]
    public void Ring_Requests_AreAnsweredInOrderAndCalled(ulong features)
    {
        using FrontEndRing ring = _frontEnd.Start(features);
        ring.Queue.EnableCalls();
        for (int i = 0; i < 200; i++)
        {
            ushort id = ring.Add([(byte)i, 7], 4, indirect: (features & VirtioFeatures.IndirectDescriptors) != 0 && i % 2 == 0);
            Assert.That(ring.WaitForCall(), $"request {i}");
            (ushort used, uint written, byte[] bytes) = ring.Take();
            ring.Queue.EnableCalls();
            Assert.That(used, Is.EqualTo(id));
            Assert.That(written, Is.EqualTo(2));
            Assert.That(bytes, Is.EqualTo(new[] { (byte)(i + 1), (byte)8 }));
        }
    }
}
