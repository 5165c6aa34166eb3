using System.Runtime.InteropServices;
using NUnit.Framework;
using Vmm.Devices.Backends.FileSystem;
using static Vmm.Tests.Conformance.FuseClient;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>What a guest has mapped (DAX), and what becomes of it.</summary>
public sealed class FuseDaxTests
{
    private const ulong Piece = 2 << 20, WindowSize = 16 << 20;
    private const uint Destroy = 38, SetupMapping = 48, RemoveMapping = 49;

    private string _shared = "";
    private FakeDaxFrontEnd _frontEnd = null!;
    private FuseServer _server = null!;
    private RequestPool _pool = null!;
    private FuseDevice _device = null!;
    private DeviceRing _ring = null!;

    [SetUp]
    public void Mount()
    {
        _shared = Directory.CreateTempSubdirectory("vmm-test-").FullName;
        File.WriteAllBytes(Path.Combine(_shared, "file"), new byte[Piece]);
        _frontEnd = new FakeDaxFrontEnd(WindowSize);
        _server = new FuseServer(new FileSystemOptions { Directory = _shared, Xattr = false, PoolSize = 0, DaxWindow = WindowSize }) { FrontEnd = () => _frontEnd.Channel };
        _pool = new RequestPool(_server, 0);
        _device = new FuseDevice(_server, _pool);
        _ring = new DeviceRing(_device, 0);
        Demand(FuseDevice.Init, 64);
    }

    [TearDown]
    public void RemoveAll()
    {
        _ring.Dispose();
        _device.Dispose();
        _pool.Dispose();
        _server.Dispose();
        _frontEnd.Dispose();
        Directory.Delete(_shared, recursive: true);
    }

    // Linux says at umount that it is done, and does not say of each file that it is mapped no more.
    [TestCase(true)]
    [TestCase(false)]
    public void Mount_AfterOneThatHadFilesMapped_MapsTheSamePlaces(bool destroys)
    {
        Assert.That((Map(0), Map(Piece)), Is.EqualTo((0, 0)));
        if (destroys)
        {
            Demand(FuseDevice.Request(Destroy, 0, []), 64);
            Assert.That(_frontEnd.Mapped, Is.Empty, "the guest that has unmounted has nothing mapped");
        }
        Demand(FuseDevice.Init, 64);
        Assert.That(_frontEnd.Mapped, Is.Empty, "a new session has nothing mapped");
        Assert.That(Map(0), Is.Zero);
        Assert.That(_frontEnd.Mapped, Is.EqualTo(new[] { (0UL, Piece) }));
        Assert.That(_frontEnd.Refused, Is.Empty);
    }

    // The front-end has taken everything away by itself.
    [Test]
    public void Reset_WithFilesMapped_AsksForNothing()
    {
        Assert.That(Map(0), Is.Zero);
        _frontEnd.Clear();
        _server.Reset();
        Demand(FuseDevice.Init, 64);
        Assert.That(Map(0), Is.Zero);
        Assert.That(_frontEnd.Refused, Is.Empty);
    }

    // Another process could not map them: the guest looks into the window without asking anybody.
    [Test]
    public void State_WithFilesMapped_IsNotSaved()
    {
        Assert.That(Map(0), Is.Zero);
        Assert.That(_server.Save(), Is.Null);
        Demand(FuseDevice.Request(RemoveMapping, 0, [.. Bytes(1U), .. Bytes(0UL, Piece)]), 64);
        Assert.That(_server.Save(), Is.Not.Null);
    }

    private int Map(ulong offset)
    {
        ulong node = U64(Demand(FuseDevice.Request(1, FuseGuest.Root, Name("file")), FuseGuest.EntrySize), 0);
        byte[] reply = Ask(FuseDevice.Request(SetupMapping, node, Bytes(ulong.MaxValue, 0UL, Piece, 1UL, offset)), 64);
        return MemoryMarshal.Read<int>(reply.AsSpan(4));
    }

    private byte[] Demand(byte[] request, int room)
    {
        byte[] reply = Ask(request, room);
        Assert.That(MemoryMarshal.Read<int>(reply.AsSpan(4)), Is.Zero);
        return reply[16..];
    }

    private byte[] Ask(byte[] request, int room)
    {
        _ring.Add(request, [40], 16 + room);
        return _ring.Await();
    }
}
