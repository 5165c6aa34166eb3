using System.Runtime.InteropServices;
using NUnit.Framework;
using Vmm.Devices.Backends.FileSystem;
using Vmm.Tests.Integration;
using static Vmm.Tests.Conformance.FuseClient;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>What a guest can make the process keep, in this process.</summary>
[NonParallelizable]   // it looks at the memory of this process
public sealed class FuseMemoryTests
{
    private const int EntrySize = 128, AttributesSize = 104;

    private string _shared = "";

    [SetUp]
    public void MakeShared() => _shared = Directory.CreateTempSubdirectory("vmm-test-").FullName;

    [TearDown]
    public void RemoveShared() => Directory.Delete(_shared, recursive: true);

    [Test]
    public void Lookups_ThatAreForgotten_LeaveNothing()
    {
        const int files = 100;
        int rounds = VmmTest.IsFull ? 20_000 : 500;
        for (int i = 0; i < files; i++)
            File.WriteAllText(Path.Combine(_shared, $"f{i}"), "");
        using FuseServer server = NewServer();
        using var pool = new RequestPool(server, 0);
        using var device = new FuseDevice(server, pool);
        using var ring = new DeviceRing(device, 0);
        Ask(ring, FuseDevice.Init, 64);
        long before = 0;
        for (int round = 0; round < rounds; round++)
        {
            for (int i = 0; i < files; i++)
            {
                ulong node = U64(Ask(ring, FuseDevice.Request(1, 1, Name($"f{i}")), EntrySize), 0);
                Ask(ring, FuseDevice.Request(3, node, Bytes(0UL, 0UL)), AttributesSize);    // opens it
                Ask(ring, FuseDevice.Request(2, node, Bytes(1UL)), 0);
            }
            if (round == rounds / 10)
                before = GC.GetTotalMemory(forceFullCollection: true);
        }
        Assert.That(server.Count, Is.EqualTo((1, 0, 0)), "files, descriptors and openings");
        Assert.That(GC.GetTotalMemory(forceFullCollection: true) - before, Is.LessThan(512 * 1024), "bytes");
    }

    // Each of them has memory of its own for as many pieces as a ring has descriptors.
    [Test]
    public void Requests_OfManyPieces_AreNotAllKept()
    {
        const int requests = 60, pieces = 200;
        File.WriteAllText(Path.Combine(_shared, "file"), "some text");
        using FuseServer server = NewServer();
        using var pool = new RequestPool(server, 1);
        using var device = new FuseDevice(server, pool);
        using var ring = new DeviceRing(device, 0);
        Ask(ring, FuseDevice.Init, 64);
        ulong node = U64(Ask(ring, FuseDevice.Request(1, 1, Name("file")), EntrySize), 0);
        const uint synchronous = 0x101000;      // its reads are for other threads
        ulong handle = U64(Ask(ring, FuseDevice.Request(14, node, Bytes(synchronous, 0U)), 16), 0);
        byte[] read = FuseDevice.Request(15, node, [.. Bytes(handle, 0UL), .. Bytes(4096U, 0U), .. Bytes(0UL), .. Bytes(0U, 0U)]);
        int[] room = [16, .. Enumerable.Repeat(32, pieces)];
        for (int i = 0; i < requests; i++)
            ring.Add(read, [40], room);
        for (int i = 0; i < requests; i++)
            Assert.That(ring.Await()[16..], Is.EqualTo("some text"u8.ToArray()));
        Assert.That(device.Handler!.Kept.Large, Is.InRange(1, 32));
        // One that waits for a lock keeps nothing of the kind at all.
        ring.Add(FuseDevice.Request(33, node, FuseGuest.LockArguments(handle, 1, 1)), [40], room);
        Assert.That(MemoryMarshal.Read<int>(ring.Await().AsSpan(4)), Is.Zero);
        for (int i = 0; i < requests; i++)
            ring.Add(FuseDevice.Request(33, node, FuseGuest.LockArguments(handle, 2, 1)), [40], room);
        ring.Process();
        ring.Add(FuseDevice.Request(32, node, FuseGuest.LockArguments(handle, 1, 2)), [40], room);
        for (int i = 0; i < requests + 1; i++)
            Assert.That(MemoryMarshal.Read<int>(ring.Await().AsSpan(4)), Is.Zero);
        Assert.That(device.Handler!.Kept.All - device.Handler!.Kept.Large, Is.GreaterThanOrEqualTo(requests - 32), "those that waited");
    }

    // What the host's file system takes its time for.
    [TestCase(true)]
    [TestCase(false)]
    public void Truncation_OfABigFile_IsForAnotherThread(bool isByOpening)
    {
        string path = Path.Combine(_shared, "file");
        File.WriteAllText(path, "some text");
        using FuseServer server = NewServer();
        using var pool = new RequestPool(server, 1);
        using var device = new FuseDevice(server, pool);
        using var ring = new DeviceRing(device, 0);
        const uint atomicTruncate = 1 << 3;
        Ask(ring, FuseDevice.Request(26, 0, [.. Bytes(7U, 39U, 0U, atomicTruncate), .. new byte[48]]), 64);
        ulong node = U64(Ask(ring, FuseDevice.Request(1, 1, Name("file")), EntrySize), 0);
        void Truncate()
        {
            if (isByOpening)
                Ask(ring, FuseDevice.Request(14, node, Bytes(0x201U, 0U)), 16);     // O_TRUNC | O_WRONLY
            else
                Ask(ring, FuseDevice.Request(4, node, [.. Bytes(8U, 0U), .. new byte[80]]), AttributesSize);      // FATTR_SIZE
            Assert.That(new FileInfo(path).Length, Is.Zero);
        }
        Truncate();
        Assert.That(pool.Count, Is.Zero);
        using (FileStream file = File.OpenWrite(path))
            file.SetLength(65 << 20);
        Truncate();
        Assert.That(pool.Count, Is.EqualTo(1));
    }

    private FuseServer NewServer() => new(new FileSystemOptions { Directory = _shared, Xattr = false, PoolSize = 0, KillPrivileges = false });

    private static byte[] Ask(DeviceRing ring, byte[] request, int room)
    {
        bool hasReply = room > 0;
        ring.Add(request, [40], hasReply ? 16 + room : 0);
        byte[] reply = ring.Await();
        if (!hasReply)
            return reply;
        Assert.That(MemoryMarshal.Read<int>(reply.AsSpan(4)), Is.Zero);
        return reply[16..];
    }
}
