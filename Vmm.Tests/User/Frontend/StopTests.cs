using System.Diagnostics;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.User.Protocol;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Tests.User.Frontend;

/// <summary>Rings stop when their used index says so, and not when the back-end does.</summary>
public class StopTests
{
    private static readonly TimeSpan s_short = TimeSpan.FromMilliseconds(200);
    private static readonly TimeSpan s_long = TimeSpan.FromMinutes(10);

    private FrontendFixture _fixture = null!;

    [SetUp]
    public void SetUp() => _fixture = new FrontendFixture();

    [TearDown]
    public void TearDown() => _fixture.Dispose();

    [Test]
    public void Stop_AnsweredBeforeItIsDone_WaitsForTheUsedIndex()
    {
        using FakeBackend backend = Backend();
        _fixture.Options = _fixture.Options with { StopTimeout = s_long };
        _fixture.Open();
        _fixture.StartAll();
        _fixture.SetIndexes(0, available: 3, used: 1);
        Thread? device = null;
        Answer(backend, ring => (ushort)(ring == 0 ? 3 : 0), () =>
        {
            device = new Thread(() =>
            {
                Thread.Sleep(100);
                _fixture.SetIndexes(0, available: 3, used: 3);
            });
            device.Start();
        });
        Assert.That(_fixture.Frontend.Stop(0), Is.EqualTo(3));
        Assert.That(_fixture.Memory.Read<ushort>(_fixture.Rings[0].Config.DeviceArea + 2), Is.EqualTo(3), "it was waited for");
        device!.Join();
        Assert.That(_fixture.Frontend.MayWrite(_fixture.Memory), Is.False);
        Assert.That(_fixture.Frontend.IsConnected);
    }

    [TestCase(5, 8)]
    [TestCase(0xFFFE, 1)]
    public void Stop_AnsweredWithLessThanWasUsed_GoesOnBehindWhatWasUsed(int said, int used)
    {
        using FakeBackend backend = Backend();
        _fixture.Open();
        _fixture.StartAll();
        _fixture.SetUsedIndex(0, (ushort)used);
        Answer(backend, _ => (ushort)said);
        Assert.That(_fixture.Frontend.Stop(0), Is.EqualTo(used));
        Assert.That(_fixture.Frontend.IsConnected);
    }

    [Test]
    public void Stop_NeverDone_LeavesTheMemoryToTheBackend([Values] bool answers, [Values] bool reconnect)
    {
        using FakeBackend backend = Backend();
        _fixture.Options = _fixture.Options with { StopTimeout = s_short, Reconnect = reconnect };
        _fixture.Open();
        _fixture.StartAll();
        _fixture.SetIndexes(1, available: 4, used: 2);
        if (answers)
            Answer(backend, ring => (ushort)(ring == 1 ? 4 : 0));
        else
            backend.Script = (message, _) => message.Header.Request == (uint)VhostUserRequest.GetVringBase;
        lock (_fixture.Sync)
            _fixture.Frontend.Reset();
        _fixture.WaitFor($"disconnected --test: {_fixture.Path}: "
            + (answers ? "says that ring 1 has stopped (0x4), and has not done all that it took (0x2)" : "GET_VRING_BASE: the peer did not answer within 0.2 s"));
        _fixture.WaitFor("restored");   // also where its death would not be survived: it lives

        AssertThatOtherMemoryIsNeeded(backend);
    }

    // A disk's driver broke a ring: what it made available there never comes back, and a wait for it would only hold up the reset.
    [Test]
    public void Reset_RingThatTheBackendHasGivenUp_DoesNotWaitForItsRequests()
    {
        using FakeBackend backend = Backend();
        _fixture.Options = _fixture.Options with { StopTimeout = TimeSpan.FromSeconds(40), CompletesRequests = true };
        _fixture.Open();
        _fixture.StartAll();
        _fixture.SetIndexes(1, available: 4, used: 2);
        Answer(backend, ring => (ushort)(ring == 1 ? 2 : 0));
        _fixture.Rings[1].Config.Error!.Signal();
        var watch = Stopwatch.StartNew();
        lock (_fixture.Sync)
            _fixture.Frontend.Reset();
        Assert.That(watch.Elapsed, Is.LessThan(TimeSpan.FromSeconds(20)));
        Assert.That(_fixture.Frontend.MayWrite(_fixture.Memory), Is.False);
        Assert.That(_fixture.Frontend.IsConnected);
    }

    // With fd=N: nobody listens anywhere who could be connected to again.
    [Test]
    public void Stop_NeverDoneOverAnInheritedSocket_IsSaidAndTheDeviceIsLost()
    {
        using FakeBackend backend = Backend();
        Assert.That(UnixSocket.TryConnect(_fixture.Path, out UnixSocket? socket), Is.Zero);
        int number = socket!.Detach();
        _fixture.Options = _fixture.Options with { StopTimeout = s_short, Endpoint = VhostUserEndpoint.Inherit(number) };
        _fixture.Open();
        _fixture.StartAll();
        _fixture.SetIndexes(1, available: 4, used: 2);
        Answer(backend, ring => (ushort)(ring == 1 ? 4 : 0));
        string reason = $"{_fixture.Frontend.Name}: says that ring 1 has stopped (0x4), and has not done all that it took (0x2)";
        lock (_fixture.Sync)
        {
            try
            {
                _fixture.Frontend.Reset();
            }
            catch (VhostException e)
            {
                Assert.That(e.Message, Is.EqualTo(reason));
            }
        }
        _fixture.WaitFor("lost " + reason);
        backend.Script = null;
        using GuestMemory other = GuestMemory.Create([(new(0), 1 << 20), (new(0x1000_0000), 1 << 20)]);
        lock (_fixture.Sync)
        {
            Assert.That(_fixture.Frontend.MayWrite(_fixture.Memory));
            Assert.That(() => _fixture.Frontend.Reset(), Throws.TypeOf<VhostException>().With.Message.EqualTo(reason));
            Assert.That(() => _fixture.Frontend.SetFeatures(VirtioFeatures.Version1), Throws.TypeOf<VhostException>().With.Message.EqualTo(reason));
        }
        Assert.That(backend.Connections, Is.EqualTo(1));
    }

    // As a VMM does at the guest's reboot: it disposes of the memory that is left to the back-end, and the next driver comes long after that.
    [Test]
    public void Reset_MemoryDisposed_TheBackendComesBackAndWorksWithOther()
    {
        using FakeBackend backend = Backend();
        _fixture.Options = _fixture.Options with { StopTimeout = s_short };
        _fixture.Open();
        using GuestMemory old = GuestMemory.Create([(new(0), 1 << 20)]);
        lock (_fixture.Sync)
        {
            _fixture.Frontend.SetFeatures(VirtioFeatures.Version1);
            _fixture.Frontend.SetMemory(old);
            _fixture.Frontend.Start([_fixture.Rings[0].Config]);
            old.Write<ushort>(_fixture.Rings[0].Config.DriverArea + 2, 4);
            Answer(backend, _ => 4);
            _fixture.Frontend.Reset();
            Assert.That(_fixture.Frontend.MayWrite(old));
            old.Dispose();
            _fixture.Frontend.Reset();
        }
        backend.Script = null;
        _fixture.WaitFor("restored");
        _fixture.StartAll();
        Assert.That(_fixture.Frontend.IsConnected);
        Assert.That(backend.All(backend.Connections, VhostUserRequest.SetVringEnable), Has.Length.EqualTo(2));
        Assert.That(_fixture.Told, Has.None.StartsWith("lost"));
    }

    // The memory goes without a reset: the rings have stopped.
    [Test]
    public void StopAll_MemoryDisposed_TheBackendComesBackAndWorksWithOther()
    {
        using FakeBackend backend = Backend();
        _fixture.Open();
        using GuestMemory old = GuestMemory.Create([(new(0), 1 << 20)]);
        lock (_fixture.Sync)
        {
            _fixture.Frontend.SetFeatures(VirtioFeatures.Version1);
            _fixture.Frontend.SetMemory(old);
            _fixture.Frontend.Start([_fixture.Rings[0].Config]);
            _fixture.Frontend.StopAll();
            old.Dispose();
        }
        backend.Kill();
        _fixture.WaitFor("restored");
        _fixture.StartAll();
        Assert.That(_fixture.Frontend.IsConnected);
        Assert.That(backend.All(2, VhostUserRequest.SetVringEnable), Has.Length.EqualTo(2));
        Assert.That(_fixture.Told, Has.None.StartsWith("lost"));
    }

    // Its place is known to nobody but the back-end that is left.
    [Test]
    public void Stop_NeverAnsweredWhileAPackedRingRuns_IsALoss()
    {
        using FakeBackend backend = StartPacked();
        backend.Script = (message, _) => message.Header.Request == (uint)VhostUserRequest.GetVringBase;
        lock (_fixture.Sync)
            _fixture.Frontend.Stop(1);
        _fixture.WaitFor("lost");
        Assert.That(_fixture.Told, Has.None.StartsWith("restored"));
        Assert.That(backend.Connections, Is.EqualTo(1));
    }

    [Test]
    public void StopAll_NeverAnsweredByPackedRings_IsConnectedToAgain()
    {
        using FakeBackend backend = StartPacked();
        backend.Script = (message, _) => message.Header.Request == (uint)VhostUserRequest.GetVringBase;
        lock (_fixture.Sync)
            _fixture.Frontend.StopAll();
        _fixture.WaitFor("restored");
    }

    [TestCase(0, false, false)]
    [TestCase(0, true, false)]
    [TestCase(1, false, false, Description = "the process that has stopped its rings now is the same")]
    [TestCase(1, true, true, Description = "of a disk")]
    public void Kill_WithRequestsInFlight_TheMemoryMayBeWrittenTo(int inFlight, bool isDisk, bool expected)
    {
        using FakeBackend backend = Backend();
        _fixture.Options = _fixture.Options with { CompletesRequests = isDisk };
        _fixture.Open();
        _fixture.StartAll();
        _fixture.SetIndexes(0, (ushort)(7 + inFlight), 7);
        backend.Kill();
        _fixture.WaitFor("restored");
        lock (_fixture.Sync)
        {
            Assert.That(_fixture.Frontend.MayWrite(_fixture.Memory), Is.EqualTo(inFlight > 0));
            _fixture.SetUsedIndex(0, (ushort)(7 + inFlight));
            _fixture.Frontend.Stop(1);
            Assert.That(_fixture.Frontend.MayWrite(_fixture.Memory), Is.EqualTo(inFlight > 0), "one ring runs");
            _fixture.Frontend.StopAll();
            // The process that was killed is this one, and lives.
            Assert.That(_fixture.Frontend.MayWrite(_fixture.Memory), Is.EqualTo(expected));
        }
    }

    // A vCPU waits for it. The process that has left again and again is this one, and lives.
    [Test]
    public void MayWrite_BackendsThatHaveLeftAndLive_AreWaitedForTogether()
    {
        using FakeBackend backend = Backend();
        _fixture.Open();
        _fixture.StartAll();
        _fixture.SetIndexes(0, 1, 0);
        for (int i = 2; i < 14; i++)
        {
            backend.Kill();
            Eventually.True(() => backend.All(i, VhostUserRequest.SetVringEnable).Length == 2, () => "it is not started again");
        }
        lock (_fixture.Sync)
        {
            long start = Stopwatch.GetTimestamp();
            Assert.That(_fixture.Frontend.MayWrite(_fixture.Memory));
            Assert.That(Stopwatch.GetElapsedTime(start), Is.LessThan(TimeSpan.FromMilliseconds(900)), "12 processes of 100 ms each");
        }
    }

    // A direct read of a disk's back-end may be written to memory after the end of the process.
    [Test]
    public void NeverStopped_AndItsProcessEnds_OnlyADiskMayStillWrite([Values] bool isDisk)
    {
        using FakeBackend backend = Backend();
        using var process = Process.Start("sleep", "1000");
        try
        {
            _fixture.Options = _fixture.Options with { StopTimeout = s_short, CompletesRequests = isDisk, PeerProcessId = () => process.Id };
            _fixture.Open();
            _fixture.StartAll();
            _fixture.SetIndexes(0, available: 4, used: 2);
            Answer(backend, ring => (ushort)(ring == 0 ? 4 : 0));
            lock (_fixture.Sync)
                _fixture.Frontend.Reset();
            Assert.That(_fixture.Frontend.MayWrite(_fixture.Memory), "it lives");
        }
        finally
        {
            process.Kill();
            process.WaitForExit();
        }
        Assert.That(_fixture.Frontend.MayWrite(_fixture.Memory), Is.EqualTo(isDisk));
        backend.Script = null;
    }

    // All rings are idle, which shows that a back-end that has died is quiet, but nothing of one that lives.
    [Test]
    public void Request_NotAnswered_TheBackendMayWriteUntilItsProcessEnds()
    {
        using FakeBackend backend = Backend();
        using var process = Process.Start("sleep", "1000");
        try
        {
            _fixture.Options = _fixture.Options with { ReplyTimeout = s_short, Reconnect = false, PeerProcessId = () => process.Id };
            _fixture.Open();
            _fixture.StartAll();
            backend.Script = (message, _) => message.Header.Request == (uint)VhostUserRequest.GetConfig;
            Assert.That(() => _fixture.Frontend.Session.GetConfig(new byte[8]), Throws.InstanceOf<VhostUserException>());
            _fixture.WaitFor("lost");
            Assert.That(_fixture.Frontend.MayWrite(_fixture.Memory), "it lives");
        }
        finally
        {
            process.Kill();
            process.WaitForExit();
        }
        Assert.That(_fixture.Frontend.MayWrite(_fixture.Memory), Is.False);
    }

    [Test]
    public void ConfigChange_TheBackendDiesWhenAsked_IsALoss()
    {
        using FakeBackend backend = Backend();
        _fixture.Options = _fixture.Options with { Reconnect = false };
        _fixture.Open();
        _fixture.StartAll();
        backend.Script = (message, connection) =>
        {
            if (message.Header.Request != (uint)VhostUserRequest.GetConfig)
                return false;
            connection.Socket.Shutdown();
            return true;
        };
        backend.Ask(VhostUserBackendRequest.ConfigChange, [], needReply: false);   // it dies before it could hear the answer
        _fixture.WaitFor("lost");
    }

    [Test]
    public void Kill_ManyTimesWithRequestsInFlight_KeepsFewDescriptors()
    {
        using FakeBackend backend = Backend();
        _fixture.Open();
        _fixture.StartAll();
        _fixture.SetIndexes(0, 1, 0);
        int before = Directory.GetFiles("/proc/self/fd").Length;
        for (int i = 2; i < 60; i++)
        {
            backend.Kill();
            Eventually.True(() => backend.All(i, VhostUserRequest.SetVringEnable).Length == 2, () => "it is not started again");
        }
        Assert.That(Directory.GetFiles("/proc/self/fd").Length - before, Is.LessThan(30));
        Assert.That(_fixture.Frontend.MayWrite(_fixture.Memory));
    }

    [Test]
    public void StopAll_ManyRings_AreAskedBeforeTheFirstAnswers()
    {
        using FakeBackend backend = Backend();
        _fixture.Options = _fixture.Options with { StopTimeout = s_long };
        _fixture.Open();
        _fixture.StartAll();
        var kept = new List<byte[]>();
        backend.Script = (message, connection) =>
        {
            if (message.Header.Request != (uint)VhostUserRequest.GetVringBase)
                return false;
            kept.Add(message.Payload.ToArray());
            if (kept.Count == 2)
                kept.ForEach(state => connection.Send(message.Header.Request, VhostUserFlags.Reply, state, [], s_long));
            return true;
        };
        _fixture.Frontend.StopAll();
        Assert.That(_fixture.Frontend.IsConnected);
        Assert.That(kept, Has.Count.EqualTo(2));
    }

    [Test]
    public void Reset_ManyRingsOfASlowBackend_TakesOneTime([Values] bool acknowledges)
    {
        const int rings = 256;
        using FakeBackend backend = new FakeBackend(_fixture.Path)
        {
            QueueNum = rings,
            ProtocolFeatures = acknowledges ? FakeBackend.DefaultProtocolFeatures : FakeBackend.DefaultProtocolFeatures & ~VhostUserProtocolFeatures.ReplyAck,
        }.Start();
        _fixture.Options = _fixture.Options with { RingCount = rings, StopTimeout = TimeSpan.FromSeconds(1) };
        _fixture.Open();
        lock (_fixture.Sync)
        {
            _fixture.Frontend.SetFeatures(VirtioFeatures.Version1);
            _fixture.Frontend.SetMemory(_fixture.Memory);
            _fixture.Frontend.Start([.. Enumerable.Range(0, rings).Select(ring => _fixture.Rings[0].Config with { Index = ring })]);
            backend.Script = (_, _) =>
            {
                Thread.Sleep(200);   // 51 s for all of them, at least
                return false;
            };
            long start = Stopwatch.GetTimestamp();
            _fixture.Frontend.Reset();
            Assert.That(Stopwatch.GetElapsedTime(start), Is.LessThan(TimeSpan.FromSeconds(20)));
        }
        backend.Script = null;
        _fixture.WaitFor("restored");
    }

    [Test]
    public void StopAll_ManyRings_AreAllStopped([Values] bool acknowledges)
    {
        const int rings = 256;
        using FakeBackend backend = new FakeBackend(_fixture.Path)
        {
            QueueNum = rings,
            ProtocolFeatures = acknowledges ? FakeBackend.DefaultProtocolFeatures : FakeBackend.DefaultProtocolFeatures & ~VhostUserProtocolFeatures.ReplyAck,
        }.Start();
        _fixture.Options = _fixture.Options with { RingCount = rings };
        _fixture.Open();
        _fixture.SetUsedIndex(0, 5);
        lock (_fixture.Sync)
        {
            _fixture.Frontend.SetFeatures(VirtioFeatures.Version1);
            _fixture.Frontend.SetMemory(_fixture.Memory);
            _fixture.Frontend.Start([.. Enumerable.Range(0, rings).Select(ring => _fixture.Rings[0].Config with { Index = ring, Base = 5 })]);
            _fixture.Frontend.StopAll();
        }
        Assert.That(backend.All(1, VhostUserRequest.SetVringEnable).Skip(rings).Select(said => said.State), Is.EqualTo(Enumerable.Range(0, rings).Select(ring => new VringState((uint)ring, 0))));
        Assert.That(backend.All(1, VhostUserRequest.GetVringBase).Select(said => said.State), Is.EqualTo(Enumerable.Range(0, rings).Select(ring => new VringState((uint)ring, 0))));
        Assert.That(_fixture.Frontend.IsConnected);
        Assert.That(_fixture.Frontend.Stop(rings - 1), Is.EqualTo(5));
    }

    [Test]
    public void Dispose_BackendLeftWithRequestsInFlight_KeepsNothingOfItsProcess()
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();   // of other tests
        using FakeBackend backend = Backend();
        _fixture.Options = _fixture.Options with { Reconnect = false };
        int before = ProcessDescriptors();
        _fixture.Open();
        _fixture.StartAll();
        _fixture.SetIndexes(0, available: 4, used: 2);
        backend.Kill();
        _fixture.WaitFor("lost");
        lock (_fixture.Sync)
            Assert.That(_fixture.Frontend.MayWrite(_fixture.Memory));
        Assert.That(ProcessDescriptors(), Is.EqualTo(before + 1));
        _fixture.Frontend.Dispose();
        Assert.That(ProcessDescriptors(), Is.EqualTo(before));

        static int ProcessDescriptors() => Directory.GetFiles("/proc/self/fd")
            .Count(path => new FileInfo(path).LinkTarget?.Contains("pidfd", StringComparison.Ordinal) == true);
    }

    [Test]
    public void Stop_Cancelled_WaitsNoLonger([Values] bool answers)
    {
        using var cancellation = new CancellationTokenSource();   // outlives the back-end, which cancels it
        using FakeBackend backend = Backend();
        _fixture.Options = _fixture.Options with { StopTimeout = s_long };
        _fixture.Open(cancellation.Token);
        _fixture.StartAll();
        _fixture.SetIndexes(0, available: 2, used: 0);
        if (answers)
        {
            Answer(backend, ring => (ushort)(ring == 0 ? 2 : 0), () => cancellation.CancelAfter(100));
        }
        else
        {
            backend.Script = (message, _) =>
            {
                if (message.Header.Request != (uint)VhostUserRequest.GetVringBase)
                    return false;
                cancellation.Cancel();
                return true;
            };
        }
        lock (_fixture.Sync)
        {
            _fixture.Frontend.StopAll();
            Assert.That(_fixture.Frontend.MayWrite(_fixture.Memory));
        }
    }

    // The back-end library of ours, with a device that takes its time: it answers when it is done, which is too late.
    [Test]
    public void Reset_OurBackendOnASlowDevice_WritesIntoTheMemoryThatIsLeftToItAndNoOther()
    {
        using var device = new SlowDevice();
        using var server = new VhostUserServer(VhostUserEndpoint.ListenOn(_fixture.Path), device);
        var serving = new Thread(server.Run);
        serving.Start();
        try
        {
            _fixture.Options = _fixture.Options with
            {
                RingCount = 1,
                ConfigSize = 0,
                ConfigRequired = false,
                StopTimeout = s_short,
                ReplyTimeout = s_long,
            };
            _fixture.Open();
            lock (_fixture.Sync)
            {
                _fixture.Frontend.SetFeatures(VirtioFeatures.Version1);
                _fixture.Frontend.SetMemory(_fixture.Memory);
                _fixture.Frontend.Start([_fixture.Rings[0].Config]);
            }
            _fixture.Rings[0].Add([], [(new(0x8000), 4096)]);
            _fixture.Rings[0].Kick();
            device.WaitUntilBusy();
            using GuestMemory other = GuestMemory.Create([(new(0), 1 << 20)]);
            lock (_fixture.Sync)
            {
                _fixture.Frontend.Reset();
                Assert.That(_fixture.Frontend.MayWrite(_fixture.Memory), "it has not answered");
                _fixture.Frontend.SetFeatures(VirtioFeatures.Version1);
                Assert.That(() => _fixture.Frontend.SetMemory(_fixture.Memory), Throws.TypeOf<VhostException>());
                _fixture.Frontend.SetMemory(other);
            }
            Assert.That(_fixture.Memory.Slice(new(0x8000), 4096).IndexOfAnyExcept((byte)0), Is.Negative);
            device.Go();
            Eventually.True(() => _fixture.Memory.Slice(new(0x8000), 4096).IndexOfAnyExcept((byte)0x5A) < 0, () => "the device is not slow but gone");
            Assert.That(other.Slice(new(0), 1 << 20).IndexOfAnyExcept((byte)0), Is.Negative);
            _fixture.WaitFor("restored");
        }
        finally
        {
            device.Go();
            server.Stop();
            serving.Join();
        }
    }

    private FakeBackend StartPacked()
    {
        FakeBackend backend = Backend();
        _fixture.Options = _fixture.Options with { StopTimeout = s_short, Reconnect = false };
        _fixture.Open();
        lock (_fixture.Sync)
        {
            _fixture.Frontend.SetFeatures(VirtioFeatures.Version1 | VirtioFeatures.RingPacked);
            _fixture.Frontend.SetMemory(_fixture.Memory);
            _fixture.Frontend.Start([_fixture.Rings[0].Config with { Base = 0x8000 }, _fixture.Rings[1].Config with { Base = 0x8000 }]);
        }
        return backend;
    }

    private FakeBackend Backend() => new FakeBackend(_fixture.Path).Start();

    private static void Answer(FakeBackend backend, Func<uint, ushort> baseOf, Action? after = null) => backend.Script = (message, connection) =>
    {
        if (message.Header.Request != (uint)VhostUserRequest.GetVringBase)
            return false;
        uint ring = message.Read<VringState>().Index;
        connection.Send(message.Header.Request, VhostUserFlags.Reply, SessionPeer.Bytes(new VringState(ring, baseOf(ring))), [], TimeSpan.FromSeconds(10));
        after?.Invoke();
        return true;
    };

    private void AssertThatOtherMemoryIsNeeded(FakeBackend backend)
    {
        backend.Script = null;
        using GuestMemory other = GuestMemory.Create([(new(0), 1 << 20), (new(0x1000_0000), 1 << 20)]);
        lock (_fixture.Sync)
        {
            Assert.That(_fixture.Frontend.MayWrite(_fixture.Memory));
            Assert.That(_fixture.Frontend.MayWrite(other), Is.False);
            _fixture.Frontend.SetFeatures(VirtioFeatures.Version1);
            Assert.That(() => _fixture.Frontend.SetMemory(_fixture.Memory), Throws.TypeOf<VhostException>().With.Message.EqualTo(
                $"--test: {_fixture.Path}: a back-end that did not finish its requests may still write to this memory: share other memory"));
            _fixture.Frontend.SetMemory(other);
            _fixture.Frontend.Start([_fixture.Rings[0].Config, _fixture.Rings[1].Config]);
            Assert.That(_fixture.Frontend.MayWrite(other), Is.False);
            Assert.That(_fixture.Frontend.IsConnected);
            _fixture.Frontend.StopAll();
        }
        Assert.That(backend.All(backend.Connections, VhostUserRequest.SetVringEnable), Has.Length.EqualTo(4), "it works");
    }

    private sealed class SlowDevice : VhostUserDevice, IRingHandler
    {
        private readonly ManualResetEventSlim _busy = new();
        private readonly ManualResetEventSlim _go = new();

        public override string Name => "slow";

        public override ulong Features => 0;

        public override int RingCount => 1;

        public FileDescriptor? Ready => null;

        public void WaitUntilBusy() => Assert.That(_busy.Wait(TimeSpan.FromSeconds(30)));

        public void Go() => _go.Set();

        public override IRingHandler StartRing(BackendRing ring) => this;

        public void Process(BackendRing ring)
        {
            while (ring.TryTake(out DescriptorChain chain))
            {
                _busy.Set();
                _go.Wait();
                foreach (GuestBuffer buffer in chain.Writable)
                    buffer.Span.Fill(0x5A);
                ring.Complete(chain.Head, (uint)chain.WritableLength);
            }
            ring.Notify();
        }

        public void Drain(BackendRing ring)
        {
        }

        public void Dispose()
        {
        }
    }
}
