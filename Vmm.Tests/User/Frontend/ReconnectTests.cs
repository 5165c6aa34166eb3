using System.Diagnostics;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Frontend;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.User.Frontend;

public class ReconnectTests
{
    private const VhostUserProtocolFeatures WithInflight = FakeBackend.DefaultProtocolFeatures | VhostUserProtocolFeatures.InflightShmFd;

    private FrontendFixture _fixture = null!;

    [SetUp]
    public void SetUp() => _fixture = new FrontendFixture();

    [TearDown]
    public void TearDown() => _fixture.Dispose();

    [Test]
    public void Kill_Idle_RingsGoOnFromTheUsedIndex([Values] bool isServer, [Values] bool hasInflight)
    {
        if (isServer)
            _fixture.Options = _fixture.Options with { Endpoint = VhostUserEndpoint.ListenOn(_fixture.Path) };
        using FakeBackend backend = new FakeBackend(_fixture.Path, listens: !isServer)
        {
            ProtocolFeatures = hasInflight ? WithInflight : FakeBackend.DefaultProtocolFeatures,
        }.Start();
        _fixture.Open();
        _fixture.StartAll();
        ulong mark = backend.InflightMark;
        _fixture.DrainAll();
        _fixture.SetUsedIndex(0, 9);
        _fixture.SetUsedIndex(1, 0xFFFF);

        backend.Kill();
        _fixture.WaitFor("restored");

        Assert.That(_fixture.Told.First(), Does.StartWith($"disconnected --test: {_fixture.Path}: the peer closed the connection"));
        Assert.That(backend.All(2, VhostUserRequest.SetVringBase).Select(said => said.State), Is.EqualTo(new[]
        {
            new VringState(0, 9), new VringState(1, 0xFFFF),
        }));
        Assert.That(backend.All(2, VhostUserRequest.SetVringEnable), Has.Length.EqualTo(2));
        Assert.That(_fixture.Rings.Select(ring => ring.Config.Kick.Drain()), Is.All.EqualTo(1), "kicks are injected");
        Assert.That(_fixture.Rings.Select(ring => ring.Config.Call.Drain()), Is.All.EqualTo(1), "calls are injected");
        Assert.That(backend.All(2, VhostUserRequest.GetInflightFd), Is.Empty);
        List<VhostUserRequest> names = [.. backend.Names(2)];
        Assert.That(names.IndexOf(VhostUserRequest.SetInflightFd), hasInflight
            ? Is.GreaterThan(0).And.LessThan(names.IndexOf(VhostUserRequest.SetVringAddr))
            : Is.EqualTo(-1));
        if (hasInflight)
            Assert.That((mark, backend.InflightMark), Is.EqualTo((backend.InflightMark, mark)).And.Not.EqualTo((0UL, 0UL)), "the same memory");
    }

    [Test]
    public void Kill_BeforeAnyRing_IsConnectedToAgain()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        backend.Kill();
        _fixture.WaitFor("restored");
        _fixture.StartAll();
        Assert.That(backend.All(2, VhostUserRequest.SetVringEnable), Has.Length.EqualTo(2));
        Assert.That(_fixture.Frontend.Session.LostReason, Is.Null);
    }

    // Another process may connect for this one, and take its time: a vCPU that touches the device meanwhile goes on.
    [Test]
    public void Connect_ThatTakesItsTime_HoldsUpNobody()
    {
        var patience = TimeSpan.FromSeconds(10);
        using var isConnecting = new ManualResetEventSlim();
        using var goOn = new ManualResetEventSlim();
        int calls = 0;
        _fixture.Options = _fixture.Options with
        {
            Connect = (string path, out UnixSocket? socket) =>
            {
                if (calls++ > 0)
                {
                    isConnecting.Set();
                    goOn.Wait(patience);
                }
                return UnixSocket.TryConnect(path, out socket);
            },
        };
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        backend.Kill();
        Assert.That(isConnecting.Wait(patience));
        bool isFree = _fixture.Sync.TryEnter(TimeSpan.FromSeconds(2));
        if (isFree)
            _fixture.Sync.Exit();
        goOn.Set();
        Assert.That(isFree, "the lock of the device");
        _fixture.WaitFor("restored");
    }

    // As a spawner says it that is held up, and one that is gone.
    [Test]
    public void Connect_CannotBeTried_IsTriedAgainUnlessItNeverCanBe([Values] bool isForEver)
    {
        int calls = 0;
        _fixture.Options = _fixture.Options with
        {
            Connect = (string path, out UnixSocket? socket) => Interlocked.Increment(ref calls) == 2
                ? throw ErrnoException.FromElsewhere("on purpose", isForEver ? Errnos.Epipe : Errnos.Etimedout)
                : UnixSocket.TryConnect(path, out socket),
        };
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        _fixture.StartAll();
        backend.Kill();
        _fixture.WaitFor(isForEver ? $"lost --test: {_fixture.Path}: on purpose" : "restored");
        Assert.That(_fixture.Told.Any(told => told.StartsWith("lost", StringComparison.Ordinal)), Is.EqualTo(isForEver));
    }

    // On a busy host a program takes its time until it hears anything. Who started it would kill it for the next one, which is no faster.
    [Test]
    public void Back_AnswersLaterThanAReplyMay_IsWaitedFor()
    {
        _fixture.Options = _fixture.Options with { ReplyTimeout = TimeSpan.FromMilliseconds(300) };
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        _fixture.StartAll();
        backend.Script = (message, _) =>
        {
            if (message.Header.Request is (uint)VhostUserRequest.GetFeatures or (uint)VhostUserRequest.GetConfig)
                Thread.Sleep(1000);
            return false;
        };
        backend.Kill();
        _fixture.WaitFor("restored");
        Assert.That(backend.Connections, Is.EqualTo(2));
    }

    // All answers together have that time: one that answers at the last moment each time does not come back.
    [Test]
    public void Back_EachAnswerIsLate_HasOneDeadline()
    {
        _fixture.Options = _fixture.Options with { StartTimeout = TimeSpan.FromMilliseconds(500) };
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        bool isSlow = true;
        backend.Script = (_, _) =>
        {
            if (Volatile.Read(ref isSlow))
                Thread.Sleep(300);
            return false;
        };
        backend.Kill();
        Eventually.True(() => backend.Connections >= 3, () => "it is not given up");
        Assert.That(_fixture.Told.Any(told => told == "restored"), Is.False);
        Volatile.Write(ref isSlow, false);
        _fixture.WaitFor("restored");
    }

    [Test]
    public void Respawn_NeverCan_IsLost()
    {
        _fixture.Options = _fixture.Options with
        {
            Respawn = () => throw new VhostException("--test: on purpose", ErrnoException.FromElsewhere("on purpose", Errnos.Epipe)),
        };
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        backend.Kill();
        _fixture.WaitFor("lost --test: on purpose");
    }

    [Test]
    public void Away_NewBackendAtThePath_IsFound()
    {
        var first = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        _fixture.StartAll();
        first.Dispose();
        _fixture.WaitFor("disconnected");
        Assert.That(_fixture.Frontend.IsConnected, Is.False);
        using FakeBackend second = new FakeBackend(_fixture.Path).Start();
        _fixture.WaitFor("restored");
        Assert.That(second.All(1, VhostUserRequest.SetVringEnable), Has.Length.EqualTo(2));
    }

    [Test]
    public void Away_Kicks_AreKept()
    {
        var first = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        _fixture.StartAll();
        _fixture.DrainAll();
        first.Dispose();
        _fixture.WaitFor("disconnected");
        _fixture.Rings[0].Kick();
        using FakeBackend second = new FakeBackend(_fixture.Path).Start();
        _fixture.WaitFor("restored");
        Assert.That(_fixture.Rings[0].Config.Kick.Drain(), Is.EqualTo(2), "the driver's and the one that is injected");
    }

    [Test]
    public void Away_StartStopResetAndAll_AreDoneWhenItIsBack()
    {
        var first = new FakeBackend(_fixture.Path).Start();
        VhostUserFrontend frontend = _fixture.Open();
        _fixture.StartAll();
        _fixture.SetUsedIndex(0, 3);
        first.Dispose();
        _fixture.WaitFor("disconnected");

        long start = Stopwatch.GetTimestamp();
        lock (_fixture.Sync)
        {
            Assert.That(frontend.Stop(0), Is.EqualTo(3));
            Assert.That(frontend.Stop(1), Is.Zero);
            frontend.Reset();
            frontend.SetStatus(1);
            frontend.SetFeatures(VirtioFeatures.Version1 | VirtioFeatures.EventIndex);
            frontend.SetMemory(_fixture.Memory);
            frontend.Start([_fixture.Rings[0].Config with { Base = 7 }, _fixture.Rings[1].Config]);
            Assert.That(frontend.Stop(1), Is.Zero, "was started and never told to anybody");
            frontend.SetRingEnabled(0, false);
            frontend.WriteConfig(1, [0x55]);
        }
        Assert.That(Stopwatch.GetElapsedTime(start), Is.LessThan(TimeSpan.FromSeconds(5)), "nothing waits for the back-end");

        using FakeBackend second = new FakeBackend(_fixture.Path).Start();
        _fixture.WaitFor("restored");
        Assert.That(second.All(1, VhostUserRequest.SetFeatures).Single().Number & VirtioFeatures.EventIndex, Is.Not.Zero);
        Assert.That(second.All(1, VhostUserRequest.SetVringBase).Single().State, Is.EqualTo(new VringState(0, 7)), "no back-end had it: it begins where it was to");
        Assert.That(second.All(1, VhostUserRequest.SetVringEnable), Is.Empty);
        Assert.That(second.All(1, VhostUserRequest.SetStatus).Single().Number, Is.EqualTo(1));
        Assert.That(second.All(1, VhostUserRequest.SetConfig).Single().Payload, Is.EqualTo(new byte[] { 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x55 }));
        VhostUserRequest[] said = second.Names(1);
        Assert.That(
            Array.IndexOf(said, VhostUserRequest.SetConfig), Is.GreaterThan(Array.IndexOf(said, VhostUserRequest.SetFeatures)),
            "features decide what may be written");
    }

    [Test]
    public void Away_DriverReset_TakesNewInflightMemory()
    {
        var first = new FakeBackend(_fixture.Path) { ProtocolFeatures = WithInflight }.Start();
        _fixture.Open();
        _fixture.StartAll();
        ulong mark = first.InflightMark;
        first.Dispose();
        _fixture.WaitFor("disconnected");
        lock (_fixture.Sync)
        {
            _fixture.Frontend.Stop(0);
            _fixture.Frontend.Stop(1);
            _fixture.StartAll();
        }
        using FakeBackend second = new FakeBackend(_fixture.Path) { ProtocolFeatures = WithInflight }.Start();
        _fixture.WaitFor("restored");
        Assert.That(second.All(1, VhostUserRequest.GetInflightFd), Has.Length.EqualTo(1));
        Assert.That(second.InflightMark, Is.Not.EqualTo(mark));
    }

    [Test]
    public void Back_WithoutAFeatureInUse_IsRefused()
    {
        var first = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        lock (_fixture.Sync)
        {
            _fixture.Frontend.SetFeatures(VirtioFeatures.Version1 | VirtioFeatures.EventIndex);
            _fixture.Frontend.SetMemory(_fixture.Memory);
            _fixture.Frontend.Start([_fixture.Rings[0].Config]);
        }
        first.Dispose();
        using FakeBackend second = new FakeBackend(_fixture.Path)
        {
            Features = FakeBackend.DefaultFeatures & ~VirtioFeatures.EventIndex,
        }.Start();
        AssertRefused("it lacks the features 0x20000000, which the driver uses");
    }

    [Test]
    public void Back_WithoutAFeatureNotInUse_IsTaken()
    {
        var first = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        _fixture.StartAll();
        first.Dispose();
        using FakeBackend second = new FakeBackend(_fixture.Path)
        {
            Features = FakeBackend.DefaultFeatures & ~VirtioFeatures.EventIndex,
            ProtocolFeatures = FakeBackend.DefaultProtocolFeatures & ~VhostUserProtocolFeatures.ResetDevice,
        }.Start();
        _fixture.WaitFor("restored");
        Assert.That(
            () => _fixture.Frontend.SetFeatures(VirtioFeatures.Version1 | VirtioFeatures.EventIndex),
            Throws.TypeOf<VhostException>().With.Message.Contains("does not have the features 0x20000000 any more"));
    }

    [Test]
    public void Back_WithAnotherConfig_IsRefused()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        _fixture.StartAll();
        backend.Config = [1, 2, 3, 4, 5, 6, 7, 9];
        backend.Kill();
        AssertRefused("its configuration space differs");
    }

    // The rings ran with the one before. Until the reset nothing is told to the new one.
    [Test]
    public void Back_WithAnotherConfigAndFewerFeatures_IsTakenByAReset([Values] bool isServer, [Values] bool diesBeforeTheReset)
    {
        if (isServer)
            _fixture.Options = _fixture.Options with { Endpoint = VhostUserEndpoint.ListenOn(_fixture.Path) };
        var first = new FakeBackend(_fixture.Path, listens: !isServer).Start();
        VhostUserFrontend frontend = _fixture.Open();
        _fixture.StartAll();
        first.Dispose();
        byte[] config = [9, 2, 3, 4, 5, 6, 7, 9];
        using FakeBackend second = new FakeBackend(_fixture.Path, listens: !isServer)
        {
            Config = config,
            Features = FakeBackend.DefaultFeatures & ~VirtioFeatures.EventIndex,
        }.Start();
        _fixture.WaitFor("lost");
        Assert.That(frontend.IsConnected, Is.False);
        if (diesBeforeTheReset)
        {
            second.Kill();
            Eventually.True(() => second.Connections == 2, () => "it is not connected to again");
        }
        lock (_fixture.Sync)
            frontend.Reset();
        Eventually.True(() => frontend.IsConnected, () => "the device is lost for ever");
        byte[] now = new byte[8];
        frontend.ReadConfig(now);
        Assert.That(now, Is.EqualTo(config));
        Assert.That(frontend.Features & VirtioFeatures.EventIndex, Is.Zero);
        int connection = second.Connections;
        Assert.That(second.Names(connection), Does.Not.Contain(VhostUserRequest.SetVringKick));
        _fixture.StartAll();
        // The end of the connection before may be seen only now: then the rings are told to the next one.
        Eventually.True(() => second.All(second.Connections, VhostUserRequest.SetVringEnable).Length == 2, () => "the rings were not started");
        if (!diesBeforeTheReset)
            Assert.That(second.Connections, Is.EqualTo(connection));
    }

    [Test]
    public void Back_WithTheConfigThatWasAfterAnother_IsTakenByAReset()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        VhostUserFrontend frontend = _fixture.Open();
        _fixture.StartAll();
        backend.Config = [1, 2, 3, 4];     // too short: it refuses to give the configuration
        backend.Kill();
        _fixture.WaitFor("lost");
        lock (_fixture.Sync)
            frontend.Reset();
        backend.Config = [1, 2, 3, 4, 5, 6, 7, 8];
        Eventually.True(() => frontend.IsConnected, () => "the device is lost for ever");
        _fixture.StartAll();
        Assert.That(backend.All(backend.Connections, VhostUserRequest.SetVringEnable), Has.Length.EqualTo(2));
    }

    [Test]
    public void Back_WithBytesThatMayChange_IsAChangedConfiguration()
    {
        _fixture.Options = _fixture.Options with { ChangeableConfig = [0..2, 6..7] };
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        VhostUserFrontend frontend = _fixture.Open();
        _fixture.StartAll();
        lock (_fixture.Sync)
            frontend.WriteConfig(3, [0x33]);
        backend.Config = [0xA, 2, 3, 4, 5, 6, 0xB, 8];
        backend.Kill();
        _fixture.WaitFor("config changed");
        Assert.That(_fixture.Told.Any(told => told.StartsWith("lost", StringComparison.Ordinal)), Is.False);
        byte[] now = new byte[8];
        frontend.ReadConfig(now);
        Assert.That(now, Is.EqualTo(new byte[] { 0xA, 2, 3, 0x33, 5, 6, 0xB, 8 }));
        Assert.That(backend.All(2, VhostUserRequest.SetVringEnable), Has.Length.EqualTo(2));
    }

    [Test]
    public void Back_AnotherBeforeAnyDriver_IsTakenAsItIs()
    {
        var first = new FakeBackend(_fixture.Path).Start();
        VhostUserFrontend frontend = _fixture.Open();
        first.Dispose();
        using FakeBackend second = new FakeBackend(_fixture.Path)
        {
            Config = [9, 9, 9, 9, 9, 9, 9, 9],
            Features = FakeBackend.DefaultFeatures & ~VirtioFeatures.EventIndex,
        }.Start();
        _fixture.WaitFor("config changed");
        Assert.That(frontend.Features & VirtioFeatures.EventIndex, Is.Zero);
        Assert.That(_fixture.Told.Any(told => told.StartsWith("lost", StringComparison.Ordinal)), Is.False);
    }

    [Test]
    public void Back_WithoutAConfigurationThatIsNotRequired_HasNone()
    {
        _fixture.Options = _fixture.Options with { ConfigRequired = false };
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        VhostUserFrontend frontend = _fixture.Open();
        Assert.That(frontend.HasConfig);
        backend.Config = [1, 2, 3, 4];     // too short: it refuses to give the configuration
        backend.Kill();
        _fixture.WaitFor("restored");
        Assert.That(frontend.HasConfig, Is.False);
        byte[] now = new byte[8];
        frontend.ReadConfig(now);
        Assert.That(now, Is.All.Zero);
        backend.Ask(VhostUserBackendRequest.ConfigChange, []);
        _fixture.StartAll();
        backend.Kill();
        Eventually.True(() => backend.All(3, VhostUserRequest.SetVringEnable).Length == 2, () => string.Join(", ", _fixture.Told));
        Assert.That(_fixture.Told, Has.None.StartsWith("lost"));
    }

    [Test]
    public void Back_WithoutARequiredFeature_IsRefusedEvenAfterAReset()
    {
        _fixture.Options = _fixture.Options with { RequiredFeatures = VirtioFeatures.EventIndex };
        var first = new FakeBackend(_fixture.Path).Start();
        VhostUserFrontend frontend = _fixture.Open();
        _fixture.StartAll();
        first.Dispose();
        using (new FakeBackend(_fixture.Path) { Features = FakeBackend.DefaultFeatures & ~VirtioFeatures.EventIndex }.Start())
        {
            for (int i = 1; i <= 2; i++)
            {
                Eventually.True(() => _fixture.Told.Count(told => told.StartsWith("lost", StringComparison.Ordinal)) == i, () => "it is taken");
                lock (_fixture.Sync)
                    frontend.Reset();
            }
        }
        using FakeBackend third = new FakeBackend(_fixture.Path).Start();
        Eventually.True(() => frontend.IsConnected || _fixture.Told.Count(told => told.StartsWith("lost", StringComparison.Ordinal)) > 2, () => "nobody connects");
        lock (_fixture.Sync)
            frontend.Reset();
        Eventually.True(() => frontend.IsConnected, () => "the device is lost for ever");
    }

    // The front-end needs two more descriptors once it has been told of the queues: the socket for the back-end's own requests.
    [Test]
    public void Back_NoDescriptorsLeft_IsTriedAgain()
    {
        ulong limit = ResourceLimit.OpenFiles.Current!.Value;
        bool isShort = false;
        _fixture.Options = _fixture.Options with { Respawn = () => ResourceLimit.OpenFiles.TrySet(limit) };
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        backend.Script = (message, connection) =>
        {
            if (backend.Connections == 2 && message.Header.Request == (uint)VhostUserRequest.GetMaxMemSlots)
                isShort = ResourceLimit.OpenFiles.TrySet(3);
            return false;
        };
        try
        {
            _fixture.Open();
            _fixture.StartAll();
            backend.Kill();
            _fixture.WaitFor("restored");
        }
        finally
        {
            ResourceLimit.OpenFiles.TrySet(limit);
        }
        Assert.That(isShort);
        Assert.That(backend.Connections, Is.EqualTo(3));
        Assert.That(_fixture.Told.Any(told => told.StartsWith("lost", StringComparison.Ordinal)), Is.False);
    }

    private FakeBackend StartBackendWithoutReset() => new FakeBackend(_fixture.Path)
    {
        ProtocolFeatures = FakeBackend.DefaultProtocolFeatures & ~(VhostUserProtocolFeatures.ResetDevice | VhostUserProtocolFeatures.Status),
    }.Start();

    // What the last driver wrote would stay in it, and the next is told of the original.
    [Test]
    public void Reset_OfABackendThatCannotBeReset_TellsItTheOriginalConfig()
    {
        using FakeBackend backend = StartBackendWithoutReset();
        VhostUserFrontend frontend = _fixture.Open();
        _fixture.StartAll();
        lock (_fixture.Sync)
        {
            frontend.WriteConfig(4, [0x44]);
            frontend.Reset();
        }
        Assert.That(backend.All(1, VhostUserRequest.SetConfig).Select(said => said.Payload[^1]), Is.EqualTo(new byte[] { 0x44, 5 }));
    }

    // The process lives on with what the driver wrote, and says that. It is not what the next driver is to find.
    [Test]
    public void Reset_OfABackendThatKeptWhatWasWrittenOverAConnection_TellsItTheOriginalConfig()
    {
        using FakeBackend backend = StartBackendWithoutReset();
        VhostUserFrontend frontend = _fixture.Open();
        _fixture.StartAll();
        lock (_fixture.Sync)
            frontend.WriteConfig(4, [0x44]);
        backend.Config = [1, 2, 3, 4, 0x44, 6, 7, 8];
        backend.Kill();
        _fixture.WaitFor("restored");
        byte[] config = new byte[8];
        lock (_fixture.Sync)
        {
            frontend.ReadConfig(config);
            Assert.That(config[4], Is.EqualTo(0x44));
            frontend.Reset();
            frontend.ReadConfig(config);
        }
        Assert.That(backend.All(2, VhostUserRequest.SetConfig).Select(said => said.Payload[^1]), Is.EqualTo(new byte[] { 0x44, 5 }));
        Assert.That(config[4], Is.EqualTo(5));
    }

    [Test]
    public void Back_WithTheConfigBeforeTheDriverWroteToIt_IsTakenAndToldOfIt()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        _fixture.StartAll();
        lock (_fixture.Sync)
            _fixture.Frontend.WriteConfig(0, [0x11]);
        backend.Config = [0x11, 2, 3, 4, 5, 6, 7, 0x99];
        backend.Ask(VhostUserBackendRequest.ConfigChange, []);
        _fixture.WaitFor("config changed");
        backend.Config = [1, 2, 3, 4, 5, 6, 7, 0x99];
        backend.Kill();
        _fixture.WaitFor("restored");
        Assert.That(backend.All(2, VhostUserRequest.SetConfig).Single().Payload[^1], Is.EqualTo(0x11));
        byte[] config = new byte[8];
        _fixture.Frontend.ReadConfig(config);
        Assert.That(config, Is.EqualTo(new byte[] { 0x11, 2, 3, 4, 5, 6, 7, 0x99 }));
    }

    [Test]
    public void Back_WithoutInflight_IsRefused()
    {
        var first = new FakeBackend(_fixture.Path) { ProtocolFeatures = WithInflight }.Start();
        _fixture.Open();
        _fixture.StartAll();
        first.Dispose();
        using FakeBackend second = new FakeBackend(_fixture.Path).Start();
        AssertRefused("it lacks the protocol feature InflightShmFd");
    }

    [Test]
    public void Back_WithFewerQueues_IsRefused()
    {
        var first = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        first.Dispose();
        using FakeBackend second = new FakeBackend(_fixture.Path) { QueueNum = 1 }.Start();
        _fixture.WaitFor($"lost --test: {_fixture.Path}: has 1 queues");
    }

    // With a message before the rings, of a ring, and that which has it run.
    [TestCase(VhostUserRequest.GetConfig)]
    [TestCase(VhostUserRequest.SetVringAddr)]
    [TestCase(VhostUserRequest.SetVringEnable)]
    public void Back_RefusesForAMoment_IsTriedAgain(VhostUserRequest refused)
    {
        int before = PassedDescriptors.Count();
        using (FakeBackend backend = new FakeBackend(_fixture.Path) { ProtocolFeatures = WithInflight }.Start())
        {
            _fixture.Open();
            _fixture.StartAll();
            ulong mark = backend.InflightMark;
            backend.Script = (message, connection) => backend.Connections <= 4 && Refuse(message, connection, refused);
            backend.Kill();
            _fixture.WaitFor("restored");
            Assert.That(backend.Connections, Is.EqualTo(5));
            Assert.That(backend.InflightMark, Is.EqualTo(mark), "the same memory");
            Assert.That(_fixture.Frontend.MayWrite(_fixture.Memory), Is.False, "no ring ran where it was refused");
            Assert.That(_fixture.Told.Any(told => told.StartsWith("lost", StringComparison.Ordinal)), Is.False);
            _fixture.Dispose();
        }
        PassedDescriptors.ReturnTo(before);
    }

    // Refusals that end are forgotten: it is those in succession that end a device.
    [Test]
    public void Back_RefusesARing_IsRefused()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        _fixture.StartAll();
        backend.Script = (message, connection) => backend.Connections != 3 && Refuse(message, connection, VhostUserRequest.SetVringAddr);
        backend.Kill();
        _fixture.WaitFor("restored");
        backend.Kill();
        _fixture.WaitFor($"lost --test: {_fixture.Path}: refused SET_VRING_ADDR (0x1)");
        Assert.That(backend.Connections, Is.EqualTo(3 + 10));
        Assert.That(() => _fixture.StartAll(), Throws.TypeOf<VhostException>());
    }

    [Test]
    public void Kill_NoReconnect_IsLost()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Options = _fixture.Options with { Reconnect = false };
        _fixture.Open();
        _fixture.StartAll();
        _fixture.SetUsedIndex(0, 4);
        backend.Kill();
        _fixture.WaitFor($"lost --test: {_fixture.Path}: the peer closed the connection");
        Assert.That(_fixture.Frontend.Stop(0), Is.EqualTo(4));
        Assert.That(_fixture.StartAll, Throws.TypeOf<VhostException>().With.Message.Contains("closed the connection"));
        Assert.That(backend.Connections, Is.EqualTo(1));
    }

    [Test]
    public void Kill_InheritedSocket_IsLost()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (theirs)
        using (ours)
        {
            int number = Tmds.Linux.LibC.dup(ours.Number);
            using var listener = new FakeBackend(_fixture.Path).Start();
            var relay = new Thread(() => Relay(theirs, _fixture.Path)) { IsBackground = true };
            relay.Start();
            ours.Dispose();
            _fixture.Options = _fixture.Options with { Endpoint = VhostUserEndpoint.Inherit(number) };
            _fixture.Open();
            Assert.That(_fixture.Frontend.IsConnected);
            theirs.Shutdown();
            _fixture.WaitFor($"lost --test: fd {number}: the peer closed the connection");
            relay.Join();
        }
    }

    [Test]
    public void Lost_TheOwnerStopsAndDisposesInTheEvent_Works()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Options = _fixture.Options with { Reconnect = false };
        _fixture.Open();
        _fixture.StartAll();
        _fixture.OnTold = what =>
        {
            _fixture.Frontend.Stop(0);
            _fixture.Frontend.Dispose();
        };
        backend.Kill();
        _fixture.WaitFor("lost");
        Assert.That(_fixture.StartAll, Throws.TypeOf<ObjectDisposedException>());
    }

    [Test]
    public void Dispose_WhileAway_EndsAtOnceAndLeavesNothingOpen()
    {
        int before = PassedDescriptors.Count();
        using (FakeBackend backend = new FakeBackend(_fixture.Path).Start())
        {
            _fixture.Open();
            _fixture.StartAll();
        }
        _fixture.WaitFor("disconnected");
        long start = Stopwatch.GetTimestamp();
        lock (_fixture.Sync)
            _fixture.Frontend.Dispose();
        Assert.That(Stopwatch.GetElapsedTime(start), Is.LessThan(TimeSpan.FromSeconds(5)));
        PassedDescriptors.ReturnTo(before);
    }

    [Test]
    public void Dispose_WhileTheNewBackendIsMute_EndsAtOnceAndLeavesNothingOpen()
    {
        int before = PassedDescriptors.Count();
        _fixture.Options = _fixture.Options with { ReplyTimeout = TimeSpan.FromMinutes(5) };
        using (FakeBackend backend = new FakeBackend(_fixture.Path).Start())
        {
            _fixture.Open();
            _fixture.StartAll();
            backend.Script = (_, _) => true;
            backend.Kill();
            Eventually.True(() => backend.Names(2).Contains(VhostUserRequest.GetFeatures), () => "it is not connected to again");
            long start = Stopwatch.GetTimestamp();
            lock (_fixture.Sync)
            {
                Assert.That(_fixture.Frontend.Stop(0), Is.Zero);
                _fixture.StartAll();
                _fixture.Frontend.Dispose();
            }
            Assert.That(Stopwatch.GetElapsedTime(start), Is.LessThan(TimeSpan.FromSeconds(5)));
        }
        PassedDescriptors.ReturnTo(before);
    }

    [Test]
    public void Dispose_AtAnyMomentOfAReconnect_LeavesNothingOpen([Values] bool isServer)
    {
        if (isServer)
            _fixture.Options = _fixture.Options with { Endpoint = VhostUserEndpoint.ListenOn(_fixture.Path) };
        int before = PassedDescriptors.Count();
        using (FakeBackend backend = new FakeBackend(_fixture.Path, listens: !isServer).Start())
        {
            for (int i = 0; i < 22; i++)
            {
                _fixture.Open();
                _fixture.StartAll();
                int heard = backend.Heard.Count;
                backend.Kill();
                // From before it has begun until after it is done.
                Eventually.True(() => backend.Heard.Count >= heard + i, () => "it is not connected to again");
                lock (_fixture.Sync)
                    _fixture.Frontend.Dispose();
            }
        }
        PassedDescriptors.ReturnTo(before);
    }

    [Test]
    public void Respawn_WhileAway_IsCalledWithoutTheLock()
    {
        FakeBackend? second = null;
        bool wasHeld = false;
        _fixture.Options = _fixture.Options with
        {
            Respawn = () =>
            {
                wasHeld |= _fixture.Sync.IsHeldByCurrentThread;
                second ??= new FakeBackend(_fixture.Path).Start();
            },
        };
        var first = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        Assert.That(second, Is.Null, "the first is the caller's to start");
        first.Dispose();
        _fixture.WaitFor("restored");
        Assert.That(wasHeld, Is.False);
        second!.Dispose();
    }

    [Test]
    public void Respawn_Fails_IsTriedAgain()
    {
        int calls = 0;
        _fixture.Options = _fixture.Options with
        {
            Respawn = () =>
            {
                if (Interlocked.Increment(ref calls) < 4)
                    throw new VhostException("no daemon today");
            },
        };
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Open();
        backend.Kill();
        _fixture.WaitFor("restored");
        Assert.That(calls, Is.EqualTo(4));
    }

    // 25 messages make a whole session, from the first to the last of a start.
    [Test]
    public void Death_AtEachMessage_IsAnErrorWithoutReconnect([Range(1, 25)] int message)
    {
        int before = PassedDescriptors.Count();
        using (FakeBackend backend = new FakeBackend(_fixture.Path) { ProtocolFeatures = WithInflight, DiesAt = _ => message }.Start())
        {
            _fixture.Options = _fixture.Options with { Reconnect = false };
            VhostUserException? error = Assert.Throws<VhostUserException>(() =>
            {
                _fixture.Open();
                _fixture.StartAll();
            });
            string named = message switch
            {
                1 => "GET_FEATURES",     // what comes before is not acknowledged: the next message notices
                4 => "GET_QUEUE_NUM",
                _ => backend.Heard.Last().Request.WireName(),
            };
            Assert.That(error!.IsConnectionLost);
            Assert.That(error.Message, Is.EqualTo($"--test: {_fixture.Path}: {named}: the peer closed the connection"));
            Assert.That(backend.Heard, Has.Count.EqualTo(message));
            _fixture.Dispose();
        }
        PassedDescriptors.ReturnTo(before);
    }

    [Test]
    public void Nonsense_AtEachMessage_IsAnErrorThatNamesIt([Range(1, 25)] int message, [Values] bool hasDescriptors)
    {
        int before = PassedDescriptors.Count();
        using (FakeBackend backend = new FakeBackend(_fixture.Path) { ProtocolFeatures = WithInflight }.Start())
        {
            backend.Script = (heard, connection) =>
            {
                if (backend.Heard.Count != message)
                    return false;
                // Of the right size for most, and with the wrong number or with what must not come with it.
                using FileDescriptor file = MemFd.Create("hostile", 4096);
                connection.Send(
                    hasDescriptors ? heard.Header.Request : 99, VhostUserFlags.Reply, new byte[8], hasDescriptors ? [file, file] : [], TimeSpan.FromSeconds(10));
                return true;
            };
            _fixture.Options = _fixture.Options with { Reconnect = false };
            VhostUserException? error = Assert.Throws<VhostUserException>(() =>
            {
                _fixture.Open();
                _fixture.StartAll();
            });
            // What is not acknowledged yet has no answer: this one is taken for that of the next.
            string named = message switch
            {
                1 => "GET_FEATURES",
                4 => "GET_QUEUE_NUM",
                _ => backend.Heard.ElementAt(message - 1).Request.WireName(),
            };
            Assert.That(error!.IsConnectionLost);
            Assert.That(error.Message, Does.StartWith($"--test: {_fixture.Path}: {named}: the peer"));
            _fixture.Dispose();
        }
        PassedDescriptors.ReturnTo(before);
    }

    [Test]
    public void Death_AtEachMessageOfTheFirstStart_IsMadeGoodByTheNext([Range(9, 25)] int message)
    {
        int before = PassedDescriptors.Count();
        using (FakeBackend backend = new FakeBackend(_fixture.Path)
        {
            ProtocolFeatures = WithInflight,
            DiesAt = connection => connection == 1 ? message : 0,
        }.Start())
        {
            _fixture.Open();
            _fixture.StartAll();
            _fixture.WaitFor("restored");
            Assert.That(backend.All(2, VhostUserRequest.SetVringEnable).Select(said => said.State), Is.EqualTo(new[] { new VringState(0, 1), new VringState(1, 1) }));
            _fixture.Frontend.Dispose();
        }
        PassedDescriptors.ReturnTo(before);
    }

    [Test]
    public void Death_AtEachMessageOfTheReconnect_IsTriedAgain([Values] bool isServer)
    {
        if (isServer)
            _fixture.Options = _fixture.Options with { Endpoint = VhostUserEndpoint.ListenOn(_fixture.Path) };
        int before = PassedDescriptors.Count();
        // The second connection dies at its first message, the third at its second, and so on: 24 messages are a reconnect.
        using (FakeBackend backend = new FakeBackend(_fixture.Path, listens: !isServer)
        {
            ProtocolFeatures = WithInflight,
            DiesAt = connection => connection is 1 or > 25 ? 0 : connection - 1,
        }.Start())
        {
            _fixture.Open();
            _fixture.StartAll();
            _fixture.SetUsedIndex(1, 12);
            ulong mark = backend.InflightMark;
            backend.Kill();
            _fixture.WaitFor("restored");
            Assert.That(backend.Connections, Is.EqualTo(26));
            Assert.That(backend.InflightMark, Is.EqualTo(mark));
            Assert.That(backend.All(26, VhostUserRequest.SetVringBase)[1].State, Is.EqualTo(new VringState(1, 12)));
            Assert.That(_fixture.Told.Count(told => told == "restored"), Is.EqualTo(1));
            _fixture.Frontend.Dispose();
        }
        PassedDescriptors.ReturnTo(before);
    }

    [Test]
    public void Stop_BackendDiesOfIt_ReturnsTheUsedIndex([Values] bool reconnect)
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Options = _fixture.Options with { Reconnect = reconnect };
        _fixture.Open();
        _fixture.StartAll();
        _fixture.SetUsedIndex(1, 6);
        backend.Script = (message, connection) =>
        {
            if (message.Header.Request != (uint)VhostUserRequest.GetVringBase)
                return false;
            connection.Socket.Shutdown();
            return true;
        };
        lock (_fixture.Sync)
        {
            Assert.That(_fixture.Frontend.Stop(1), Is.EqualTo(6));
            Assert.That(_fixture.Frontend.Stop(0), Is.Zero);
        }
        _fixture.WaitFor(reconnect ? "restored" : "lost");
    }

    [Test]
    public void Stop_BackendDoesNotAnswer_ReturnsInTime()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path).Start();
        _fixture.Options = _fixture.Options with { StopTimeout = TimeSpan.FromMilliseconds(100) };
        _fixture.Open();
        _fixture.StartAll();
        _fixture.SetUsedIndex(0, 2);
        backend.Script = (message, _) => message.Header.Request == (uint)VhostUserRequest.GetVringBase;
        Assert.That(_fixture.Frontend.Stop(0), Is.EqualTo(2));
        _fixture.WaitFor($"disconnected --test: {_fixture.Path}: GET_VRING_BASE: the peer did not answer within 0.1 s");
    }

    [Test]
    public void Kill_ManyTimesWhileTheDriverStartsAndStops_AlwaysComesBack()
    {
        using FakeBackend backend = new FakeBackend(_fixture.Path) { ProtocolFeatures = WithInflight }.Start();
        _fixture.Open();
        using var stop = new CancellationTokenSource();
        var killer = new Thread(() =>
        {
            while (!stop.IsCancellationRequested)
            {
                backend.Kill();
                Thread.Sleep(Random.Shared.Next(12));
            }
        });
        killer.Start();
        for (int i = 0; i < 300; i++)
        {
            _fixture.StartAll();
            lock (_fixture.Sync)
            {
                _fixture.Frontend.Stop(0);
                _fixture.Frontend.Stop(1);
                if (i % 3 == 0)
                    _fixture.Frontend.Reset();
            }
        }
        stop.Cancel();
        killer.Join();
        _fixture.StartAll();
        Eventually.True(() => _fixture.Frontend.IsConnected, () => "it is away for good");
        int connections = backend.Connections;
        Eventually.True(() => backend.All(connections, VhostUserRequest.SetVringEnable).Length >= 2, () => "its rings do not run");
    }

    private void AssertRefused(string why)
    {
        _fixture.WaitFor("lost");
        Assert.That(_fixture.Told.Last(), Is.EqualTo(
            $"lost --test: {_fixture.Path}: the back-end that came back is another: {why}: reset the device (restart the guest, or bind its driver again), or start the back-end as it was"));
        Assert.That(_fixture.StartAll, Throws.TypeOf<VhostException>().With.Message.Contains(why));
    }

    // Between a socket that was inherited and a back-end that listens.
    private static void Relay(UnixSocket socket, string path)
    {
        using UnixSocket backend = UnixSocket.Connect(path);
        byte[] buffer = new byte[8192];
        var files = new List<FileDescriptor>();
        PollEntry[] entries = new PollEntry[2];
        while (true)
        {
            entries[0] = new PollEntry(socket, PollEvents.Readable);
            entries[1] = new PollEntry(backend, PollEvents.Readable);
            Poll.Wait(entries, -1);
            for (int i = 0; i < 2; i++)
            {
                if (entries[i].Happened == PollEvents.None)
                    continue;
                int count = (i == 0 ? socket : backend).TryReceive(buffer, files, out _);
                if (count <= 0)
                    return;
                (i == 0 ? backend : socket).TrySend(buffer.AsSpan(0, count), [.. files]);
                files.ForEach(file => file.Dispose());
                files.Clear();
            }
        }
    }

    private static bool Refuse(VhostUserMessage message, VhostUserConnection connection, VhostUserRequest refused)
    {
        if (message.Header.Request != (uint)refused)
            return false;
        // Of its configuration a back-end gives nothing; all else is acknowledged.
        byte[] payload = refused == VhostUserRequest.GetConfig ? [] : SessionPeer.Bytes(1UL);
        connection.Send(message.Header.Request, VhostUserFlags.Reply, payload, [], TimeSpan.FromSeconds(1));
        return true;
    }
}
