using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Frontend;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.User.Frontend;

/// <summary>Every request of a back-end as it is on the wire (vhost-user.rst, "Back-end message types"), and its answer.</summary>
public class BackendRequestReceiverTests
{
    private const VhostUserProtocolFeatures All = (VhostUserProtocolFeatures)0xFFFFFF;
    private const string Mapping = "0500000000000000 0010000000000000 0020000000000000 0030000000000000 0100000000000000";

    private static readonly FileDescriptor s_object = MemFd.Create("object", 4096);

    private BackendRequestReceiver? _channel;
    private UnixSocket _socket = null!;
    private Handler _handler = null!;

    // Number, payload, descriptors, what the handler is told.
    private static IEnumerable<TestCaseData> Requests()
    {
        yield return Case(1, "0010000000000000 0020000000000000 0000000000000000 03 01 000000000000", 0, "iotlb 0x1000+0x2000 3 1");
        yield return Case(2, "", 0, "config changed");
        yield return Case(3, "0100000000000000 0010000000000000 0020000000000000", 1, "notifier 1 0x1000@0x2000 file");
        yield return Case(3, "0101000000000000 0000000000000000 0000000000000000", 0, "notifier 257 0x0@0x0 none");
        yield return Case(4, "02000000 00000000", 0, "call 2");
        yield return Case(5, "03000000 00000000", 0, "error 3");
        yield return Case(6, "00112233445566778899aabbccddeeff", 0, "add 00112233-4455-6677-8899-aabbccddeeff");
        yield return Case(7, "00112233445566778899aabbccddeeff", 0, "remove 00112233-4455-6677-8899-aabbccddeeff");
        yield return Case(8, "00112233445566778899aabbccddeeff", 0, "lookup 00112233-4455-6677-8899-aabbccddeeff");
        yield return Case(9, Mapping, 1, "map 5 0x1000 0x2000 0x3000 1");
        yield return Case(10, Mapping, 0, "unmap 5 0x1000 0x2000 0x3000 1");
    }

    private static IEnumerable<TestCaseData> Unasked() => Requests().Where(data => !data.Arguments[0]!.Equals((uint)VhostUserBackendRequest.SharedObjectLookup));

    [OneTimeSetUp]
    public void OpenObject() => Assert.That(s_object.IsClosed, Is.False);

    [TearDown]
    public void CloseChannel() => _channel?.Dispose();

    [OneTimeTearDown]
    public void CloseObject() => s_object.Dispose();

    [TestCaseSource(nameof(Requests))]
    public void Request_AsksForAnswer_IsDispatchedAndAnswered(uint number, byte[] payload, int descriptors, string told)
    {
        using IDisposable end = Open();
        Send(number, 9, payload, descriptors);
        _channel!.Serve();
        Assert.That(_handler.Told, Is.EqualTo(new[] { told }));
        Assert.That(Convert.ToHexString(Receive(out int answered)), Is.EqualTo($"{number:X2}000000" + "05000000" + "08000000" + "0000000000000000"));
        Assert.That(answered, Is.EqualTo(number == (uint)VhostUserBackendRequest.SharedObjectLookup ? 1 : 0));
    }

    [TestCaseSource(nameof(Requests))]
    public void Request_NotDone_IsAnsweredByANumberThatIsNotZero(uint number, byte[] payload, int descriptors, string told)
    {
        using IDisposable end = Open(isDone: false);
        Send(number, 9, payload, descriptors);
        _channel!.Serve();
        Assert.That(_handler.Told, Is.EqualTo(new[] { told }));
        Assert.That(Convert.ToHexString(Receive(out int answered)), Is.EqualTo($"{number:X2}000000" + "05000000" + "08000000" + "0100000000000000"));
        Assert.That(answered, Is.Zero);
    }

    [TestCaseSource(nameof(Unasked))]
    public void Request_AsksForNone_IsNotAnswered(uint number, byte[] payload, int descriptors, string told)
    {
        using IDisposable end = Open();
        Send(number, 1, payload, descriptors);
        _channel!.Serve();
        Assert.That(_handler.Told, Is.EqualTo(new[] { told }));
        Assert.That(Receive(out _), Is.Empty);
    }

    [Test]
    public void Lookup_AsksForNoAnswer_IsAnswered()
    {
        using IDisposable end = Open();
        Send(8, 1, new byte[16], 0);
        _channel!.Serve();
        Assert.That(Receive(out int answered), Has.Length.EqualTo(20));
        Assert.That(answered, Is.EqualTo(1));
    }

    [TestCaseSource(nameof(Requests))]
    public void Request_OfAnotherSize_ClosesTheChannel(uint number, byte[] payload, int descriptors, string told)
    {
        using IDisposable end = Open();
        Send(number, 9, [.. payload, 0], descriptors);
        Assert.That(
            () => _channel!.Serve(),
            Throws.TypeOf<VhostUserException>().With.Property("IsConnectionLost").True.And.Message.Contains($"with {payload.Length + 1} bytes and not {payload.Length}"));
        Assert.That(_handler.Told, Is.Empty, told);
    }

    [TestCaseSource(nameof(Requests))]
    public void Request_WithMoreDescriptors_ClosesTheChannelAndThem(uint number, byte[] payload, int descriptors, string told)
    {
        int before = PassedDescriptors.Count();
        using (Open())
        {
            Send(number, 9, payload, descriptors + 1);
            Assert.That(() => _channel!.Serve(), Throws.TypeOf<VhostUserException>().With.Property("IsConnectionLost").True);
            Assert.That(_handler.Told, Is.Empty, told);
        }
        _channel!.Dispose();
        PassedDescriptors.ReturnTo(before);
    }

    [TestCase(2u, VhostUserProtocolFeatures.Config)]
    [TestCase(3u, VhostUserProtocolFeatures.HostNotifier)]
    [TestCase(3u, VhostUserProtocolFeatures.BackendSendFd)]
    [TestCase(4u, VhostUserProtocolFeatures.InbandNotifications)]
    [TestCase(5u, VhostUserProtocolFeatures.InbandNotifications)]
    [TestCase(6u, VhostUserProtocolFeatures.SharedObject)]
    [TestCase(7u, VhostUserProtocolFeatures.SharedObject)]
    [TestCase(8u, VhostUserProtocolFeatures.SharedObject)]
    [TestCase(9u, VhostUserProtocolFeatures.Shmem)]
    [TestCase(9u, VhostUserProtocolFeatures.BackendSendFd)]
    [TestCase(10u, VhostUserProtocolFeatures.Shmem)]
    public void Request_NotAgreedOn_ClosesTheChannel(uint number, VhostUserProtocolFeatures missing)
    {
        using IDisposable end = Open(agreed: All & ~missing);
        TestCaseData data = Requests().First(data => data.Arguments[0]!.Equals(number));
        Send(number, 9, (byte[])data.Arguments[1]!, (int)data.Arguments[2]!);
        Assert.That(() => _channel!.Serve(), Throws.TypeOf<VhostUserException>().With.Message.Contains("was not agreed on"));
        Assert.That(_handler.Told, Is.Empty);
    }

    [TestCase(0u, 9u, "", 0, TestName = "Request_Zero_ClosesTheChannel")]
    [TestCase(11u, 9u, "", 0, TestName = "Request_Unknown_ClosesTheChannel")]
    [TestCase(2u, 13u, "", 0, TestName = "Request_MarkedAsReply_ClosesTheChannel")]
    [TestCase(2u, 0x11u, "", 0, TestName = "Request_UnknownFlag_ClosesTheChannel")]
    [TestCase(2u, 2u, "", 0, TestName = "Request_Version2_ClosesTheChannel")]
    [TestCase(3u, 9u, "0101000000000000 0000000000000000 0000000000000000", 1, TestName = "HostNotifier_NoFdWithFd_ClosesTheChannel")]
    [TestCase(3u, 9u, "0100000000000000 0000000000000000 0000000000000000", 0, TestName = "HostNotifier_FdWithout_ClosesTheChannel")]
    [TestCase(3u, 9u, "0102000000000000 0000000000000000 0000000000000000", 1, TestName = "HostNotifier_UnknownBit_ClosesTheChannel")]
    [TestCase(4u, 9u, "00010000 00000000", 0, TestName = "VringCall_Ring256_ClosesTheChannel")]
    [TestCase(9u, 9u, "0001000000000000 0000000000000000 0000000000000000 0010000000000000 0100000000000000", 1, TestName = "Map_Region256_ClosesTheChannel")]
    [TestCase(9u, 9u, "0000000000000000 0000000000000000 0000000000000000 0010000000000000 0200000000000000", 1, TestName = "Map_UnknownFlag_ClosesTheChannel")]
    [TestCase(9u, 9u, "0000000000000000 00f0ffffffffffff 0000000000000000 0020000000000000 0100000000000000", 1, TestName = "Map_WrappingFile_ClosesTheChannel")]
    [TestCase(10u, 9u, "0000000000000000 0000000000000000 00f0ffffffffffff 0020000000000000 0100000000000000", 0, TestName = "Unmap_WrappingRegion_ClosesTheChannel")]
    public void Request_Malformed(uint number, uint flags, string payload, int descriptors)
    {
        using IDisposable end = Open();
        Send(number, flags, Hex(payload), descriptors);
        Assert.That(() => _channel!.Serve(), Throws.TypeOf<VhostUserException>().With.Property("IsConnectionLost").True);
        Assert.That(_handler.Told, Is.Empty);
        Assert.That(Receive(out _), Is.Empty);
    }

    [Test]
    public void Request_HandlerImplementsNothing_IsRefused()
    {
        using BackendRequestReceiver channel = BackendRequestReceiver.Create("peer", All, new Nothing(), out FileDescriptor theirs);
        using (_socket = (UnixSocket)theirs)
        {
            foreach (TestCaseData data in Requests())
            {
                Send((uint)data.Arguments[0]!, 9, (byte[])data.Arguments[1]!, (int)data.Arguments[2]!);
                channel.Serve();
                Assert.That(Receive(out int answered)[12], Is.EqualTo(1));
                Assert.That(answered, Is.Zero);
            }
        }
    }

    [Test]
    public void Dispose_WhileServed_ClosesWhenItIsDone()
    {
        int before = PassedDescriptors.Count();
        using (Open())
        {
            _handler.Before = _channel!.Dispose;
            Send(2, 1, [], 0);
            Assert.That(() => _channel.Serve(), Throws.Nothing);
            Assert.That(_channel.Socket.IsClosed);
        }
        PassedDescriptors.ReturnTo(before);
    }

    private UnixSocket Open(bool isDone = true, VhostUserProtocolFeatures agreed = All)
    {
        _handler = new Handler(isDone);
        _channel = BackendRequestReceiver.Create("peer", agreed, _handler, out FileDescriptor theirs);
        return _socket = (UnixSocket)theirs;
    }

    private void Send(uint number, uint flags, byte[] payload, int descriptors)
    {
        byte[] bytes = [.. BitConverter.GetBytes(number), .. BitConverter.GetBytes(flags), .. BitConverter.GetBytes(payload.Length), .. payload];
        Assert.That(_socket.TrySend(bytes, [.. Enumerable.Repeat(s_object, descriptors)]), Is.EqualTo(bytes.Length));
    }

    private byte[] Receive(out int descriptors)
    {
        var files = new List<FileDescriptor>();
        byte[] buffer = new byte[64];
        int length = _socket.TryReceive(buffer, files, out _);
        foreach (FileDescriptor file in files)
            file.Dispose();
        descriptors = files.Count;
        return buffer[..Math.Max(0, length)];
    }

    private static TestCaseData Case(uint number, string payload, int descriptors, string told) =>
        new TestCaseData(number, Hex(payload), descriptors, told).SetArgDisplayNames(((VhostUserBackendRequest)number).WireName(), told);

    private static byte[] Hex(string text) => Convert.FromHexString(text.Replace(" ", "", StringComparison.Ordinal));

    private sealed class Nothing : IVhostUserBackendRequests;

    private sealed class Handler(bool isDone) : IVhostUserBackendRequests
    {
        public List<string> Told { get; } = [];

        public Action? Before { get; set; }

        public bool Iotlb(in IotlbPayload message) => Tell($"iotlb 0x{message.Iova:x}+0x{message.Size:x} {message.Permissions} {message.Type}");

        public bool ConfigChanged() => Tell("config changed");

        public bool HostNotifier(in VringArea area, FileDescriptor? file) =>
            Tell($"notifier {area.Queue} 0x{area.Size:x}@0x{area.Offset:x} {(file is { IsClosed: false } ? "file" : "none")}");

        public bool RingCall(int ring) => Tell($"call {ring}");

        public bool RingError(int ring) => Tell($"error {ring}");

        public bool SharedObjectAdd(Guid name) => Tell($"add {name}");

        public bool SharedObjectRemove(Guid name) => Tell($"remove {name}");

        public FileDescriptor? SharedObjectLookup(Guid name) => Tell($"lookup {name}") ? s_object : null;

        public bool MapShared(in ShmemMapPayload mapping, FileDescriptor file) => !file.IsClosed && Tell("map " + Text(mapping));

        public bool UnmapShared(in ShmemMapPayload mapping) => Tell("unmap " + Text(mapping));

        private static string Text(in ShmemMapPayload mapping) =>
            $"{mapping.ShmId} 0x{mapping.FdOffset:x} 0x{mapping.ShmOffset:x} 0x{mapping.Length:x} {mapping.Flags}";

        private bool Tell(string what)
        {
            Before?.Invoke();
            Told.Add(what);
            return isDone;
        }
    }
}
