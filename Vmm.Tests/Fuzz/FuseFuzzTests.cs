using System.Runtime.InteropServices;
using NUnit.Framework;
using Vmm.Devices.Backends.FileSystem;
using Vmm.Tests.Devices.Backends;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost.User.Backend;

namespace Vmm.Tests.Fuzz;

/// <summary>FUSE requests with any contents: good ones that were changed, in any order, on a directory that is thrown away.</summary>
[NonParallelizable]   // it counts descriptors
public sealed class FuseFuzzTests
{
    private const int RequestsOfARun = 50;

    private static readonly string[] s_names = ["a", "b", "c", "directory", "link", "fifo", ".", "..", "", "a/b", "/etc/passwd", "../x", new('n', 255), new('n', 300)];

    [Test]
    public void Requests_OfAnyContents_AreAnswered()
    {
        string scratch = Directory.CreateTempSubdirectory("vmm-fuzz-").FullName;
        string shared = Directory.CreateDirectory(Path.Combine(scratch, "shared")).FullName;
        string outside = Path.Combine(scratch, "outside");
        File.WriteAllText(outside, "untouched");
        try
        {
            // Without extended attributes, which need a process of their own.
            using var server = new FuseServer(new FileSystemOptions { Directory = shared, Xattr = false, PoolSize = 0, KillPrivileges = false });
            int answered = 0;
            FuzzRun.All(1000, random => answered += RunOne(random, server, outside));
            TestContext.Out.WriteLine($"{answered} requests without an error");
            Assert.That(answered, Is.GreaterThan(0), "some are good enough");
            server.Reset();
            Assert.That(server.Count, Is.EqualTo((1, 0, 0)), "files, descriptors and openings after a reset");
            Assert.That(File.ReadAllText(outside), Is.EqualTo("untouched"));
            Assert.That(Directory.GetFileSystemEntries(scratch), Has.Length.EqualTo(2));
        }
        finally
        {
            HostCommand.Run("rm", "-rf", scratch);   // names of any bytes
        }
    }

    private static int RunOne(Random random, FuseServer server, string outside)
    {
        using var pool = new RequestPool(server, 0);
        using var device = new Device(server, pool);
        using var ring = new DeviceRing(device, 0);
        int good = 0;
        ring.Add(Request(26, 0, [7, 0, 0, 0, 39, 0, 0, 0, .. new byte[56]]), [40], 80);
        for (int i = 0; i < RequestsOfARun; i++)
        {
            byte[] request = Make(random, outside);
            int room = random.Next(8) == 0 ? random.Next(200) : 16 + random.Next(1, 5000);
            ring.Add(request, [random.Next(1, 40), random.Next(1, 60)], random.Next(10) == 0 ? 0 : room);
            ring.Process();
            while (ring.Take() is byte[] reply)
            {
                if (reply.Length == 0)
                    continue;
                Assert.That(reply, Has.Length.GreaterThanOrEqualTo(16));
                Assert.That(MemoryMarshal.Read<int>(reply), Is.EqualTo(reply.Length), "the reply's length");
                int error = MemoryMarshal.Read<int>(reply.AsSpan(4));
                Assert.That(error, Is.InRange(-4095, 0));
                good += error == 0 ? 1 : 0;
            }
        }
        return good;
    }

    private static byte[] Make(Random random, string outside)
    {
        uint code = random.Next(20) == 0 ? (uint)random.Next() : (uint)random.Next(1, 54);
        // There must be files for the others to work with.
        if (random.Next(3) == 0 || (code is 26 or 36 or 38 && random.Next(10) != 0))
            code = random.Next(5) switch { 0 => 35, 1 => 9, 2 => 6, 3 => 14, _ => 1 };
        ulong node = random.Next(12) switch { 0 => (ulong)random.NextInt64(), < 6 => 1, _ => (ulong)random.Next(1, 12) };
        var arguments = new List<byte>();
        int numbers = code switch { 1 or 10 or 11 => 0, 6 => 0, 9 or 12 or 13 or 14 or 27 or 3 => 1, 8 or 35 or 45 or 51 => 2, 15 or 16 or 28 or 44 => 5, 4 => 11, 31 or 32 or 33 => 6, _ => random.Next(8) };
        for (int i = 0; i < numbers; i++)
        {
            ulong number = random.Next(5) switch { 0 => (ulong)random.NextInt64(), 1 => ulong.MaxValue, 2 => 1UL << random.Next(64), _ => (ulong)random.Next(12) };
            if (code is 9 or 8 or 35 && i == 0)
                number = random.Next(2) == 0 ? 0x42 | 0x81A4UL << 32 : 0x1ED;
            arguments.AddRange(BitConverter.GetBytes(number));
        }
        for (int i = random.Next(1, 3); i > 0 && code is 1 or 6 or 8 or 9 or 10 or 11 or 12 or 13 or 35 or 45 or 51; i--)
        {
            string name = random.Next(30) == 0 ? outside : s_names[random.Next(random.Next(3) == 0 ? s_names.Length : 6)];
            arguments.AddRange(System.Text.Encoding.UTF8.GetBytes(name));
            arguments.Add(0);
        }
        if (code == 16)
            arguments.AddRange(new byte[random.Next(3000)]);
        byte[] request = Request(code, node, [.. arguments]);
        // A file does not become larger than this test can have.
        if (code is 4 or 16 or 43 or 47)
            CutSizes(request);
        for (int i = random.Next(3) == 0 ? random.Next(4) : 0; i > 0; i--)
            request[random.Next(request.Length)] = (byte)random.Next(256);
        return random.Next(30) == 0 ? request[..random.Next(1, request.Length)] : request;
    }

    private static void CutSizes(byte[] request)
    {
        Span<ulong> words = MemoryMarshal.Cast<byte, ulong>(request.AsSpan(40));
        foreach (ref ulong word in words)
            word &= 0xFF_FFFF;
    }

    private static byte[] Request(uint code, ulong node, byte[] arguments) =>
    [
        .. BitConverter.GetBytes(40 + arguments.Length), .. BitConverter.GetBytes(code), .. BitConverter.GetBytes(1UL), .. BitConverter.GetBytes(node), .. new byte[16],
        .. arguments,
    ];

    private sealed class Device(FuseServer server, RequestPool pool) : VhostUserDevice, IDisposable
    {
        public override string Name => "fs";

        public override ulong Features => 0;

        public override int RingCount => 1;

        public override IRingHandler StartRing(BackendRing ring) => new FileSystemRing(server, pool);

        public void Dispose() => server.Reset();
    }
}
