using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Backend;
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

    [TestCase(0)]
    [TestCase(257)]
    public void Server_ImpossibleDevice_IsRefused(int queues) =>
        Assert.That(() => new VhostUserServer(VhostUserEndpoint.ListenOn(_path), new EchoDevice { Queues = queues }), Throws.ArgumentException);
}
