using System.Runtime.InteropServices;
using System.Runtime.Versioning;
using System.Text;
using NUnit.Framework;
using Vmm.Devices.Backends.FileSystem;
using Vmm.Tests.Devices.Backends;
using Vmm.Tests.Devices.Backends.FileSystem;
using Vmm.Tests.Integration.Linux.Devices;

namespace Vmm.Tests.Fuzz;

/// <summary>FUSE requests with any contents: good ones that were changed, in any order, on a directory that is thrown away.</summary>
[SupportedOSPlatform("linux")]
[NonParallelizable]   // it counts descriptors
public sealed class FuseFuzzTests
{
    private const int RequestsOfARun = 50;
    private const string Secret = "what is outside";

    private static readonly string[] s_swapped = ["a", "b", "c", "directory"];     // one component: the guest may make links of others that lead this test itself out
    private static readonly string[] s_names = ["a", "b", "c", "directory", "link", "fifo", ".", "..", "", "a/b", "/etc/passwd", "../x", new('n', 255), new('n', 300)];

    private string _scratch = "";
    private string _outside = "";

    [SetUp]
    public void MakeDirectories()
    {
        _scratch = Directory.CreateTempSubdirectory("vmm-fuzz-").FullName;
        _outside = Directory.CreateDirectory(Path.Combine(_scratch, "outside")).FullName;
        Directory.CreateDirectory(Path.Combine(_scratch, "shared"));
        File.WriteAllText(Path.Combine(_outside, "b"), Secret);
        File.SetUnixFileMode(Path.Combine(_outside, "b"), (UnixFileMode)0x180);
        File.SetLastWriteTimeUtc(Path.Combine(_outside, "b"), DateTime.UnixEpoch);
        Directory.SetLastWriteTimeUtc(_outside, DateTime.UnixEpoch);
    }

    [TearDown]
    public void RemoveDirectories() => HostCommand.Run("rm", "-rf", _scratch);   // names of any bytes

    [Test]
    public void Requests_OfAnyContents_AreAnswered() => RunAll(1000);

    // A process of the host puts links that lead out in the place of what the guest knows, all the time. Nothing but the server's own checks holds here: this process is not confined.
    [Test]
    public void Requests_WhileTheHostSwapsLinks_LeadNowhere()
    {
        using var end = new CancellationTokenSource();
        int swaps = 0;
        var host = new Thread(() =>
        {
            for (; !end.IsCancellationRequested; swaps++)
                Swap(swaps);
        });
        host.Start();
        try
        {
            RunAll(1000);
        }
        finally
        {
            end.Cancel();
            host.Join();
        }
        TestContext.Out.WriteLine($"{swaps} times swapped");
        Assert.That(swaps, Is.GreaterThan(100));
    }

    private void RunAll(int runs)
    {
        // Without extended attributes, which need a process of their own.
        using var server = new FuseServer(new FileSystemOptions { Directory = Path.Combine(_scratch, "shared"), Xattr = false, PoolSize = 0, KillPrivileges = false });
        int answered = 0;
        FuzzRun.All(runs, random => answered += RunOne(random, server, Path.Combine(_outside, "b")));
        TestContext.Out.WriteLine($"{answered} requests without an error");
        Assert.That(answered, Is.GreaterThan(0), "some are good enough");
        server.Reset();
        Assert.That(server.Count, Is.EqualTo((1, 0, 0)), "files, descriptors and openings after a reset");
        var file = new FileInfo(Path.Combine(_outside, "b"));
        Assert.That((File.ReadAllText(file.FullName), file.LastWriteTimeUtc, file.UnixFileMode), Is.EqualTo((Secret, DateTime.UnixEpoch, (UnixFileMode)0x180)));
        Assert.That(Directory.GetLastWriteTimeUtc(_outside), Is.EqualTo(DateTime.UnixEpoch), "nothing was made or removed there");
        Assert.That(Directory.GetFileSystemEntries(_outside), Has.Length.EqualTo(1));
        Assert.That(Directory.GetFileSystemEntries(_scratch), Has.Length.EqualTo(2));
    }

    // A name becomes a link that leads out, for a moment: a directory, or the file in it.
    private void Swap(int turn)
    {
        string shared = Path.Combine(_scratch, "shared"), away = Path.Combine(shared, "away");
        string name = Path.Combine(shared, s_swapped[turn % s_swapped.Length]);
        try
        {
            bool isDirectory = Directory.Exists(name);
            if (isDirectory)
                Directory.Move(name, away);
            else
                File.Move(name, away, overwrite: true);
            File.CreateSymbolicLink(name, turn % 2 == 0 ? _outside : Path.Combine(_outside, "b"));
            File.Delete(name);
            if (isDirectory)
                Directory.Move(away, name);
            else
                File.Move(away, name);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The guest was faster: there is no such file, or there is another.
        }
    }

    private static int RunOne(Random random, FuseServer server, string outside)
    {
        // With threads of a pool, too, which do what may wait.
        using var pool = new RequestPool(server, random.Next(4) == 0 ? 2 : 0);
        using var device = new FuseDevice(server, pool);
        using var ring = new DeviceRing(device, 0);
        int good = 0;
        ring.Add(FuseDevice.Init, [40], 80);
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
                Assert.That(reply.AsSpan().IndexOf(Encoding.ASCII.GetBytes(Secret)), Is.Negative, "what is outside");
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
            arguments.AddRange(Encoding.UTF8.GetBytes(name));
            arguments.Add(0);
        }
        if (code == 16)
            arguments.AddRange(new byte[random.Next(3000)]);
        byte[] request = FuseDevice.Request(code, node, [.. arguments]);
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
}
