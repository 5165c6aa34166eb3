using System.Diagnostics;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Frontend;
using Vmm.Vhost.User.Protocol;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Tests.User.Frontend;

public class FrontendTests
{
    private FrontendFixture _fixture = null!;

    [SetUp]
    public void SetUp() => _fixture = new FrontendFixture();

    [TearDown]
    public void TearDown() => _fixture.Dispose();

    [Test]
    public void OpenAndStart_EverythingOffered_SaysItInTheOrderThatBackendsNeed()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path)
        {
            ProtocolFeatures = FakeBackend.DefaultProtocolFeatures | VhostUserProtocolFeatures.InflightShmFd,
        }.Start();
        _fixture.Open();
        Assert.That(backend.Names(1), Is.EqualTo(new[]
        {
            VhostUserRequest.SetOwner, VhostUserRequest.GetFeatures, VhostUserRequest.GetProtocolFeatures, VhostUserRequest.SetProtocolFeatures,
            VhostUserRequest.GetQueueNum, VhostUserRequest.GetMaxMemSlots, VhostUserRequest.SetBackendReqFd, VhostUserRequest.GetConfig,
        }));
        int before = backend.Heard.Count;
        _fixture.StartAll();
        Assert.That(backend.Names(1)[before..], Is.EqualTo(new[]
        {
            VhostUserRequest.SetFeatures, VhostUserRequest.SetStatus, VhostUserRequest.GetStatus, VhostUserRequest.SetMemTable,
            VhostUserRequest.SetVringNum, VhostUserRequest.SetVringNum,
            VhostUserRequest.GetInflightFd, VhostUserRequest.SetInflightFd,
            VhostUserRequest.SetVringAddr, VhostUserRequest.SetVringBase, VhostUserRequest.SetVringCall, VhostUserRequest.SetVringErr, VhostUserRequest.SetVringKick,
            VhostUserRequest.SetVringAddr, VhostUserRequest.SetVringBase, VhostUserRequest.SetVringCall, VhostUserRequest.SetVringErr, VhostUserRequest.SetVringKick,
            VhostUserRequest.SetVringEnable, VhostUserRequest.SetVringEnable,
            VhostUserRequest.SetStatus,
        }));
        Assert.That(backend.All(1, VhostUserRequest.SetFeatures)[0].Number, Is.EqualTo(VirtioFeatures.Version1 | VirtioFeatures.VhostUserProtocolFeatures));
        Assert.That(backend.All(1, VhostUserRequest.SetVringEnable).Select(said => (said.State, said.NeedReply)), Is.EqualTo(new[]
        {
            (new VringState(0, 1), true), (new VringState(1, 1), true),
        }));
        Assert.That(backend.All(1, VhostUserRequest.SetVringNum)[1].State, Is.EqualTo(new VringState(1, FrontendFixture.RingSize)));
        Assert.That(backend.All(1, VhostUserRequest.SetStatus).Select(said => said.Number), Is.EqualTo(new[] { 11UL, 15UL }));
        Assert.That(_fixture.Rings.Select(ring => ring.Config.Kick.Drain()), Is.All.EqualTo(1), "a kick is injected");
    }

    [Test]
    public void Start_Memory_HasTwoRegionsAndAddressesThatAreNotOurs()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        _fixture.StartAll();
        FakeBackend.Said table = backend.All(1, VhostUserRequest.SetMemTable).Single();
        Assert.That(table.Descriptors, Is.EqualTo(2));
        MemoryRegionPayload[] regions = [Region(table, 0), Region(table, 1)];
        Assert.That(regions.Select(region => (region.GuestAddress, region.Size, region.MmapOffset)), Is.EqualTo(new[]
        {
            (0UL, 1UL << 20, 0UL), (0x1000_0000UL, 1UL << 20, 1UL << 20),
        }));
        foreach (ulong address in regions.Select(region => region.UserAddress))
            Assert.That(address, Is.Not.EqualTo(0).And.Not.EqualTo((ulong)_fixture.Memory.Regions[0].HostAddress));
        VringAddress ring = System.Runtime.InteropServices.MemoryMarshal.Read<VringAddress>(backend.All(1, VhostUserRequest.SetVringAddr)[0].Payload);
        ulong first = regions[0].UserAddress;
        Assert.That(ring, Is.EqualTo(new VringAddress(
            0, 0, first + 0x1000, first + _fixture.Rings[0].Config.DeviceArea.Value, first + 0x1100, _fixture.Rings[0].Config.DeviceArea.Value)));

        static MemoryRegionPayload Region(FakeBackend.Said said, int index) =>
            System.Runtime.InteropServices.MemoryMarshal.Read<MemoryRegionPayload>(said.Payload.AsSpan(8 + 32 * index));
    }

    [Test]
    public void Open_NeitherMqNorQueueNumber_TakesTheCallersCount()
    {
        // virtiofsd of old closes the connection when it is asked.
        using FakeBackend backend = new FakeBackend(_fixture.Path)
        {
            ProtocolFeatures = FakeBackend.DefaultProtocolFeatures & ~VhostUserProtocolFeatures.Mq,
        }.Start();
        VhostUserFrontend frontend = _fixture.Open();
        _fixture.StartAll();
        Assert.That(frontend.MaxRingCount, Is.Null);
        Assert.That(frontend.RingCount, Is.EqualTo(2));
        Assert.That(backend.All(1, VhostUserRequest.GetQueueNum), Is.Empty);
        Assert.That(backend.All(1, VhostUserRequest.SetVringEnable), Has.Length.EqualTo(2));
        Assert.That(() => frontend.Session.GetQueueNum(), Throws.TypeOf<VhostUserException>(), "and is not asked");
        Assert.That(frontend.IsConnected);
    }

    [Test]
    public void Open_FewerQueues_SaysSo()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path) { QueueNum = 1 }.Start();
        Assert.That(() => _fixture.Open(), Throws.TypeOf<VhostException>().With.Message.EqualTo(
            $"--test: {_fixture.Path}: has 1 queues (1 rings), fewer than the 2 rings of the device: give the device fewer queues, or the back-end more"));
    }

    [Test]
    public void Open_PairsOfQueues_CountsRings()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path) { QueueNum = 1 }.Start();
        _fixture.Options = _fixture.Options with { RingsPerQueue = 2 };
        Assert.That(_fixture.Open().MaxRingCount, Is.EqualTo(2));
    }

    [TestCase(1, true)]
    [TestCase(2, false)]
    public void Open_PairsWithoutMq_HasOne(int pairs, bool isTaken)
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path)
        {
            ProtocolFeatures = FakeBackend.DefaultProtocolFeatures & ~VhostUserProtocolFeatures.Mq,
        }.Start();
        _fixture.Options = _fixture.Options with { RingsPerQueue = 2, RingCount = 2 * pairs };
        if (isTaken)
            Assert.That(_fixture.Open().MaxRingCount, Is.EqualTo(2));
        else
            Assert.That(() => _fixture.Open(), Throws.TypeOf<VhostException>().With.Message.Contains("has 1 pair of queues (2 rings), fewer than the 4 rings"));
    }

    [TestCase(ulong.MaxValue)]
    [TestCase(1000UL)]
    public void Open_MoreQueuesThanThereCanBe_IsCapped(ulong queues)
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path) { QueueNum = queues }.Start();
        Assert.That(_fixture.Open().MaxRingCount, Is.EqualTo(256));
    }

    [Test]
    public void Open_NoProtocolFeatures_RingsRunFromTheirKickOn()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path)
        {
            Features = VirtioFeatures.Version1,
            ProtocolFeatures = VhostUserProtocolFeatures.None,
        }.Start();
        _fixture.Options = _fixture.Options with { ConfigRequired = false };
        VhostUserFrontend frontend = _fixture.Open();
        _fixture.StartAll();
        Assert.That(frontend.HasConfig, Is.False);
        Assert.That(backend.Names(1), Is.EqualTo(new[]
        {
            VhostUserRequest.SetOwner, VhostUserRequest.GetFeatures, VhostUserRequest.SetFeatures, VhostUserRequest.SetMemTable,
            VhostUserRequest.SetVringNum, VhostUserRequest.SetVringNum,
            VhostUserRequest.SetVringAddr, VhostUserRequest.SetVringBase, VhostUserRequest.SetVringCall, VhostUserRequest.SetVringErr, VhostUserRequest.SetVringKick,
            VhostUserRequest.SetVringAddr, VhostUserRequest.SetVringBase, VhostUserRequest.SetVringCall, VhostUserRequest.SetVringErr, VhostUserRequest.SetVringKick,
            VhostUserRequest.GetFeatures,   // so that the rings run when the driver kicks
        }));
        Assert.That(backend.All(1, VhostUserRequest.SetFeatures)[0].Number, Is.EqualTo(VirtioFeatures.Version1));
        Assert.That(frontend.Stop(0), Is.EqualTo(0));
        Assert.That(backend.Names(1)[^1], Is.EqualTo(VhostUserRequest.GetVringBase));
    }

    [Test]
    public void Open_UnknownBits_AreMaskedAndBit21IsNever()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path)
        {
            Features = ulong.MaxValue,
            ProtocolFeatures = (VhostUserProtocolFeatures)ulong.MaxValue,
        }.Start();
        VhostUserFrontend frontend = _fixture.Open();
        Assert.That(backend.All(1, VhostUserRequest.SetProtocolFeatures)[0].Number, Is.EqualTo((ulong)VhostUserFrontendOptions.DefaultFeatures));
        Assert.That((ulong)VhostUserFrontendOptions.DefaultFeatures & (1 << 21 | 1 << 14), Is.Zero);
        Assert.That(frontend.Features & (VirtioFeatures.VhostUserProtocolFeatures | VirtioFeatures.LogAll | VirtioFeatures.AccessPlatform), Is.Zero);
        Assert.That(frontend.Features & VirtioFeatures.Version1, Is.Not.Zero);
    }

    [Test]
    public void Open_EverythingWanted_AgreesOnWhatIsKnown()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path) { ProtocolFeatures = (VhostUserProtocolFeatures)0xFFFFFF }.Start();
        _fixture.Options = _fixture.Options with { Wanted = (VhostUserProtocolFeatures)ulong.MaxValue };
        Assert.That(_fixture.Open().ProtocolFeatures, Is.EqualTo((VhostUserProtocolFeatures)0xFFFFFF
            & ~(VhostUserProtocolFeatures.GpaAddresses | VhostUserProtocolFeatures.XenMmap | VhostUserProtocolFeatures.GetVringBaseInflight | VhostUserProtocolFeatures.GetVringBaseSkipDrain)));
    }

    [TestCase(true, 0UL)]
    [TestCase(false, VirtioFeatures.RingPacked)]
    public void Features_PackedRing_OnlyWithoutReconnect(bool reconnect, ulong packed)
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Options = _fixture.Options with { Reconnect = reconnect };
        Assert.That(_fixture.Open().Features & VirtioFeatures.RingPacked, Is.EqualTo(packed));
    }

    [Test]
    public void Open_NoConfigAlthoughRequired_SaysSo()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path) { ProtocolFeatures = VhostUserProtocolFeatures.ReplyAck }.Start();
        Assert.That(() => _fixture.Open(), Throws.TypeOf<VhostException>().With.Message.EqualTo(
            $"--test: {_fixture.Path}: has no configuration space (the protocol feature CONFIG), which the device needs"));
    }

    [Test]
    public void Open_ShorterConfig_IsAnErrorOrDoneWithout()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path) { Config = [1, 2, 3] }.Start();
        Assert.That(() => _fixture.Open(), Throws.TypeOf<VhostUserException>().With.Message.Contains("refused GET_CONFIG (of 8 bytes)"));
        _fixture.Options = _fixture.Options with { ConfigRequired = false };
        Assert.That(_fixture.Open().HasConfig, Is.False);
        byte[] config = [9, 9];
        _fixture.Frontend.ReadConfig(config);
        Assert.That(config, Is.All.Zero);
    }

    [Test]
    public void Open_NobodyListens_SaysSoInTime()
    {
        int before = PassedDescriptors.Count();
        _fixture.Options = _fixture.Options with { ConnectTimeout = TimeSpan.FromMilliseconds(60) };
        Assert.That(() => _fixture.Open(), Throws.TypeOf<VhostException>().With.Message.EqualTo(
            $"--test: {_fixture.Path}: no back-end within 0.06 s: nobody listens there: start the back-end, or is it another path?"));
        PassedDescriptors.ReturnTo(before);
    }

    [Test]
    public void Open_ProcessOfTheBackendEnds_WaitsNoLonger([Values] bool before)
    {
        using var ended = new EventFd();
        _fixture.Options = _fixture.Options with { ConnectTimeout = TimeSpan.FromMinutes(10), PeerEnded = ended };
        if (before)
            ended.Signal();
        Task open = Task.Run(() => _fixture.Open());
        ended.Signal();
        Assert.That(() => open.Wait(TimeSpan.FromSeconds(30)), Throws.InstanceOf<AggregateException>().With.InnerException.TypeOf<VhostException>());
        Assert.That(open.Exception!.InnerException!.Message, Is.EqualTo($"--test: {_fixture.Path}: the process that was started as the back-end has ended"));
    }

    [Test]
    public void Open_ProcessOfTheBackendEndsButItsChildListens_Connects()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        using var ended = new EventFd();
        ended.Signal();
        _fixture.Options = _fixture.Options with { PeerEnded = ended };
        Assert.That(_fixture.Open().IsConnected);
    }

    [Test]
    public void Open_Cancelled_WaitsNoLonger([Values] bool listens)
    {
        _fixture.Options = _fixture.Options with
        {
            Endpoint = listens ? VhostUserEndpoint.ListenOn(_fixture.Path) : VhostUserEndpoint.ConnectTo(_fixture.Path),
            ConnectTimeout = Timeout.InfiniteTimeSpan,
        };
        using var cancellation = new CancellationTokenSource(100);
        Assert.Throws<OperationCanceledException>(() => VhostUserFrontend.Open(_fixture.Options, cancellation.Token));
        Assert.That(File.Exists(_fixture.Path), Is.False);
    }

    [Test]
    public void Open_BackendThatDoesNotAnswer_EndsInTime()
    {
        int before = OpenDescriptors.Count;
        using UnixListener listener = UnixListener.Listen(_fixture.Path);
        _fixture.Options = _fixture.Options with { ConnectTimeout = TimeSpan.FromMilliseconds(300), ReplyTimeout = TimeSpan.FromMinutes(5) };
        Assert.That(() => _fixture.Open(), Throws.TypeOf<VhostException>().With.Message.EqualTo(
            $"--test: {_fixture.Path}: the back-end did not agree within 0.3 s: it does not answer, or is it another program?"));
        listener.Dispose();
        OpenDescriptors.AssertBackTo(before);
    }

    [Test]
    public void Open_ProgramThatHasYetToBegin_MayTakeLongerThanAnAnswer()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Options = _fixture.Options with { ConnectTimeout = TimeSpan.FromMinutes(1), ReplyTimeout = TimeSpan.FromMilliseconds(300), PeerProcessId = () => Environment.ProcessId };
        backend.Script = (message, _) =>
        {
            if (message.Header.Request == (uint)VhostUserRequest.GetFeatures)
                Thread.Sleep(1500);
            return false;
        };
        Assert.That(() => _fixture.Open(), Throws.Nothing);
        Assert.That(backend.Connections, Is.EqualTo(1));
    }

    [Test]
    public void Open_CancelledWhileTheBackendDoesNotAnswer_WaitsNoLonger()
    {
        int before = OpenDescriptors.Count;
        using UnixListener listener = UnixListener.Listen(_fixture.Path);
        _fixture.Options = _fixture.Options with { ConnectTimeout = Timeout.InfiniteTimeSpan, ReplyTimeout = TimeSpan.FromMinutes(5) };
        using var cancellation = new CancellationTokenSource();
        var open = Task.Run(() => VhostUserFrontend.Open(_fixture.Options, cancellation.Token));
        UnixSocket? socket = null;
        Eventually.True(() => (socket = listener.TryAccept()) is not null, () => "it does not connect");
        cancellation.Cancel();
        Assert.That(() => open.Wait(TimeSpan.FromSeconds(30)), Throws.InnerException.InstanceOf<OperationCanceledException>());
        socket!.Dispose();
        listener.Dispose();
        OpenDescriptors.AssertBackTo(before);
    }

    [Test]
    public void Options_ImpossibleValues_AreRefusedByName()
    {
        VhostUserFrontendOptions options = _fixture.Options;
        Assert.Multiple(() =>
        {
            Refuses("RingCount", () => options with { RingCount = 0 });
            Refuses("RingCount", () => options with { RingCount = 257 });
            Refuses("RingsPerQueue", () => options with { RingsPerQueue = 0 });
            Refuses("QueueSize", () => options with { QueueSize = 0 });
            Refuses("QueueSize", () => options with { QueueSize = 100 });
            Refuses("QueueSize", () => options with { QueueSize = 65536 });
            Refuses("ConfigSize", () => options with { ConfigSize = -1 });
            Refuses("ConfigSize", () => options with { ConfigSize = 257 });
            Refuses("ConnectTimeout", () => options with { ConnectTimeout = TimeSpan.FromSeconds(-2) });
            Refuses("ReplyTimeout", () => options with { ReplyTimeout = TimeSpan.Zero });
            Refuses("Endpoint", () => options with { Endpoint = null! });
            Refuses("Device", () => options with { Device = null! });
            Refuses("Sync", () => options with { Sync = null! });
            Refuses("options", () => VhostUserFrontend.Open(null!));
            Refuses("number", () => VhostUserEndpoint.Inherit(-1));
            Refuses("path", () => VhostUserEndpoint.ConnectTo(null!));
            Refuses("path", () => VhostUserEndpoint.ListenOn(null!));
        });

        static void Refuses(string name, Func<object> make) => Assert.That(
            make, Throws.InstanceOf<ArgumentException>().With.Property(nameof(ArgumentException.ParamName)).EqualTo(name), name);
    }

    [Test]
    public void Events_ThatThrow_EndTheDeviceAndNotTheProcess()
    {
        FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        _fixture.StartAll();
        int thrown = 0;
        _fixture.OnTold = told =>
        {
            Interlocked.Increment(ref thrown);
            throw new InvalidOperationException("on purpose");
        };
        backend.Dispose();
        Eventually.True(() => Volatile.Read(ref thrown) >= 2, () => "it is told of the end of the connection, and of its own end");
        Eventually.True(() =>
        {
            try
            {
                _fixture.Frontend.SetStatus(1);
                return false;
            }
            catch (VhostException e)
            {
                return e.Message.Contains("a call-back failed: on purpose");
            }
        }, () => "the device has not ended");
        Assert.That(_fixture.Frontend.Reset, Throws.TypeOf<VhostException>(), "nobody would connect again");
        Assert.That(() => _fixture.Rings[0].Wait(Timeout.InfiniteTimeSpan), Throws.TypeOf<VirtqueueException>(), "whoever waits for a ring hears of it");
    }

    [Test]
    public void SharedMemoryIsNew_Throws_EndsTheDeviceAndTheChannel()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        _fixture.StartAll();
        _fixture.OnSharedMemoryIsNew = () => throw new InvalidOperationException("on purpose");
        Assert.That(() => backend.Ask(VhostUserBackendRequest.ConfigChange, []), Throws.InstanceOf<IOException>().Or.InstanceOf<ObjectDisposedException>(), "it does not wait for an answer");
        _fixture.WaitFor("lost");
        Assert.That(_fixture.Told, Has.Some.Contains("a call-back failed: on purpose"));
        Assert.That(_fixture.Frontend.Reset, Throws.TypeOf<VhostException>(), "for good");
    }

    [Test]
    [NonParallelizable]     // no such thread of the process begins meanwhile
    public void Open_NoThreadIsToBeHad_IsRefusedAndLeavesNothingBehind()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        int before = PassedDescriptors.Count();
        NativeThread.Starter = start =>
        {
            if (start.Target is Thread { Name: "vhost-user --test" })
                throw NativeThread.Refused("vhost-user --test");
            start();
        };
        try
        {
            Assert.That(
                () => _fixture.Open(),
                Throws.TypeOf<VhostException>().With.Message.StartsWith($"--test: {_fixture.Path}: cannot start the thread \"vhost-user --test\""));
        }
        finally
        {
            NativeThread.Starter = null;
        }
        PassedDescriptors.ReturnTo(before);
    }

    [Test]
    public void Start_LogOfRequestsInFlightIsNoSharedMemory_IsRefusedAndWaitsForNobody()
    {
        using var hostile = new HostileDescriptor();
        using FakeBackend backend = new FakeBackend(_fixture.Path)
        {
            ProtocolFeatures = FakeBackend.DefaultProtocolFeatures | VhostUserProtocolFeatures.InflightShmFd,
            Script = (message, connection) =>
            {
                if (message.Header.Request != (uint)VhostUserRequest.GetInflightFd)
                    return false;
                // 4096 bytes of it.
                hostile.SendWith(
                    connection.Socket,
                    [(byte)VhostUserRequest.GetInflightFd, 0, 0, 0, 5, 0, 0, 0, InflightPayload.WireSize, 0, 0, 0, 0, 16, .. new byte[InflightPayload.WireSize - 2]]);
                return true;
            },
        }.Start();
        _fixture.Open();
        long start = Stopwatch.GetTimestamp();
        Assert.That(
            _fixture.StartAll,
            Throws.TypeOf<VhostException>().With.Message.EqualTo(
                $"--test: {_fixture.Path}: the back-end keeps its in-flight log in a file that is no shared memory: "
                + "have it use a memfd, or a file of tmpfs (/dev/shm) or of hugetlbfs"));
        _fixture.Frontend.Reset();
        Assert.That(Stopwatch.GetElapsedTime(start), Is.LessThan(HostileDescriptor.Patience));
    }

    [Test]
    public void Respawn_Throws_EndsTheDeviceAndNotTheProcess()
    {
        FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Options = _fixture.Options with { Respawn = () => throw new InvalidOperationException("on purpose") };
        _fixture.Open();
        backend.Dispose();
        Eventually.True(
            () => _fixture.Told.Any(told => told.Contains("a call-back failed: on purpose")), () => string.Join(", ", _fixture.Told));
    }

    [Test]
    public void Events_SetAfterTheEnd_AreTold()
    {
        FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Options = _fixture.Options with { Reconnect = false };
        using VhostUserFrontend frontend = VhostUserFrontend.Open(_fixture.Options);
        backend.Dispose();
        Eventually.True(() => !frontend.IsConnected, () => "its end goes unseen");
        frontend.Events = _fixture;
        Eventually.True(() => !_fixture.Told.IsEmpty, () => "nobody was told");
    }

    [Test]
    public void Open_PathOfAnotherKind_SaysSoAtOnce([Values] bool isDirectory)
    {
        if (isDirectory)
            Directory.CreateDirectory(_fixture.Path);
        else
            File.WriteAllBytes(_fixture.Path, []);
        _fixture.Options = _fixture.Options with { ConnectTimeout = Timeout.InfiniteTimeSpan };
        Assert.That(() => _fixture.Open(), Throws.TypeOf<VhostException>().With.Message.EqualTo(
            $"--test: {_fixture.Path}: cannot connect to {_fixture.Path}: Socket operation on non-socket (errno 88): give the path of the other side's socket"));
        if (isDirectory)
            Directory.Delete(_fixture.Path);
        else
            File.Delete(_fixture.Path);
    }

    [Test]
    public void Open_BackendComesLater_IsWaitedFor()
    {
        FakeBackend? backend = null;
        var later = new Thread(() =>
        {
            Thread.Sleep(60);
            backend = new FakeBackend(_fixture.Path).Start();
        });
        later.Start();
        Assert.That(_fixture.Open().IsConnected);
        later.Join();
        backend!.Dispose();
    }

    [Test]
    public void Open_Server_IsConnectedTo()
    {
        _fixture.Options = _fixture.Options with { Endpoint = VhostUserEndpoint.ListenOn(_fixture.Path) };
        using FakeBackend backend = new FakeBackend(_fixture.Path, listens: false).Start();
        _fixture.Open();
        _fixture.StartAll();
        Assert.That(backend.All(1, VhostUserRequest.SetVringEnable), Has.Length.EqualTo(2));
        _fixture.Frontend.Dispose();
        Assert.That(File.Exists(_fixture.Path), Is.False, "the socket is removed");
    }

    [Test]
    public void Open_ServerPathTaken_SaysSo()
    {
        File.WriteAllText(_fixture.Path, "something else");
        _fixture.Options = _fixture.Options with { Endpoint = VhostUserEndpoint.ListenOn(_fixture.Path) };
        Assert.That(() => _fixture.Open(), Throws.TypeOf<VhostException>().With.Message.StartsWith($"--test: {_fixture.Path}: cannot listen on"));
    }

    [Test]
    public void Open_InheritedNumberIsNoSocket_SaysSo()
    {
        using var fd = new EventFd();
        _fixture.Options = _fixture.Options with { Endpoint = VhostUserEndpoint.Inherit(fd.Number) };
        Assert.That(() => _fixture.Open(), Throws.TypeOf<VhostException>().With.Message.StartsWith($"--test: fd {fd.Number}: fd {fd.Number} is no connected Unix stream socket"));
    }

    [Test]
    public void Stop_RunningRing_DisablesItFirstAndGivesItsBase()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        VhostUserFrontend frontend = _fixture.Open();
        frontend.SetFeatures(VirtioFeatures.Version1);
        frontend.SetMemory(_fixture.Memory);
        _fixture.SetUsedIndex(1, 77);
        frontend.Start([_fixture.Rings[1].Config with { Base = 77 }]);
        int before = backend.Heard.Count;
        Assert.That(frontend.Stop(1), Is.EqualTo(77));
        Assert.That(backend.Names(1)[before..], Is.EqualTo(new[] { VhostUserRequest.SetVringEnable, VhostUserRequest.GetVringBase }));
        Assert.That(frontend.Stop(1), Is.EqualTo(77), "again");
        Assert.That(frontend.Stop(0), Is.Zero, "never started");
        Assert.That(backend.Heard, Has.Count.EqualTo(before + 2));
    }

    [Test]
    public void Stop_BaseIsNoIndex_GivesTheUsedIndex()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        backend.Script = (message, connection) =>
        {
            if (message.Header.Request != (uint)VhostUserRequest.GetVringBase)
                return false;
            connection.Send(message.Header.Request, VhostUserFlags.Reply, SessionPeer.Bytes(new VringState(0, 0x10000)), [], TimeSpan.FromSeconds(1));
            return true;
        };
        _fixture.Open();
        _fixture.StartAll();
        _fixture.SetUsedIndex(0, 5);
        Assert.That(_fixture.Frontend.Stop(0), Is.EqualTo(5));
    }

    [Test]
    public void Start_RunningRing_IsLeftAlone()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        _fixture.StartAll();
        int before = backend.Heard.Count;
        _fixture.Frontend.Start([_fixture.Rings[0].Config]);
        Assert.That(backend.Heard, Has.Count.EqualTo(before));
    }

    [Test]
    public void Start_Refused_NoRingRuns([Values(
        VhostUserRequest.SetVringNum, VhostUserRequest.SetVringAddr, VhostUserRequest.SetVringKick, VhostUserRequest.SetVringEnable)] VhostUserRequest refused)
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        bool isRefusing = true;
        backend.Script = (message, connection) =>
        {
            if (!isRefusing || message.Header.Request != (uint)refused || message.Payload[0] != 1 || message.Header.Size == 8 && message.Payload[4] == 0 && refused == VhostUserRequest.SetVringEnable)
                return false;
            connection.Send(message.Header.Request, VhostUserFlags.Reply, SessionPeer.Bytes(1UL), [], TimeSpan.FromSeconds(1));
            return true;
        };
        // SET_VRING_ADDR of ring 1 begins with 1, as all of them do.
        _fixture.Open();
        Assert.That(_fixture.StartAll, Throws.TypeOf<VhostUserException>().With.Property("IsConnectionLost").False
            .And.Message.EqualTo($"--test: {_fixture.Path}: refused {refused.WireName()} (0x1)"));
        bool wasTold = refused != VhostUserRequest.SetVringNum;
        Assert.That(backend.All(1, VhostUserRequest.GetVringBase), Has.Length.EqualTo(wasTold ? 2 : 0), "what was started is stopped");
        isRefusing = false;
        Assert.That(_fixture.StartAll, Throws.Nothing, "the connection is as good as before");
    }

    [Test]
    public void SetFeatures_StatusWithoutFeaturesOk_IsRefused()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path) { RefusedStatus = 8 }.Start();
        _fixture.Open();
        Assert.That(() => _fixture.Frontend.SetFeatures(VirtioFeatures.Version1), Throws.TypeOf<VhostException>().With.Message.EqualTo(
            $"--test: {_fixture.Path}: the back-end refuses the features 0x100000000 (its status has no FEATURES_OK)"));
        backend.RefusedStatus = 0;
        Assert.That(_fixture.StartAll, Throws.Nothing, "the connection is as good as before");
    }

    [Test]
    public void ConfigChange_StatusNeedsReset_IsTold()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        _fixture.StartAll();
        backend.AddedStatus = 64;
        backend.Ask(VhostUserBackendRequest.ConfigChange, []);
        _fixture.WaitFor("needs reset");
    }

    [Test]
    public void Start_MemoryThatTakesLongerThanAnAnswerMay_IsWaitedFor()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Options = _fixture.Options with { ReplyTimeout = TimeSpan.FromMilliseconds(300) };
        backend.Script = (message, _) =>
        {
            if (message.Header.Request == (uint)VhostUserRequest.SetMemTable)
                Thread.Sleep(1500);
            return false;
        };
        _fixture.Open();
        Assert.That(_fixture.StartAll, Throws.Nothing);
        Assert.That(_fixture.Told, Is.Empty);
        Assert.That(backend.Connections, Is.EqualTo(1));
    }

    [Test]
    public void Open_AnswersLaterThanAReplyMay_IsWaitedForAsLongAsAConnection()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path)
        {
            Script = (message, _) =>
            {
                if (message.Header.Request == (uint)VhostUserRequest.GetFeatures)
                    Thread.Sleep(1000);
                return false;
            },
        }.Start();
        _fixture.Options = _fixture.Options with { ReplyTimeout = TimeSpan.FromMilliseconds(300) };
        Assert.That(() => _fixture.Open(), Throws.Nothing);
    }

    [Test]
    public void Open_CancelledBeforeTheFirstAnswer_WaitsNoLonger()
    {
        using var cancellation = new CancellationTokenSource();
        using FakeBackend backend = new FakeBackend(_fixture.Path)
        {
            Script = (message, _) =>
            {
                if (message.Header.Request != (uint)VhostUserRequest.GetFeatures)
                    return false;
                cancellation.Cancel();
                return true;
            },
        }.Start();
        _fixture.Options = _fixture.Options with { ReplyTimeout = TimeSpan.FromMinutes(10) };
        Assert.That(() => _fixture.Open(cancellation.Token), Throws.InstanceOf<OperationCanceledException>());
    }

    [Test]
    public void SetFeatures_NotOffered_IsRefused()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        Assert.That(() => _fixture.Frontend.SetFeatures(VirtioFeatures.Version1 | 2), Throws.TypeOf<VhostException>().With.Message.Contains("0x2"));
        Assert.That(() => _fixture.Frontend.SetFeatures(1), Throws.TypeOf<VhostException>().With.Message.Contains("legacy"));
        Assert.That(() => _fixture.Frontend.Start([_fixture.Rings[0].Config]), Throws.TypeOf<VhostException>().With.Message.Contains("no features yet"));
    }

    [Test]
    public void Reset_Offered_IsSaidAndTheConnectionStays()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path)
        {
            ProtocolFeatures = FakeBackend.DefaultProtocolFeatures | VhostUserProtocolFeatures.InflightShmFd,
        }.Start();
        _fixture.Open();
        _fixture.StartAll();
        ulong mark = backend.InflightMark;
        int before = backend.Heard.Count;
        _fixture.Frontend.Reset();
        Assert.That(backend.Names(1)[before..], Is.EqualTo(new[]
        {
            VhostUserRequest.SetVringEnable, VhostUserRequest.SetVringEnable, VhostUserRequest.GetVringBase, VhostUserRequest.GetVringBase,
            VhostUserRequest.ResetDevice,
        }));
        _fixture.StartAll();
        Assert.That(backend.Connections, Is.EqualTo(1));
        Assert.That(backend.All(1, VhostUserRequest.GetInflightFd), Has.Length.EqualTo(2), "and the in-flight log is new");
        Assert.That(backend.InflightMark, Is.Not.EqualTo(mark));
    }

    [Test]
    public void Reset_NotOffered_IsAStatusOfZero()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path)
        {
            ProtocolFeatures = FakeBackend.DefaultProtocolFeatures & ~VhostUserProtocolFeatures.ResetDevice,
        }.Start();
        _fixture.Open();
        _fixture.Frontend.SetStatus(1);
        _fixture.Frontend.Reset();
        Assert.That(backend.All(1, VhostUserRequest.SetStatus).Select(said => said.Number), Is.EqualTo(new[] { 1UL, 0UL }));
    }

    [Test]
    public void SetRingEnabled_RunningOrNot_IsSaidWhenItCounts()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        _fixture.Frontend.SetRingEnabled(1, false);
        _fixture.StartAll();
        Assert.That(backend.All(1, VhostUserRequest.SetVringEnable).Select(said => said.State), Is.EqualTo(new[] { new VringState(0, 1) }));
        _fixture.DrainAll();
        _fixture.Frontend.SetRingEnabled(1, true);
        _fixture.Frontend.SetRingEnabled(1, true);
        Assert.That(_fixture.Rings.Select(ring => ring.Config.Kick.Drain()), Is.EqualTo(new[] { 0UL, 1UL }), "a kick is injected");
        Assert.That(backend.All(1, VhostUserRequest.SetVringEnable).Select(said => said.State), Is.EqualTo(new[] { new VringState(0, 1), new VringState(1, 1) }));
    }

    [Test]
    public void Start_OneRingThatCannotBe_StartsNone()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        _fixture.Frontend.SetFeatures(VirtioFeatures.Version1);
        _fixture.Frontend.SetMemory(_fixture.Memory);
        VringConfig good = _fixture.Rings[0].Config;
        Assert.That(() => _fixture.Frontend.Start([good, good with { Index = 2 }]), Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => _fixture.Frontend.Start([good, good with { Index = 1, Size = 2 * FrontendFixture.RingSize }]), Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => _fixture.Frontend.Stop(2), Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => _fixture.Frontend.SetRingEnabled(-1, true), Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(backend.All(1, VhostUserRequest.SetVringKick), Is.Empty);
        _fixture.Frontend.Start([good]);
        Assert.That(backend.All(1, VhostUserRequest.SetVringKick), Has.Length.EqualTo(1), "the ring was taken for one that runs");
    }

    [Test]
    public void Options_WithoutALock_HaveOneOfTheirOwn()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        VhostUserFrontendOptions Options() => new()
        {
            Endpoint = VhostUserEndpoint.ConnectTo(_fixture.Path),
            Device = "--test",
            RingCount = 2,
            QueueSize = FrontendFixture.RingSize,
        };
        Assert.That(Options().Sync == Options().Sync, Is.False, "devices share a lock");
        using VhostUserFrontend frontend = VhostUserFrontend.Open(Options());
        Assert.That(frontend.IsConnected);
    }

    [Test]
    public void WriteConfig_Taken_IsInTheCopy()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        Assert.That(_fixture.Open().WriteConfig(3, [0xAA]));
        byte[] config = new byte[10];
        _fixture.Frontend.ReadConfig(config);
        Assert.That(config, Is.EqualTo(new byte[] { 1, 2, 3, 0xAA, 5, 6, 7, 8, 0, 0 }));
        Assert.That(backend.All(1, VhostUserRequest.SetConfig).Single().Payload, Is.EqualTo(new byte[] { 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xAA }));
        Assert.That(_fixture.Frontend.WriteConfig(8, [1]), Is.False);
        Assert.That(_fixture.Frontend.WriteConfig(int.MaxValue, [1]), Is.False);
        Assert.That(() => _fixture.Frontend.WriteConfig(-1, [1]), Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(backend.All(1, VhostUserRequest.SetConfig), Has.Length.EqualTo(1), "what is not in it is ignored");
        Assert.That(backend.All(1, VhostUserRequest.GetConfig), Has.Length.EqualTo(1), "and nobody is asked when it is read");
    }

    [Test]
    public void Reset_AfterTheDriverWroteToTheConfig_GivesItAsItWas()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Open().WriteConfig(3, [0xAA]);
        _fixture.Frontend.Reset();
        byte[] config = new byte[8];
        _fixture.Frontend.ReadConfig(config);
        Assert.That(config, Is.EqualTo(new byte[] { 1, 2, 3, 4, 5, 6, 7, 8 }));
    }

    [Test]
    public void WriteConfig_Refused_ChangesNothing()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        backend.Script = (message, connection) =>
        {
            if (message.Header.Request != (uint)VhostUserRequest.SetConfig)
                return false;
            connection.Send(message.Header.Request, VhostUserFlags.Reply, SessionPeer.Bytes(22UL), [], TimeSpan.FromSeconds(1));
            return true;
        };
        Assert.That(_fixture.Open().WriteConfig(0, [0xAA]), Is.False);
        byte[] config = new byte[1];
        _fixture.Frontend.ReadConfig(config);
        Assert.That(config[0], Is.EqualTo(1));
    }

    [Test]
    public void ConfigChange_WhileTheLockIsHeld_IsAnsweredAtOnceAndToldLater()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        lock (_fixture.Sync)
        {
            backend.Config = [8, 7, 6, 5, 4, 3, 2, 1];
            ulong? result = null;
            var asking = new Thread(() => result = backend.Ask(VhostUserBackendRequest.ConfigChange, []));
            asking.Start();
            Assert.That(asking.Join(TimeSpan.FromSeconds(20)), "it waits for the lock");
            Assert.That(result, Is.Zero);
            Assert.That(_fixture.Told, Is.Empty);
        }
        _fixture.WaitFor("config changed");
        byte[] config = new byte[8];
        _fixture.Frontend.ReadConfig(config);
        Assert.That(config, Is.EqualTo(backend.Config));
    }

    [Test]
    public void MapShared_WhileTheLockIsHeld_IsDone()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Options = _fixture.Options with { Wanted = VhostUserFrontendOptions.DefaultFeatures | VhostUserProtocolFeatures.Shmem };
        _fixture.Open();
        lock (_fixture.Sync)
        {
            ulong? mapped = null, unmapped = null;
            var asking = new Thread(() =>
            {
                using FileDescriptor file = MemFd.Create("dax", 4096);
                byte[] mapping = SessionPeer.Bytes(new ShmemMapPayload(3, 0, 0, 4096, 1));
                mapped = backend.Ask(VhostUserBackendRequest.ShmemMap, mapping, true, file);
                unmapped = backend.Ask(VhostUserBackendRequest.ShmemUnmap, mapping);
            });
            asking.Start();
            Assert.That(asking.Join(TimeSpan.FromSeconds(20)), "it waits for the lock");
            Assert.That((mapped, unmapped), Is.EqualTo((0UL, 0UL)));
        }
        Assert.That(_fixture.Told, Is.EqualTo(new[] { "map 3", "unmap 3" }));
    }

    [Test]
    public void BackendRequest_Malformed_EndsTheChannelOnly()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        backend.Ask((VhostUserBackendRequest)99, [], needReply: false);
        Assert.That(_fixture.StartAll, Throws.Nothing);
        Assert.That(_fixture.Frontend.IsConnected);
    }

    [Test]
    public void Dispose_WhileRunning_LeavesNothingOpen()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        int before = PassedDescriptors.Count();
        for (int i = 0; i < 10; i++)
        {
            _fixture.Open();
            _fixture.StartAll();
            lock (_fixture.Sync)
                _fixture.Frontend.Dispose();
            _fixture.Frontend.Dispose();
        }
        PassedDescriptors.ReturnTo(before);
        Assert.That(backend.All(1, VhostUserRequest.GetVringBase), Has.Length.EqualTo(2), "its rings are stopped");
    }
}
