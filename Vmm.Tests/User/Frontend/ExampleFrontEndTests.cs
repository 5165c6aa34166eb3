using System.Collections.Concurrent;
using Example;
using NUnit.Framework;
using Vmm.Devices.Backends.Block;
using Vmm.Tests.Conformance;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Backend;

namespace Vmm.Tests.User.Frontend;

/// <summary>The program of docs/frontend-example.md.</summary>
public sealed class ExampleFrontEndTests
{
    private const int SectorSize = 512;
    private const int Sectors = 64;
    private const int Queues = 2;

    private readonly ConcurrentQueue<string> _told = [];
    private readonly byte[] _contents = new byte[Sectors * SectorSize];
    private string _path = null!;

    [SetUp]
    public void SetUp()
    {
        new Random(1).NextBytes(_contents);
        _told.Clear();
        _path = FakeBackend.NewPath();
    }

    [Test]
    public void Program_OfTheDocument_IsTheOneThatIsTested()
    {
        string document = File.ReadAllText(RepositoryRoot.Combine("docs", "frontend-example.md"));
        string code = File.ReadAllText(RepositoryRoot.Combine("Vmm.Tests", "User", "Frontend", "ExampleFrontEnd.cs"));
        Assert.That(document, Does.Contain($"```csharp\n{code}```"));
    }

    [Test]
    [Category("Peers")]
    public void Program_OverQemusDaemonThatIsKilled_GoesOn()
    {
        PeerTest.Require(PeerTest.StorageDaemon);
        string image = _path + ".img";
        File.WriteAllBytes(image, _contents);
        try
        {
            using HostDaemon daemon = HostDaemon.Disk(_path, image, _contents.Length);
            using var disk = new DiskFrontEnd(VhostUserEndpoint.ConnectTo(_path), Queues, _told.Enqueue);
            Use(disk);
            daemon.Kill();
            WaitFor("away: ");
            disk.BeginRead(0, 3);   // waits in the ring
            daemon.Start();
            WaitFor("back");
            Assert.That(disk.EndRead(0), Is.EqualTo(Sector(3)));
            Use(disk);
        }
        finally
        {
            File.Delete(image);
            File.Delete(_path);
        }
    }

    // A back-end that connects, with several queues; the front-end listens.
    [Test]
    public void Program_OverABackendThatConnects_GoesOnWithTheNext()
    {
        string image = _path + ".img";
        File.WriteAllBytes(image, _contents);
        try
        {
            using var device = new BlockBackend(new BlockOptions { Path = image, Queues = Queues });
            using VhostUserServer first = Serve(device);
            using var disk = new DiskFrontEnd(VhostUserEndpoint.ListenOn(_path), Queues, _told.Enqueue);
            Use(disk);
            first.Dispose();
            WaitFor("away: ");
            disk.BeginRead(1, 5);
            using VhostUserServer second = Serve(device);
            WaitFor("back");
            Assert.That(disk.EndRead(1), Is.EqualTo(Sector(5)));
            Use(disk);
        }
        finally
        {
            File.Delete(image);
        }
    }

    private VhostUserServer Serve(VhostUserDevice device)
    {
        var server = new VhostUserServer(
            VhostUserEndpoint.ConnectTo(_path), device, new VhostUserServerOptions { ReconnectInterval = TimeSpan.FromMilliseconds(20) });
        server.Start();
        return server;
    }

    private void Use(DiskFrontEnd disk)
    {
        Assert.That(disk.Sectors, Is.EqualTo(Sectors));
        Assert.That(disk.SetWriteBack(false));
        Assert.That(disk.SetWriteBack(true));
        for (int sector = 0; sector < Sectors; sector += Queues)
        {
            if (sector == Sectors / 2)
                disk.Restart();
            for (int queue = 0; queue < Queues; queue++)
                disk.BeginRead(queue, (ulong)(sector + queue));
            for (int queue = 0; queue < Queues; queue++)
                Assert.That(disk.EndRead(queue), Is.EqualTo(Sector(sector + queue)), $"sector {sector + queue}");
        }
    }

    private byte[] Sector(int number) => _contents[(number * SectorSize)..((number + 1) * SectorSize)];

    private void WaitFor(string what) =>
        Eventually.True(() => _told.Any(told => told.StartsWith(what, StringComparison.Ordinal)), () => $"not told {what}, but {string.Join(", ", _told)}");
}
