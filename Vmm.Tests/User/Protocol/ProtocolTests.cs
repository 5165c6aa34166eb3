using System.Runtime.CompilerServices;
using NUnit.Framework;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.User.Protocol;

public class ProtocolTests
{
    private static IEnumerable<TestCaseData> Sizes()
    {
        yield return Size<VhostUserHeader>(VhostUserHeader.WireSize, 12);
        yield return Size<VringState>(VringState.WireSize, 8);
        yield return Size<VringAddress>(VringAddress.WireSize, 40);
        yield return Size<MemoryRegionPayload>(MemoryRegionPayload.WireSize, 32);
        yield return Size<MemoryTableHeader>(MemoryTableHeader.WireSize, 8);
        yield return Size<SingleMemoryRegion>(SingleMemoryRegion.WireSize, 40);
        yield return Size<LogPayload>(LogPayload.WireSize, 16);
        yield return Size<IotlbPayload>(IotlbPayload.WireSize, 32);
        yield return Size<ConfigHeader>(ConfigHeader.WireSize, 12);
        yield return Size<VringArea>(VringArea.WireSize, 24);
        yield return Size<InflightPayload>(InflightPayload.WireSize, 24);
        yield return Size<DeviceStatePayload>(DeviceStatePayload.WireSize, 8);
        yield return Size<ShmemMapPayload>(ShmemMapPayload.WireSize, 40);
    }

    [TestCaseSource(nameof(Sizes))]
    public void Payload_HasItsSizeOnTheWire(int actual, int declared, int expected) =>
        Assert.That((actual, declared), Is.EqualTo((expected, expected)));

    [Test]
    public void Requests_AllNumbers_HaveRules()
    {
        Assert.That(Enum.GetValues<VhostUserRequest>().Select(request => (uint)request), Is.EqualTo(Enumerable.Range(1, 45).Select(number => (uint)number)));
        Assert.That(Enum.GetValues<VhostUserRequest>().Select(request => MessageRule.Find(request)), Has.None.Null);
        foreach (uint number in (uint[])[0, 46, uint.MaxValue])
            Assert.That(MessageRule.Find((VhostUserRequest)number), Is.Null);
    }

    [Test]
    public void BackendRequests_AllNumbers_HaveRules()
    {
        Assert.That(
            Enum.GetValues<VhostUserBackendRequest>().Select(request => (uint)request), Is.EqualTo(Enumerable.Range(1, 10).Select(number => (uint)number)));
        Assert.That(Enum.GetValues<VhostUserBackendRequest>().Select(request => BackendMessageRule.Find(request)), Has.None.Null);
        foreach (uint number in (uint[])[0, 11, uint.MaxValue])
            Assert.That(BackendMessageRule.Find((VhostUserBackendRequest)number), Is.Null);
    }

    // vhost-user.rst, "Protocol features": the numbers of the bits are all that two implementations have in common.
    [TestCase(VhostUserProtocolFeatures.Mq, 0)]
    [TestCase(VhostUserProtocolFeatures.LogShmFd, 1)]
    [TestCase(VhostUserProtocolFeatures.Rarp, 2)]
    [TestCase(VhostUserProtocolFeatures.ReplyAck, 3)]
    [TestCase(VhostUserProtocolFeatures.Mtu, 4)]
    [TestCase(VhostUserProtocolFeatures.BackendReq, 5)]
    [TestCase(VhostUserProtocolFeatures.CrossEndian, 6)]
    [TestCase(VhostUserProtocolFeatures.CryptoSession, 7)]
    [TestCase(VhostUserProtocolFeatures.PageFault, 8)]
    [TestCase(VhostUserProtocolFeatures.Config, 9)]
    [TestCase(VhostUserProtocolFeatures.BackendSendFd, 10)]
    [TestCase(VhostUserProtocolFeatures.HostNotifier, 11)]
    [TestCase(VhostUserProtocolFeatures.InflightShmFd, 12)]
    [TestCase(VhostUserProtocolFeatures.ResetDevice, 13)]
    [TestCase(VhostUserProtocolFeatures.InbandNotifications, 14)]
    [TestCase(VhostUserProtocolFeatures.ConfigureMemSlots, 15)]
    [TestCase(VhostUserProtocolFeatures.Status, 16)]
    [TestCase(VhostUserProtocolFeatures.XenMmap, 17)]
    [TestCase(VhostUserProtocolFeatures.SharedObject, 18)]
    [TestCase(VhostUserProtocolFeatures.DeviceState, 19)]
    [TestCase(VhostUserProtocolFeatures.GetVringBaseInflight, 20)]
    [TestCase(VhostUserProtocolFeatures.GpaAddresses, 21)]
    [TestCase(VhostUserProtocolFeatures.Shmem, 22)]
    [TestCase(VhostUserProtocolFeatures.GetVringBaseSkipDrain, 23)]
    public void ProtocolFeature_HasItsBit(VhostUserProtocolFeatures feature, int bit) =>
        Assert.That((ulong)feature, Is.EqualTo(1UL << bit));

    [TestCase(VhostUserRequest.SetBackendReqFd, "SET_BACKEND_REQ_FD")]
    [TestCase(VhostUserRequest.IotlbMsg, "IOTLB_MSG")]
    [TestCase((VhostUserRequest)77, "77")]
    public void WireName_IsTheSpecifications(VhostUserRequest request, string name) => Assert.That(request.WireName(), Is.EqualTo(name));

    private static TestCaseData Size<T>(int declared, int expected) =>
        new TestCaseData(Unsafe.SizeOf<T>(), declared, expected).SetArgDisplayNames(typeof(T).Name);
}
