using System.Runtime.InteropServices;
using NUnit.Framework;
using Vmm.Devices.Backends.FileSystem;
using Vmm.Vhost.Native;
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

    // Linux maps and takes away the same pieces. Another driver may not.
    [Test]
    public void RemoveMapping_OfAPart_LeavesTheRest()
    {
        const ulong page = 4096;
        Assert.That((Map(Piece), Map(2 * Piece)), Is.EqualTo((0, 0)));
        Assert.That(Unmap(Piece + page, page), Is.Zero);
        Assert.That(_frontEnd.MappedParts, Is.EqualTo(new[] { (Piece, page, 0UL), (Piece + 2 * page, Piece - 2 * page, 2 * page), (2 * Piece, Piece, 0UL) }), "in the middle");
        Assert.That(Unmap(Piece + 10 * page, Piece), Is.Zero);
        (ulong, ulong, ulong)[] rests = [(Piece, page, 0UL), (Piece + 2 * page, 8 * page, 2 * page), (2 * Piece + 10 * page, Piece - 10 * page, 10 * page)];
        Assert.That(_frontEnd.MappedParts, Is.EqualTo(rests), "the end of one and the beginning of another");
        Assert.That(Unmap(Piece + page, page), Is.Zero, "nothing is there");
        Assert.That(Map(2 * Piece + 12 * page, length: page, fileOffset: 5 * page), Is.Zero);
        Assert.That(
            _frontEnd.MappedParts,
            Is.EqualTo(rests[..2].Concat([(2 * Piece + 10 * page, 2 * page, 10 * page), (2 * Piece + 12 * page, page, 5 * page), (2 * Piece + 13 * page, Piece - 13 * page, 13 * page)])),
            "a new one in the middle of another");
        Assert.That(Unmap(0, ulong.MaxValue), Is.Zero);
        Assert.That((_frontEnd.Mapped, _frontEnd.Refused), Is.EqualTo((Array.Empty<(ulong, ulong)>(), Array.Empty<string>())));
    }

    // What stays cannot be opened any more: nothing is taken away.
    [Test]
    public void RemoveMapping_OfAPartOfAFileThatIsForgotten_IsRefused()
    {
        Assert.That(Map(0), Is.Zero);
        ulong node = U64(Demand(FuseDevice.Request(1, FuseGuest.Root, Name("file")), FuseGuest.EntrySize), 0);
        _ring.AddData(FuseDevice.Request(2, node, Bytes(2UL)), 40);     // FUSE_FORGET
        Assert.That(_ring.Await(), Is.Empty);
        const int failed = -5;      // EIO
        Assert.That(Unmap(4096, 4096), Is.EqualTo(failed));
        Assert.That(_frontEnd.MappedParts, Is.EqualTo(new[] { (0UL, Piece, 0UL) }));
        Assert.That(Unmap(0, Piece), Is.Zero, "the whole can be taken away");
    }

    [Test]
    public void Window_OfVeryManyPieces_HasABound()
    {
        const int noMemory = -12;
        var window = new DaxWindow(1 << 30, OpenNothing) { Most = 201 };
        using var frontEnd = new FakeDaxFrontEnd(1 << 30);
        using FileDescriptor mapped = FileDescriptor.Open("/dev/null", OpenMode.ReadOnly);
        Assert.That(window.Map(frontEnd.Channel, 0, 1 << 30, 5, mapped, 0, true), Is.Zero);
        ulong offset = 4096;
        for (int i = 0; i < 200; i++, offset += 8192)
            Assert.That(window.Unmap(frontEnd.Channel, offset, 4096), Is.Zero);
        Assert.That(window.Unmap(frontEnd.Channel, offset, 4096), Is.EqualTo(noMemory));
        Assert.That(window.Unmap(frontEnd.Channel, 0, 4096), Is.Zero, "there are fewer then");
        Assert.That(frontEnd.Refused, Is.Empty);
    }

    private static int OpenNothing(ulong inode, bool isWritable, out FileDescriptor? file)
    {
        file = FileDescriptor.Open("/dev/null", OpenMode.ReadOnly);
        return 0;
    }

    private int Map(ulong offset, ulong length = Piece, ulong fileOffset = 0)
    {
        ulong node = U64(Demand(FuseDevice.Request(1, FuseGuest.Root, Name("file")), FuseGuest.EntrySize), 0);
        byte[] reply = Ask(FuseDevice.Request(SetupMapping, node, Bytes(ulong.MaxValue, fileOffset, length, 1UL, offset)), 64);
        return MemoryMarshal.Read<int>(reply.AsSpan(4));
    }

    private int Unmap(ulong offset, ulong length) =>
        MemoryMarshal.Read<int>(Ask(FuseDevice.Request(RemoveMapping, 0, [.. Bytes(1U), .. Bytes(offset, length)]), 64).AsSpan(4));

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
