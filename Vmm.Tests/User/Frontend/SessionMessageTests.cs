using NUnit.Framework;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Frontend;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.User.Frontend;

/// <summary>Every message of the front-end as it must be on the wire (vhost-user.rst, "Front-end message types"), against bytes that were
/// written down by hand; x86-64 is little-endian.</summary>
public class SessionMessageTests
{
    private const VhostUserProtocolFeatures All = (VhostUserProtocolFeatures)0xFFFFFF & ~VhostUserProtocolFeatures.ReplyAck
        & ~VhostUserProtocolFeatures.InbandNotifications & ~VhostUserProtocolFeatures.ConfigureMemSlots;

    private static readonly MemoryRegionPayload s_region = new(0x1000, 0x2000, 0x7000_0000, 0x40);
    private static readonly Guid s_name = new("00112233-4455-6677-8899-aabbccddeeff");

    private const string RegionHex = "0010000000000000 0020000000000000 0000007000000000 4000000000000000";

    // Number, payload, descriptors, answer of its own, what is done.
    private static IEnumerable<TestCaseData> Messages()
    {
        // Without an answer of their own.
        yield return Tell(2, "0300004001000000", s => s.SetFeatures(0x1_0000_0003));
        yield return Tell(3, "", s => s.SetOwner());
        yield return Tell(5, $"0100000000000000 {RegionHex}", s => s.SetMemoryTable([s_region], [s.Socket]), 1);
        yield return Tell(7, "", s => s.SetLogSignal(s.Socket), 1);
        yield return Tell(8, "01000000 00010000", s => s.SetRingSize(1, 256));
        yield return Tell(
            9,
            "02000000 01000000 0010000000000000 0030000000000000 0020000000000000 0040000000000000",
            s => s.SetRingAddress(new VringAddress(2, 1, 0x1000, 0x3000, 0x2000, 0x4000)));
        yield return Tell(10, "03000000 feff0000", s => s.SetRingBase(3, 0xFFFE));
        yield return Tell(12, "0400000000000000", s => s.SetRingKick(4, s.Socket), 1);
        yield return Tell(12, "0401000000000000", s => s.SetRingKick(4, null));
        yield return Tell(13, "ff00000000000000", s => s.SetRingCall(255, s.Socket), 1);
        yield return Tell(13, "ff01000000000000", s => s.SetRingCall(255, null));
        yield return Tell(14, "0500000000000000", s => s.SetRingError(5, s.Socket), 1);
        yield return Tell(14, "0501000000000000", s => s.SetRingError(5, null));
        yield return Tell(18, "06000000 01000000", s => s.SetRingEnabled(6, true));
        yield return Tell(18, "06000000 00000000", s => s.SetRingEnabled(6, false));
        yield return Tell(19, "5254001234560000", s => s.SendRarp(0x5634_1200_5452));
        yield return Tell(20, "2823000000000000", s => s.SetMtu(9000));
        yield return Tell(21, "", s => s.SetBackendRequestSocket(s.Socket), 1);
        yield return Tell(23, "07000000 01000000", s => s.SetRingEndian(7, bigEndian: true));
        yield return Tell(25, "20000000 01000000 00000000 01", s => s.SetConfig(32, [1]));
        yield return Tell(25, "00000000 02000000 01000000 0102", s => s.SetConfig(0, [1, 2], isMigration: true));
        yield return Tell(27, "2a00000000000000", s => s.CloseCryptoSession(42));
        yield return Tell(29, "", s => s.ListenPostcopy());
        yield return Tell(
            32, "0010000000000000 0800000000000000 0200 8000 00000000", s => s.SetInflight(new InflightPayload(4096, 8, 2, 128), s.Socket), 1);
        yield return Tell(33, "", s => s.SetGpuSocket(s.Socket), 1);
        yield return Tell(34, "", s => s.ResetDevice());
        yield return Tell(
            35, "08000000 00000000", s => s.KickRing(8), agreed: VhostUserProtocolFeatures.InbandNotifications | VhostUserProtocolFeatures.ReplyAck
                | VhostUserProtocolFeatures.BackendReq);
        yield return Tell(
            37, $"0000000000000000 {RegionHex}", s => s.AddMemoryRegion(s_region, s.Socket), 1, VhostUserProtocolFeatures.ConfigureMemSlots);
        yield return Tell(
            38, $"0000000000000000 {RegionHex}", s => s.RemoveMemoryRegion(s_region), agreed: VhostUserProtocolFeatures.ConfigureMemSlots);
        yield return Tell(39, "0f00000000000000", s => s.SetStatus(15));

        // With one.
        yield return Ask(1, "", "0300004001000000", s => s.GetFeatures(), 0x1_4000_0003UL);
        yield return Ask(6, "0020000000000000 0010000000000000", "", s => s.SetLog(new LogPayload(8192, 4096), s.Socket), 1);
        yield return Ask(6, "0020000000000000 0000000000000000", "0020000000000000", s => s.SetLog(new LogPayload(8192, 0), s.Socket), 1);
        yield return Ask(
            6, "0020000000000000 0000000000000000", "0020000000000000 0000000000000000", s => s.SetLog(new LogPayload(8192, 0), s.Socket), 1);
        yield return Ask(11, "02000000 00000000", "02000000 ffff0000", s => s.GetRingBase(2), 0xFFFFU);
        yield return Ask(15, "", "ffffff0000000080", s => (ulong)s.GetProtocolFeatures(), 0x8000_0000_00FF_FFFFUL);
        yield return Ask(17, "", "0800000000000000", s => s.GetQueueNum(), 8UL);
        yield return Ask(
            22,
            "0010000000000000 0020000000000000 0030000000000000 03 02 000000000000",
            "0000000000000000",
            s => s.SendIotlb(new IotlbPayload(0x1000, 0x2000, 0x3000, 3, 2)));
        yield return Ask(24, "00000000 04000000 00000000 00000000", "00000000 04000000 00000000 01020304", s => Config(s, 4), "01020304");
        yield return Ask(26, "0100000000000000aa", "0100000000000000bb", s => Convert.ToHexString(s.CreateCryptoSession([1, 0, 0, 0, 0, 0, 0, 0, 0xAA])), "0100000000000000BB");
        yield return Ask(30, "", "0000000000000000", s => s.EndPostcopy());
        yield return Ask(
            31,
            "0000000000000000 0000000000000000 0200 8000 00000000",
            "0010000000000000 0000000000000000 0200 8000 00000000",
            s => Inflight(s),
            4096UL,
            answerDescriptors: 1);
        yield return Ask(
            31, "0000000000000000 0000000000000000 0200 8000 00000000", "0010000000000000 0000000000000000 0200 8000", s => Inflight(s), 4096UL, answerDescriptors: 1);
        yield return Ask(
            36, "", "2000000000000000", s => s.GetMaxMemorySlots(), 32UL, agreed: VhostUserProtocolFeatures.ConfigureMemSlots);
        yield return Ask(40, "", "0f00000000000000", s => s.GetStatus(), (byte)15);
        yield return Ask(41, "00112233445566778899aabbccddeeff", "", s => Close(s.GetSharedObject(s_name)), true, answerDescriptors: 1);
        yield return Ask(41, "00112233445566778899aabbccddeeff", "00112233445566778899aabbccddeeff", s => Close(s.GetSharedObject(s_name)), false);
        yield return Ask(42, "01000000 00000000", "0001000000000000", s => Close(s.SetDeviceState(new DeviceStatePayload(1, 0), s.Socket)), false, 1);
        yield return Ask(
            42, "00000000 00000000", "0000000000000000", s => Close(s.SetDeviceState(new DeviceStatePayload(0, 0), s.Socket)), true, 1, answerDescriptors: 1);
        yield return Ask(43, "", "0000000000000000", s => s.CheckDeviceState());
        yield return Ask(28, "", "", s => Close(s.AdvisePostcopy()), true, answerDescriptors: 1);
        yield return Ask(
            44, "", $"0100000000000000 {new string('0', 16 * 5)} 0000001000000000 {new string('0', 16 * 250)}", s => s.GetSharedMemorySizes()[5], 0x1000_0000UL);
        yield return Ask(45, "01000000 00000000", "01000000 05000000", s => s.GetRingBaseWithoutDraining(1), 5U);
    }

    private static IEnumerable<TestCaseData> AcknowledgedMessages() => Messages().Where(data => Of(data).Answer is null);

    private static IEnumerable<TestCaseData> OptionalMessages() => Messages().Where(data =>
        MessageRule.Find((VhostUserRequest)Of(data).Number)!.Value.Needs != VhostUserProtocolFeatures.None
        || (VhostUserRequest)Of(data).Number is VhostUserRequest.SetLogBase or VhostUserRequest.SetVringEnable or VhostUserRequest.GetProtocolFeatures);

    [TestCaseSource(nameof(Messages))]
    public void Message_Sent_IsTheseBytes(Message message)
    {
        using var peer = new SessionPeer(message.Agreed);
        using FileDescriptor file = MemFd.Create("answer", 4096);
        bool acknowledged = message.Answer is null && (message.Agreed & VhostUserProtocolFeatures.ReplyAck) != 0;
        if (message.Answer is not null)
            peer.Answer((uint)message.Number, 5, Hex(message.Answer), message.AnswerDescriptors == 1 ? [file] : []);
        else if (acknowledged)
            peer.Answer((VhostUserRequest)message.Number, 0);

        object? result = message.Do(peer.Session);

        byte[] payload = Hex(message.Payload);
        byte[] expected = [(byte)message.Number, 0, 0, 0, (byte)(acknowledged ? 9 : 1), 0, 0, 0, (byte)payload.Length, (byte)(payload.Length >> 8), 0, 0, .. payload];
        Assert.That(Convert.ToHexString(peer.Receive(out int descriptors)), Is.EqualTo(Convert.ToHexString(expected)));
        Assert.That(descriptors, Is.EqualTo(message.Descriptors));
        Assert.That(result, Is.EqualTo(message.Result));
    }

    [TestCaseSource(nameof(Messages))]
    public void Message_WithReplyAck_AsksForAnAnswerOnlyWhereItHasNone(Message message)
    {
        using var peer = new SessionPeer(message.Agreed | VhostUserProtocolFeatures.ReplyAck);
        using FileDescriptor file = MemFd.Create("answer", 4096);
        // Some peers leave NEED_REPLY in the answer.
        peer.Answer(
            (uint)message.Number, 13, message.Answer is null ? new byte[8] : Hex(message.Answer), message.AnswerDescriptors == 1 ? [file] : []);

        message.Do(peer.Session);

        bool isIotlb = message.Number == (int)VhostUserRequest.IotlbMsg;   // which is always answered, and yet must be asked for by DPDK
        Assert.That(peer.Receive(out _)[4], Is.EqualTo(message.Answer is null || isIotlb ? 9 : 1));
    }

    [TestCaseSource(nameof(AcknowledgedMessages))]
    public void Message_Refused_IsAnErrorAndTheConnectionStays(Message message)
    {
        using var peer = new SessionPeer(message.Agreed | VhostUserProtocolFeatures.ReplyAck);
        peer.Answer((VhostUserRequest)message.Number, 1);
        Assert.That(
            () => message.Do(peer.Session),
            Throws.TypeOf<VhostUserException>().With.Property("IsConnectionLost").False
                .And.Message.EqualTo($"peer: refused {((VhostUserRequest)message.Number).WireName()} (0x1)"));
        peer.Answer((VhostUserRequest)message.Number, 0);
        Assert.That(() => message.Do(peer.Session), Throws.Nothing);
    }

    [TestCaseSource(nameof(OptionalMessages))]
    public void Message_NotAgreedOn_IsNotSent(Message message)
    {
        using var peer = new SessionPeer();
        Assert.That(
            () => message.Do(peer.Session),
            Throws.TypeOf<VhostUserException>().With.Property("IsConnectionLost").False
                .And.Message.StartsWith($"peer: {((VhostUserRequest)message.Number).WireName()} cannot be sent: "));
        Assert.That(peer.Receive(out _), Is.Empty);
    }

    [TestCase(0, 128, "rings")]
    [TestCase(-1, 128, "rings")]
    [TestCase(65536, 128, "rings")]
    [TestCase(2, 0, "size")]
    [TestCase(2, -1, "size")]
    [TestCase(2, 65536, "size")]
    public void GetInflight_ImpossibleValue_IsRefusedBeforeAnythingIsSent(int rings, int size, string parameter)
    {
        using var peer = new SessionPeer(All);
        Assert.That(
            () => peer.Session.GetInflight(rings, size),
            Throws.TypeOf<ArgumentOutOfRangeException>().With.Property(nameof(ArgumentException.ParamName)).EqualTo(parameter));
        Assert.That(peer.Receive(out _), Is.Empty);
    }

    [Test]
    public void Messages_AllNumbers_AreThere()
    {
        // 4 is deprecated and never sent, 16 is in the test that agrees.
        Assert.That(
            Messages().Select(data => Of(data).Number).Distinct().Order(),
            Is.EqualTo(Enumerable.Range(1, 45).Where(number => number is not (4 or 16))));
    }

    [Test]
    public void SetProtocolFeatures_Agreed_IsSentAndNeverAcknowledged()
    {
        using var peer = new SessionPeer();
        peer.Answer(VhostUserRequest.GetFeatures, VirtioFeatures.VhostUserProtocolFeatures);
        peer.Session.GetFeatures();
        peer.Receive(out _);
        peer.Session.SetProtocolFeatures(VhostUserProtocolFeatures.ReplyAck | VhostUserProtocolFeatures.Mq);
        Assert.That(Convert.ToHexString(peer.Receive(out _)), Is.EqualTo("100000000100000008000000" + "0900000000000000"));
        Assert.That(peer.Session.ProtocolFeatures, Is.EqualTo(VhostUserProtocolFeatures.ReplyAck | VhostUserProtocolFeatures.Mq));
    }

    [TestCase(VhostUserProtocolFeatures.InbandNotifications | VhostUserProtocolFeatures.BackendReq)]
    [TestCase(VhostUserProtocolFeatures.GetVringBaseSkipDrain | VhostUserProtocolFeatures.InflightShmFd)]
    public void SetProtocolFeatures_OneNeedsAnother_IsNotSent(VhostUserProtocolFeatures features)
    {
        using var peer = new SessionPeer(VhostUserProtocolFeatures.Mq);
        Assert.That(() => peer.Session.SetProtocolFeatures(features), Throws.ArgumentException);
        Assert.That(peer.Receive(out _), Is.Empty);
    }

    [Test]
    public void SetFeatures_NoProtocolFeaturesOffered_LeavesBit30Alone()
    {
        using var peer = new SessionPeer();
        peer.Session.SetFeatures(1);
        Assert.That(peer.Receive(out _)[12..], Is.EqualTo(new byte[] { 1, 0, 0, 0, 0, 0, 0, 0 }));
    }

    [Test]
    public void SetLogAddress_WithoutSharedLog_IsANumber()
    {
        using var peer = new SessionPeer(VhostUserProtocolFeatures.Mq);
        peer.Session.SetLogAddress(0x1234);
        Assert.That(Convert.ToHexString(peer.Receive(out int descriptors)), Is.EqualTo("060000000100000008000000" + "3412000000000000"));
        Assert.That(descriptors, Is.Zero);
    }

    [Test]
    public void Number_ThatCannotBe_IsNotSent()
    {
        using var peer = new SessionPeer();
        foreach (int size in new[] { int.MinValue, -1, 0, 32769 })
            Assert.That(() => peer.Session.SetRingSize(0, size), Throws.TypeOf<ArgumentOutOfRangeException>());
        foreach (int mtu in new[] { -1, 65536 })
            Assert.That(() => peer.Session.SetMtu(mtu), Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(peer.Receive(out _), Is.Empty);
    }

    [Test]
    public void SetMemoryTable_NineRegions_IsNotSent()
    {
        using var peer = new SessionPeer();
        MemoryRegionPayload[] regions = [.. Enumerable.Repeat(s_region, 9)];
        FileDescriptor[] files = [.. Enumerable.Repeat(peer.Session.Socket, 9)];
        Assert.That(() => peer.Session.SetMemoryTable(regions, files), Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(peer.Receive(out _), Is.Empty);
    }

    [Test]
    public void ShareMemory_NineRegions_ComeOneByOne()
    {
        using var peer = new SessionPeer(VhostUserProtocolFeatures.ConfigureMemSlots);
        MemoryRegionPayload[] regions = [.. Enumerable.Repeat(s_region, 9)];
        FileDescriptor[] files = [.. Enumerable.Repeat(peer.Session.Socket, 9)];
        peer.Answer(VhostUserRequest.GetMaxMemSlots, 9);
        peer.Session.ShareMemory(regions, files);
        Assert.That(peer.Receive(out int descriptors), Has.Length.EqualTo(12 + 9 * (12 + 40)));
        Assert.That(descriptors, Is.EqualTo(9));

        peer.Answer(VhostUserRequest.GetMaxMemSlots, 8);
        Assert.That(
            () => peer.Session.ShareMemory(regions, files),
            Throws.TypeOf<VhostUserException>().With.Message.EqualTo("peer: takes 8 memory regions at most, and there are 9"));
    }

    [Test]
    public void Postcopy_WithMemorySlots_IsNotSent()
    {
        using var peer = new SessionPeer(VhostUserProtocolFeatures.ConfigureMemSlots | VhostUserProtocolFeatures.PageFault);
        Assert.That(peer.Session.ListenPostcopy, Throws.TypeOf<VhostUserException>());
        Assert.That(() => peer.Session.AdvisePostcopy(), Throws.TypeOf<VhostUserException>());
        Assert.That(peer.Session.EndPostcopy, Throws.TypeOf<VhostUserException>());
        Assert.That(peer.Receive(out _), Is.Empty);
    }

    [Test]
    public void SetMemoryTablePostcopy_Answered_RegistersAndThenTellsSo()
    {
        using var peer = new SessionPeer(VhostUserProtocolFeatures.PageFault | VhostUserProtocolFeatures.ReplyAck);
        MemoryRegionPayload theirs = s_region with { UserAddress = 0x1234_5000 };
        peer.Answer((uint)VhostUserRequest.SetMemTable, 5, [1, 0, 0, 0, 0, 0, 0, 0, .. SessionPeer.Bytes(theirs)]);
        peer.Session.SetMemoryTablePostcopy([s_region], [peer.Session.Socket], regions =>
        {
            Assert.That(regions, Is.EqualTo(new[] { theirs }));
            Assert.That(Convert.ToHexString(peer.Receive(out int descriptors)), Does.StartWith("050000000100000028000000"));
            Assert.That(descriptors, Is.EqualTo(1));
        });
        Assert.That(Convert.ToHexString(peer.Receive(out _)), Is.EqualTo("050000000100000008000000" + "0000000000000000"));
    }

    [TestCase("", TestName = "GetConfig_EmptyReply_IsRefused")]
    [TestCase("00000000 00000000 00000000", TestName = "GetConfig_HeaderOfNoBytes_IsRefused")]
    public void GetConfig_Refused(string answer)
    {
        using var peer = new SessionPeer(All);
        peer.Answer((uint)VhostUserRequest.GetConfig, 5, Hex(answer));
        Assert.That(
            () => Config(peer.Session, 4),
            Throws.TypeOf<VhostUserException>().With.Property("IsConnectionLost").False.And.Message.EqualTo("peer: refused GET_CONFIG (of 4 bytes)"));
    }

    [Test]
    public void GetInflight_NoMemoryNeeded_HasNoFile()
    {
        using var peer = new SessionPeer(All);
        peer.Answer((uint)VhostUserRequest.GetInflightFd, 5, new byte[24]);
        Assert.That(peer.Session.GetInflight(1, 1).File, Is.Null);
    }

    private static TestCaseData Tell(
        int number, string payload, Action<VhostUserSession> act, int descriptors = 0, VhostUserProtocolFeatures agreed = All) =>
        Named(new Message(number, payload, null, s => { act(s); return null; }, null, descriptors, 0, agreed));

    private static TestCaseData Ask(int number, string payload, string answer, Action<VhostUserSession> act, int descriptors = 0) =>
        Named(new Message(number, payload, answer, s => { act(s); return null; }, null, descriptors, 0, All));

    private static TestCaseData Ask<T>(
        int number,
        string payload,
        string answer,
        Func<VhostUserSession, T> act,
        T result,
        int descriptors = 0,
        int answerDescriptors = 0,
        VhostUserProtocolFeatures agreed = All) =>
        Named(new Message(number, payload, answer, s => act(s), result, descriptors, answerDescriptors, agreed));

    private static TestCaseData Named(Message message)
    {
        string name = $"{((VhostUserRequest)message.Number).WireName()} {message.Payload}, {message.Answer ?? "none"}";
        return new TestCaseData(message).SetArgDisplayNames(name[..Math.Min(100, name.Length)]);
    }

    private static Message Of(TestCaseData data) => (Message)data.Arguments[0]!;

    private static string Config(VhostUserSession session, int size)
    {
        byte[] config = new byte[size];
        session.GetConfig(config);
        return Convert.ToHexString(config);
    }

    private static ulong Inflight(VhostUserSession session)
    {
        (InflightPayload description, FileDescriptor? file) = session.GetInflight(2, 128);
        Assert.That(Close(file));
        return description.MmapSize;
    }

    private static bool Close(FileDescriptor? file)
    {
        file?.Dispose();
        return file is not null;
    }

    private static byte[] Hex(string text) => Convert.FromHexString(text.Replace(" ", "", StringComparison.Ordinal));

    /// <summary>A message, what it does, and what comes back.</summary>
    public sealed record Message(
        int Number,
        string Payload,
        string? Answer,
        Func<VhostUserSession, object?> Do,
        object? Result,
        int Descriptors,
        int AnswerDescriptors,
        VhostUserProtocolFeatures Agreed);
}
