using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.User.Protocol;
using Request = Vmm.Vhost.User.Protocol.VhostUserRequest;

namespace Vmm.Tests.User.Backend;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class VhostUserServerTests : IDisposable
{
    private readonly int _descriptorsBefore = OpenDescriptors.Count;
    private readonly string _path = Path.Combine(Path.GetTempPath(), Path.GetRandomFileName());
    private readonly EchoDevice _device = new();

    public void Dispose()
    {
        Assert.That(File.Exists(_path), Is.False, "the socket is still there");
        OpenDescriptors.AssertBackTo(_descriptorsBefore);
    }

    [Test]
    public void Server_FrontEndLeaves_TheNextIsServed()
    {
        using var server = new VhostUserServer(VhostUserEndpoint.ListenOn(_path), _device);
        server.Start();
        for (int i = 0; i < 20; i++)
        {
            using var frontEnd = new FrontEndDriver(UnixSocket.Connect(_path));
            using FrontEndRing ring = frontEnd.Start();
            ring.Add([1], 1);
            Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 2 }));
        }
    }

    [Test]
    public void Server_SecondFrontEnd_WaitsForTheFirstToLeave()
    {
        using var server = new VhostUserServer(VhostUserEndpoint.ListenOn(_path), _device);
        server.Start();
        using var first = new FrontEndDriver(UnixSocket.Connect(_path));
        first.Get(Request.GetFeatures);
        using var second = new FrontEndDriver(UnixSocket.Connect(_path));
        second.Send(Request.GetFeatures);
        Assert.That(second.Connection.Receive(TimeSpan.FromMilliseconds(50), TimeSpan.FromSeconds(1)), Is.Null);
        first.Connection.Dispose();
        Assert.That(second.Receive<ulong>(Request.GetFeatures), Is.Not.Zero);
    }

    [Test]
    public void Server_FrontEndBreaksTheProtocol_TheNextIsServed()
    {
        using var server = new VhostUserServer(VhostUserEndpoint.ListenOn(_path), _device);
        server.Start();
        using (var bad = new FrontEndDriver(UnixSocket.Connect(_path)))
        {
            bad.Send((Request)99);
            Assert.That(bad.IsClosed());
        }
        using var good = new FrontEndDriver(UnixSocket.Connect(_path));
        Assert.That(good.Get(Request.GetFeatures), Is.Not.Zero);
    }

    [Test]
    public void Server_ServesOnce_EndsAfterTheFirst()
    {
        using var server = new VhostUserServer(VhostUserEndpoint.ListenOn(_path), _device, new() { ServesOnce = true });
        var run = Task.Run(server.Run);
        using (var frontEnd = new FrontEndDriver(UnixSocket.Connect(_path)))
            frontEnd.Get(Request.GetFeatures);
        Assert.That(run.Wait(TimeSpan.FromSeconds(20)));
    }

    [Test]
    public void Client_NobodyListens_ConnectsLaterAndAgain()
    {
        using var server = new VhostUserServer(
            VhostUserEndpoint.ConnectTo(_path), _device, new() { ReconnectInterval = TimeSpan.FromMilliseconds(10) });
        server.Start();
        using UnixListener listener = UnixListener.Listen(_path);
        for (int i = 0; i < 3; i++)
        {
            UnixSocket? socket = null;
            Eventually.True(() => (socket = listener.TryAccept()) is not null, () => "it does not connect");
            using var frontEnd = new FrontEndDriver(socket!);
            Assert.That(frontEnd.Get(Request.GetFeatures), Is.Not.Zero);
        }
    }

    [Test]
    public void Inherited_ListeningSocket_IsServed()
    {
        using UnixListener listener = UnixListener.Listen(_path);
        // As a process would be started with it: another number of the same.
        using var server = new VhostUserServer(VhostUserEndpoint.Inherit(Duplicate.Of(listener)), _device);
        server.Start();
        using var frontEnd = new FrontEndDriver(UnixSocket.Connect(_path));
        Assert.That(frontEnd.Get(Request.GetFeatures), Is.Not.Zero);
    }

    [Test]
    public void Inherited_ConnectedSocket_IsServedUntilItEnds()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        int number = Duplicate.Of(theirs);
        theirs.Dispose();
        using var server = new VhostUserServer(VhostUserEndpoint.Inherit(number), _device);
        var run = Task.Run(server.Run);
        using (var frontEnd = new FrontEndDriver(ours))
            Assert.That(frontEnd.Get(Request.GetFeatures), Is.Not.Zero);
        Assert.That(run.Wait(TimeSpan.FromSeconds(20)), "there can be no other front-end");
    }

    [Test]
    public void Run_AgainWhereThereCanBeNoOtherFrontEnd_ReturnsAtOnce([Values] bool isInherited)
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using VhostUserServer server = isInherited
            ? new VhostUserServer(VhostUserEndpoint.Inherit(Duplicate.Of(theirs)), _device)
            : new VhostUserServer(theirs, _device);
        if (isInherited)
            theirs.Dispose();
        using (var frontEnd = new FrontEndDriver(ours))
        {
            server.Start();
            frontEnd.Get(Request.GetFeatures);
        }
        Eventually.True(() => _device.Events.Contains("gone"), () => "it is still served");
        // The first serving may take a moment to its end.
        Task? again = null;
        Eventually.True(
            () =>
            {
                again = Task.Run(server.Run);
                return !SpinWait.SpinUntil(() => again.IsFaulted, 50) || again.Exception!.InnerException is not InvalidOperationException;
            },
            () => "it serves without end");
        Assert.That(again!.Wait(TimeSpan.FromSeconds(5)), "there can be no other front-end");
    }

    [Test]
    public void Stop_WhileARingRuns_EndsSoon()
    {
        var server = new VhostUserServer(VhostUserEndpoint.ListenOn(_path), _device);
        server.Start();
        using var frontEnd = new FrontEndDriver(UnixSocket.Connect(_path));
        using FrontEndRing ring = frontEnd.Start();
        server.Dispose();
        Assert.That(_device.Events, Has.Some.EqualTo("end"));
        Assert.That(frontEnd.IsClosed());
    }

    [Test]
    public void Device_Throws_EndsTheConnectionNotTheServer()
    {
        using var server = new VhostUserServer(VhostUserEndpoint.ListenOn(_path), _device);
        server.Start();
        using (var frontEnd = new FrontEndDriver(UnixSocket.Connect(_path)))
        {
            _device.Throws = true;
            frontEnd.Get(Request.GetFeatures);
            frontEnd.Send(Request.SetFeatures, FrontEndDriver.Features);
            Assert.That(frontEnd.IsClosed());
        }
        _device.Throws = false;
        using var next = new FrontEndDriver(UnixSocket.Connect(_path));
        next.Negotiate();
    }

    [Test]
    public void Start_WhileItServes_IsRefused()
    {
        using var server = new VhostUserServer(VhostUserEndpoint.ListenOn(_path), _device);
        server.Start();
        Assert.That(server.Start, Throws.InvalidOperationException);
        Assert.That(server.Run, Throws.InvalidOperationException);
        using var first = new FrontEndDriver(UnixSocket.Connect(_path));
        first.Get(Request.GetFeatures);
        using var second = new FrontEndDriver(UnixSocket.Connect(_path));
        second.Send(Request.GetFeatures);
        Assert.That(second.Connection.Receive(TimeSpan.FromMilliseconds(50), TimeSpan.FromSeconds(1)), Is.Null, "one at a time");
    }

    [TestCase("ReadConfig", false)]
    [TestCase("ReadConfig", true)]
    [TestCase("Reset", false)]
    [TestCase("Reset", true)]
    [TestCase("Process", false)]
    [TestCase("Process", true)]
    public void Stop_InACallBack_EndsTheServerAfterIt(string where, bool disposes)
    {
        using var server = new VhostUserServer(VhostUserEndpoint.ListenOn(_path), _device);
        using var called = new SemaphoreSlim(0);
        void End()
        {
            if (disposes)
                server.Dispose();
            else
                server.Stop();
            called.Release();
        }
        _device.OnCall = name =>
        {
            if (name == where)
                End();
        };
        if (where == "Process")
            _device.AfterEach = End;
        var run = Task.Run(server.Run);
        using (var frontEnd = new FrontEndDriver(UnixSocket.Connect(_path)))
        {
            frontEnd.Negotiate(0, VhostUserProtocolFeatures.Config | VhostUserProtocolFeatures.ResetDevice);
            if (where == "Process")
            {
                using FrontEndRing ring = frontEnd.Start();
                ring.Add([1], 1);
                Assert.That(called.Wait(TimeSpan.FromSeconds(20)));
            }
            else if (where == "ReadConfig")
            {
                frontEnd.Send(Request.GetConfig, new ConfigHeader(0, 8, 0));
                Assert.That(called.Wait(TimeSpan.FromSeconds(20)));
            }
            else
            {
                frontEnd.Send(Request.ResetDevice);
                Assert.That(called.Wait(TimeSpan.FromSeconds(20)));
            }
        }
        Assert.That(run.Wait(TimeSpan.FromSeconds(20)), "it has ended");
        server.Stop();
    }

    [Test]
    public void Dispose_WhileRunIsOnAnotherThread_WaitsForItsEnd()
    {
        var server = new VhostUserServer(VhostUserEndpoint.ListenOn(_path), _device);
        var run = Task.Run(server.Run);
        using var frontEnd = new FrontEndDriver(UnixSocket.Connect(_path));
        using FrontEndRing ring = frontEnd.Start();
        server.Dispose();
        Assert.That(_device.Events, Has.Some.EqualTo("end"), "its rings have ended");
        Assert.That(run.Wait(TimeSpan.FromSeconds(20)));
        using var others = new OtherFiles();
        server.Dispose();
        server.Stop();
        Assert.That(server.Run, Throws.TypeOf<ObjectDisposedException>());
        Assert.That(server.Start, Throws.TypeOf<ObjectDisposedException>());
        others.AssertUntouched();
    }

    [TestCase("Name")]
    [TestCase("RingCount")]
    [TestCase("Reset")]
    public void Device_ThrowsWhereverItIsAsked_DoesNotEndTheServer(string where)
    {
        using var server = new VhostUserServer(VhostUserEndpoint.ListenOn(_path), _device);
        bool throws = true;
        _device.OnName = () => throws && where == "Name" ? throw new InvalidOperationException("on purpose") : "echo";
        _device.OnCall = name =>
        {
            if (throws && name == where)
                throw new InvalidOperationException("on purpose");
        };
        server.Start();
        using (var frontEnd = new FrontEndDriver(UnixSocket.Connect(_path)))
        {
            if (where == "Reset")
            {
                frontEnd.Negotiate(0, VhostUserProtocolFeatures.ResetDevice);
                frontEnd.Send(Request.ResetDevice);
            }
            else if (where == "Name")
            {
                frontEnd.Send((Request)99);
            }
            Assert.That(frontEnd.IsClosed());
        }
        throws = false;
        using var next = new FrontEndDriver(UnixSocket.Connect(_path));
        next.Negotiate();
    }

    [TestCase(false)]
    [TestCase(true)]
    public void Ring_UsedByAnotherThreadOrAfterItsEnd_Throws(bool hasEnded)
    {
        BackendRing? used = null;
        _device.OnStart = ring => used = ring;
        using var done = new SemaphoreSlim(0);
        _device.AfterEach = () => done.Release();
        var server = new VhostUserServer(VhostUserEndpoint.ListenOn(_path), _device);
        server.Start();
        using var frontEnd = new FrontEndDriver(UnixSocket.Connect(_path));
        using FrontEndRing ring = frontEnd.Start();
        ring.Add([1], 1);
        Assert.That(done.Wait(TimeSpan.FromSeconds(20)));
        if (hasEnded)
            server.Dispose();
        Type expected = hasEnded ? typeof(ObjectDisposedException) : typeof(InvalidOperationException);
        Assert.That(() => used!.TryTake(out _), Throws.TypeOf(expected));
        Assert.That(() => used!.Complete(0, 0), Throws.TypeOf(expected));
        Assert.That(() => used!.PutBack(0), Throws.TypeOf(expected));
        Assert.That(() => used!.Notify(), Throws.TypeOf(expected));
        Assert.That(() => used!.Waiting, Throws.TypeOf(expected));
        server.Dispose();
    }

    [Test]
    public void Options_TimesThatWouldSpinOrWaitForEver_AreRefused()
    {
        Assert.That(() => new VhostUserServerOptions { ReconnectInterval = TimeSpan.Zero },
            Throws.TypeOf<ArgumentOutOfRangeException>().With.Message.StartsWith("ReconnectInterval must be more than 0"));
        Assert.That(() => new VhostUserServerOptions { Deadline = TimeSpan.FromSeconds(-1) }, Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new VhostUserServerOptions { PollInterval = TimeSpan.Zero }, Throws.TypeOf<ArgumentOutOfRangeException>());
    }

    [Test]
    public void Server_CannotBeMade_LeavesNothingOpen()
    {
        int before = OpenDescriptors.Count;
        for (int i = 0; i < 20; i++)
        {
            Assert.That(() => new VhostUserServer(VhostUserEndpoint.ListenOn("/no/such/directory"), _device), Throws.TypeOf<ErrnoException>());
            Assert.That(() => new VhostUserServer(VhostUserEndpoint.Inherit(0), _device), Throws.TypeOf<ErrnoException>());
            Assert.That(() => new VhostUserServer(VhostUserEndpoint.ListenOn(_path), new EchoDevice { Queues = 0 }), Throws.ArgumentException);
            Assert.That(() => new VhostUserServer(VhostUserEndpoint.ListenOn(_path), null!), Throws.ArgumentNullException);
        }
        Assert.That(OpenDescriptors.Count, Is.EqualTo(before));
    }

    [TestCase(0)]
    [TestCase(257)]
    public void Server_ImpossibleDevice_IsRefused(int queues) =>
        Assert.That(() => new VhostUserServer(VhostUserEndpoint.ListenOn(_path), new EchoDevice { Queues = queues }), Throws.ArgumentException);
}
