using System.Diagnostics;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.User.Frontend;

/// <summary>Answers that no back-end may give: each ends the connection with an error that names the message, closes what came with it, and
/// takes no time.</summary>
public class SessionHostileTests
{
    private const VhostUserProtocolFeatures Agreed = VhostUserProtocolFeatures.ReplyAck | VhostUserProtocolFeatures.Mq
        | VhostUserProtocolFeatures.Config | VhostUserProtocolFeatures.InflightShmFd | VhostUserProtocolFeatures.Status
        | VhostUserProtocolFeatures.DeviceState | VhostUserProtocolFeatures.Shmem | VhostUserProtocolFeatures.PageFault;

    private static readonly VhostUserRequest[] s_requests = [VhostUserRequest.GetQueueNum, VhostUserRequest.SetVringNum];

    // Request, flags, size as said, bytes that follow, descriptors, what the error says.
    private static IEnumerable<TestCaseData> Answers()
    {
        foreach (VhostUserRequest request in s_requests)
        {
            uint id = (uint)request;
            yield return Case(request, "wrong id", 1, 5, 8, 8, 0, "the peer answers message 1 instead");
            yield return Case(request, "unknown id", uint.MaxValue, 5, 8, 8, 0, "the peer answers message 4294967295 instead");
            yield return Case(request, "no reply bit", id, 1, 8, 8, 0, "the peer's answer is not marked as a reply");
            yield return Case(request, "version 0", id, 4, 8, 8, 0, "the peer speaks version 0 of the protocol, which has only 1");
            yield return Case(request, "version 2", id, 6, 8, 8, 0, "the peer speaks version 2 of the protocol, which has only 1");
            yield return Case(request, "version 3", id, 7, 8, 8, 0, "the peer speaks version 3 of the protocol, which has only 1");
            yield return Case(request, "unknown flag", id, 0x15, 8, 8, 0, "the peer's answer has unknown flags (0x15)");
            yield return Case(request, "highest flag", id, 0x8000_0005, 8, 8, 0, "the peer's answer has unknown flags (0x80000005)");
            yield return Case(request, "empty", id, 5, 0, 0, 0, "the peer's answer has 0 bytes and not 8");
            yield return Case(request, "too short", id, 5, 7, 7, 0, "the peer's answer has 7 bytes and not 8");
            yield return Case(request, "too long", id, 5, 9, 9, 0, "the peer's answer has 9 bytes and not 8");
            yield return Case(request, "huge", id, 5, uint.MaxValue, 8, 0, $"the peer sends a message {id} of 4294967295 bytes, of 4096 at most");
            yield return Case(request, "a descriptor", id, 5, 8, 8, 1, "the peer's answer brings 1 descriptors, of 0 at most");
            yield return Case(request, "nine descriptors", id, 5, 8, 8, 9, "the peer's answer brings 9 descriptors, of 0 at most");
            yield return Case(request, "cut off in the payload", id, 5, 8, 3, 0, "the peer closed the connection in the middle of a message");
            yield return Case(request, "cut off in the header", id, 5, 8, -5, 1, "the peer closed the connection in the middle of a message");
            yield return Case(request, "closed", id, 5, 8, -12, 0, "the peer closed the connection");
        }
    }

    [TestCaseSource(nameof(Answers))]
    public void Answer_Malformed_EndsTheConnection(VhostUserRequest request, byte[] bytes, int descriptors, string error)
    {
        int before = PassedDescriptors.Count();
        using (var peer = new SessionPeer(Agreed))
        {
            FileDescriptor[] files = [.. Enumerable.Range(0, descriptors).Select(_ => MemFd.Create("hostile", 4096))];
            if (bytes.Length > 0)
                peer.Send(bytes, files);
            foreach (FileDescriptor file in files)
                file.Dispose();
            peer.CloseForSending();

            Assert.That(
                () => Say(peer, request),
                Throws.TypeOf<VhostUserException>().With.Property("IsConnectionLost").True
                    .And.Message.EqualTo($"peer: {request.WireName()}: {error}"));
            Assert.That(
                () => peer.Session.SetOwner(),
                Throws.TypeOf<VhostUserException>().With.Property("IsConnectionLost").True
                    .And.Message.EqualTo($"peer: {request.WireName()}: {error}"), "later calls say the same");
            Assert.That(peer.HasEnded, "the back-end sees the end, too");
        }
        PassedDescriptors.ReturnTo(before);
    }

    // As a peer can have its descriptors closed: with an answer that has too many, with one that has more than is received at all, out of band, and
    // unread, with the connection.
    [TestCase(1, 0, "the peer's answer brings 1 descriptors, of 0 at most")]
    [TestCase(40, 0, "the peer sends more descriptors than a message can have, or than this process may open")]
    [TestCase(1, 1 /* MSG_OOB */, "the peer sends a byte out of band")]
    [TestCase(1, -1, null)]
    public void Descriptor_WhoseCloseWaits_HoldsNobodyUp(int count, int flags, string? error)
    {
        int before = PassedDescriptors.Count();
        using (var hostile = new HostileDescriptor())
        {
            long start = Stopwatch.GetTimestamp();
            var peer = new SessionPeer(Agreed);
            byte[] answer = [17, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
            HostileDescriptor.Send(peer.Socket, flags > 0 ? answer[..1] : answer, Math.Max(flags, 0), [.. Enumerable.Repeat(hostile.File, count)]);
            hostile.File.Dispose();
            if (flags > 0)
                peer.Send(answer);
            if (error is not null)
            {
                Assert.That(
                    () => Say(peer, VhostUserRequest.GetQueueNum),
                    Throws.TypeOf<VhostUserException>().With.Property("IsConnectionLost").True.And.Message.EqualTo($"peer: GET_QUEUE_NUM: {error}"));
            }
            peer.Session.Dispose();
            Assert.That(peer.HasEnded);
            Assert.That(Stopwatch.GetElapsedTime(start), Is.LessThan(HostileDescriptor.Patience));
            peer.Dispose();
        }
        PassedDescriptors.ReturnTo(before);
    }

    [Test]
    public void Descriptors_ThatCannotBeClosed_AreNotTakenWithoutEnd()
    {
        int before = PassedDescriptors.Count();
        using (var hostile = new HostileDescriptor())
        using (FileDescriptor file = FileDescriptor.Open("/dev/null", OpenMode.ReadOnly))
        using (var peer = new SessionPeer(Agreed | VhostUserProtocolFeatures.SharedObject, TimeSpan.FromMilliseconds(100)))
        {
            byte[] answer = [(byte)VhostUserRequest.GetSharedObject, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0];
            peer.Send(answer, hostile.File);
            hostile.File.Dispose();
            Assert.That(() => Close(peer), Throws.Nothing);
            for (int i = 0; i < PeerDescriptors.MaxWaiting - 1; i++)
            {
                peer.Send(answer, file);
                Close(peer);
            }
            peer.Send(answer, file);
            Assert.That(
                () => Close(peer),
                Throws.TypeOf<VhostUserException>().With.Message.EqualTo("peer: GET_SHARED_OBJECT: the peer has sent 128 descriptors that could not be closed within 0.1 s"));

            // Another peer is held up by none of that.
            using var other = new SessionPeer(Agreed | VhostUserProtocolFeatures.SharedObject);
            other.Send(answer, file);
            Close(other);
            Assert.That(() => other.Session.Received.HasRoom);
            Eventually.True(() => other.Session.Received.Waiting == 0, () => "another peer's descriptor is not closed");
        }
        PassedDescriptors.ReturnTo(before);

        static void Close(SessionPeer peer) => peer.Session.GetSharedObject(Guid.Empty)!.Dispose();
    }

    [Test]
    public void StopRings_NumberThatIsNoRings_SendsNothing()
    {
        using var peer = new SessionPeer(Agreed);
        Assert.That(() => peer.Session.StopRings([0, 300]), Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => peer.Session.StopRings([0, -1]), Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(peer.Receive(out _), Is.Empty);
        peer.Answer(VhostUserRequest.GetQueueNum, 3);
        Assert.That(peer.Session.GetQueueNum(), Is.EqualTo(3), "the session goes on");
    }

    [Test]
    public void StopRings_CallBackThrows_EndsTheConnection()
    {
        using var peer = new SessionPeer(Agreed);
        peer.Answer(VhostUserRequest.SetVringEnable, 1);
        Assert.That(
            () => peer.Session.StopRings([0], _ => throw new InvalidOperationException("on purpose")),
            Throws.TypeOf<InvalidOperationException>().With.Message.EqualTo("on purpose"));
        AssertBroken(peer, "peer: SET_VRING_ENABLE: a call-back failed: on purpose");
    }

    [Test]
    public void SetMemoryTablePostcopy_CallBackThrows_EndsTheConnection()
    {
        using var peer = new SessionPeer(Agreed);
        var region = new MemoryRegionPayload(0, 4096, 0, 0);
        peer.Answer((uint)VhostUserRequest.SetMemTable, 5, [1, 0, 0, 0, 0, 0, 0, 0, .. SessionPeer.Bytes(region)]);
        Assert.That(
            () => peer.Session.SetMemoryTablePostcopy([region], [peer.Session.Socket], _ => throw new InvalidOperationException("on purpose")),
            Throws.TypeOf<InvalidOperationException>().With.Message.EqualTo("on purpose"));
        AssertBroken(peer, "peer: SET_MEM_TABLE: a call-back failed: on purpose");
    }

    private static void AssertBroken(SessionPeer peer, string reason)
    {
        Assert.That(
            () => peer.Session.GetQueueNum(), Throws.TypeOf<VhostUserException>().With.Property("IsConnectionLost").True.And.Message.EqualTo(reason));
        Assert.That(peer.HasEnded, "the back-end sees it");
    }

    [TestCase(VhostUserRequest.GetQueueNum)]
    [TestCase(VhostUserRequest.SetVringNum)]
    public void Answer_Never_EndsTheConnectionInTime(VhostUserRequest request)
    {
        using var peer = new SessionPeer(Agreed, TimeSpan.FromMilliseconds(50));
        long start = Stopwatch.GetTimestamp();
        Assert.That(
            () => Say(peer, request),
            Throws.TypeOf<VhostUserException>().With.Property("IsConnectionLost").True
                .And.Message.EqualTo($"peer: {request.WireName()}: the peer did not answer within 0.05 s"));
        Assert.That(Stopwatch.GetElapsedTime(start), Is.GreaterThan(TimeSpan.FromMilliseconds(49)));
    }

    [Test]
    public void Answer_ByteByByte_IsTaken()
    {
        using var peer = new SessionPeer(Agreed);
        var sender = new Thread(() =>
        {
            foreach (byte value in (byte[])[17, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0])
            {
                peer.Send([value]);
                Thread.Sleep(1);
            }
        });
        sender.Start();
        Assert.That(peer.Session.GetQueueNum(), Is.EqualTo(9));
        sender.Join();
    }

    [Test]
    public void Answer_StopsInTheMiddle_EndsTheConnectionInTime()
    {
        using var peer = new SessionPeer(Agreed, TimeSpan.FromMilliseconds(50));
        peer.Send([17, 0, 0, 0, 5]);
        Assert.That(
            () => peer.Session.GetQueueNum(),
            Throws.TypeOf<VhostUserException>().With.Message.EqualTo(
                "peer: GET_QUEUE_NUM: the peer sent a part of a message and nothing more within 0.1 s"));
    }

    [Test]
    public void Request_NobodyReads_EndsTheConnectionInTime()
    {
        using var peer = new SessionPeer(timeout: TimeSpan.FromMilliseconds(50));
        Assert.That(
            () =>
            {
                while (true)
                    peer.Session.SetOwner();
            },
            Throws.TypeOf<VhostUserException>().With.Property("IsConnectionLost").True.And.Message.EqualTo("peer: SET_OWNER: the peer did not read for 0.1 s"));
    }

    [Test]
    public void Abort_WhileAnotherThreadWaits_EndsItsWait()
    {
        using var peer = new SessionPeer(Agreed, TimeSpan.FromMinutes(5));
        var waiting = new Thread(() => Assert.That(() => peer.Session.GetQueueNum(), Throws.TypeOf<VhostUserException>()));
        waiting.Start();
        Eventually.True(() => peer.Receive(out _).Length > 0, () => "nothing was sent");
        peer.Session.Abort("enough");
        Assert.That(waiting.Join(TimeSpan.FromSeconds(30)));
        Assert.That(() => peer.Session.SetOwner(), Throws.TypeOf<VhostUserException>().With.Message.EqualTo("enough"));
    }

    private static readonly (VhostUserRequest Request, byte[] Payload, int Descriptors, string Error)[] s_nonsense =
    [
        (VhostUserRequest.GetVringBase, SessionPeer.Bytes(new VringState(2, 0)), 0, "the peer answers for ring 2 instead of 1"),
        (VhostUserRequest.GetConfig, [0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], 0, "the peer's answer is not one of 4 bytes of configuration"),
        (VhostUserRequest.GetConfig, [1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], 0, "the peer's answer is not one of 4 bytes of configuration"),
        (VhostUserRequest.GetConfig, [0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 2], 0, "the peer's answer is not one of 4 bytes of configuration"),
        (VhostUserRequest.GetInflightFd, SessionPeer.Bytes(new InflightPayload(4096, 0, 1, 1)), 0, "the peer's answer brings no descriptor"),
        (VhostUserRequest.GetInflightFd, SessionPeer.Bytes(new InflightPayload(4096, 0, 1, 1)), 2, "the peer's answer brings 2 descriptors, of 1 at most"),
        (VhostUserRequest.GetStatus, SessionPeer.Bytes(256UL), 0, "the peer has a status 0x100"),
        (VhostUserRequest.SetDeviceStateFd, SessionPeer.Bytes(0UL), 0, "the peer's answer does not say truly whether it brings a descriptor"),
        (VhostUserRequest.SetDeviceStateFd, SessionPeer.Bytes(0x100UL), 1, "the peer's answer does not say truly whether it brings a descriptor"),
        (VhostUserRequest.GetShmemConfig, [1, .. new byte[2055]], 0, "the peer has 1 regions, and sizes of 0"),
    ];

    [Test]
    public void Answer_WellFormedNonsense_EndsTheConnection([Range(0, 9)] int number)
    {
        (VhostUserRequest request, byte[] payload, int descriptors, string error) = s_nonsense[number];
        int before = PassedDescriptors.Count();
        using (var peer = new SessionPeer(Agreed))
        {
            FileDescriptor[] files = [.. Enumerable.Range(0, descriptors).Select(_ => MemFd.Create("hostile", 4096))];
            peer.Answer((uint)request, 5, payload, files);
            foreach (FileDescriptor file in files)
                file.Dispose();
            Assert.That(
                () => Say(peer, request),
                Throws.TypeOf<VhostUserException>().With.Property("IsConnectionLost").True
                    .And.Message.EqualTo($"peer: {request.WireName()}: {error}"));
        }
        PassedDescriptors.ReturnTo(before);
    }

    private static void Say(SessionPeer peer, VhostUserRequest request)
    {
        switch (request)
        {
            case VhostUserRequest.GetQueueNum:
                peer.Session.GetQueueNum();
                break;
            case VhostUserRequest.SetVringNum:
                peer.Session.SetRingSize(0, 1);
                break;
            case VhostUserRequest.GetVringBase:
                peer.Session.GetRingBase(1);
                break;
            case VhostUserRequest.GetConfig:
                peer.Session.GetConfig(new byte[4]);
                break;
            case VhostUserRequest.GetInflightFd:
                peer.Session.GetInflight(1, 1).File?.Dispose();
                break;
            case VhostUserRequest.GetStatus:
                peer.Session.GetStatus();
                break;
            case VhostUserRequest.SetDeviceStateFd:
                peer.Session.SetDeviceState(default, peer.Session.Socket)?.Dispose();
                break;
            case VhostUserRequest.GetShmemConfig:
                peer.Session.GetSharedMemorySizes();
                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(request));
        }
    }

    // A negative number of bytes cuts the header short.
    private static TestCaseData Case(
        VhostUserRequest request, string name, uint id, uint flags, uint size, int bytes, int descriptors, string error)
    {
        byte[] whole = [.. BitConverter.GetBytes(id), .. BitConverter.GetBytes(flags), .. BitConverter.GetBytes(size), .. new byte[Math.Max(0, bytes)]];
        return new TestCaseData(request, whole[..(whole.Length + Math.Min(0, bytes))], descriptors, error)
            .SetArgDisplayNames(request.WireName(), name);
    }
}
