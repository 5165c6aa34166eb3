using System.Diagnostics;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using System.Runtime.Versioning;
using System.Text;
using NUnit.Framework;
using Vmm.Devices.Backends.FileSystem;
using Vmm.Tests.Devices.Backends;
using Vmm.Tests.Devices.Backends.FileSystem;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Tests.Fuzz;

/// <summary>FUSE requests with any contents: good ones that were changed, in any order, on a directory that is thrown away.</summary>
[SupportedOSPlatform("linux")]
[NonParallelizable]   // it counts descriptors
public sealed class FuseFuzzTests
{
    private const int RequestsOfARun = 250;      // on each ring
    private const int RingSize = 1024;          // descriptors for all of them: one that waits for a lock does so until the end of the run
    private const int RunsOfTwoRings = 8;       // one of so many
    private const string Secret = "what is outside";
    private const int WindowPages = 256;

    private static ReadOnlySpan<byte> SecretBytes => "what is outside"u8;

    private static readonly string[] s_swapped = ["a", "b", "c", "directory"];     // one component: the guest may make links of others that lead this test itself out
    private static readonly string[] s_names = ["a", "b", "c", "directory", "link", "fifo", ".", "..", "", "a/b", "/etc/passwd", "../x", new('n', 255), new('n', 300)];

    private static readonly string[] s_attributes =
        ["user.a", "user.b", "trusted.a", "security.capability", "system.posix_acl_access", "system.posix_acl_default", "a", "", new('n', 255), new('n', 300)];

    private string _scratch = "";
    private string _outside = "";
    private string _before = "";
    private long _requests;

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
        // As the process of a back-end has it: calls for extended attributes take paths.
        _before = Directory.GetCurrentDirectory();
        using FileDescriptor links = FileTree.OpenDirectory("/proc/self/fd");
        FileTree.Enter(links);
    }

    [TearDown]
    public void RemoveDirectories()
    {
        Directory.SetCurrentDirectory(_before);
        HostCommand.Run("rm", "-rf", _scratch);   // names of any bytes
    }

    [Test]
    public void Requests_OfAnyContents_AreAnswered() => RunAll(200);

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
            RunAll(200);
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
        ulong secret = Number(Path.Combine(_outside, "b"));
        using var frontEnd = new FakeDaxFrontEnd(WindowPages * 4096) { MayMap = file => IsOther(file, secret) };
        var options = new FileSystemOptions { Directory = Path.Combine(_scratch, "shared"), PoolSize = 0, KillPrivileges = false, DaxWindow = WindowPages * 4096 };
        using var server = new FuseServer(options) { FrontEnd = () => frontEnd.Channel };
        var answered = new int[64];
        int mapped = 0;
        _requests = 0;
        TimeSpan before = Environment.CpuUsage.TotalTime;
        long start = Stopwatch.GetTimestamp();
        FuzzRun.All(runs, random =>
        {
            RunOne(random, server, Path.Combine(_outside, "b"), answered);
            // The device was reset.
            mapped += frontEnd.Mapped.Length;
            frontEnd.Clear();
        });
        double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds, computed = (Environment.CpuUsage.TotalTime - before).TotalSeconds;
        TestContext.Out.WriteLine($"FUSE requests: {_requests} in {seconds:0.0} s, {_requests / seconds:0} per second; {_requests / computed:0} per second of processor time");
        TestContext.Out.WriteLine($"{answered.Sum()} requests without an error, {mapped} pieces of files mapped at the end of a run; by request: {string.Join(' ', answered)}");
        Assert.Multiple(() =>
        {
            Assert.That(answered.Sum(), Is.GreaterThan(0), "some are good enough");
            foreach (int code in (int[])[14, 15, 16, 21, 22, 23, 24, 27, 48, 49])
                Assert.That(answered[code], Is.GreaterThan(0), $"request {code}");
            Assert.That(mapped, Is.GreaterThan(0));
            Assert.That(frontEnd.Refused, Is.Empty);
        });
        server.Reset();
        Assert.That(server.Count, Is.EqualTo((1, 0, 0)), "files, descriptors and openings after a reset");
        var file = new FileInfo(Path.Combine(_outside, "b"));
        Assert.That((File.ReadAllText(file.FullName), file.LastWriteTimeUtc, file.UnixFileMode), Is.EqualTo((Secret, DateTime.UnixEpoch, (UnixFileMode)0x180)));
        Assert.That(Directory.GetLastWriteTimeUtc(_outside), Is.EqualTo(DateTime.UnixEpoch), "nothing was made or removed there");
        Assert.That(Directory.GetFileSystemEntries(_outside), Has.Length.EqualTo(1));
        Assert.That(Directory.GetFileSystemEntries(_scratch), Has.Length.EqualTo(2));
        foreach (string path in (string[])[_outside, Path.Combine(_outside, "b")])
        {
            using FileDescriptor descriptor = FileTree.OpenDirectory(Path.GetDirectoryName(path)!);
            using HeldDescriptor directory = descriptor.Hold();
            using var opened = new FileDescriptor(FileTree.Open(in directory, Encoding.UTF8.GetBytes(Path.GetFileName(path) + "\0"), FileTree.PathOnly));
            using HeldDescriptor held = opened.Hold();
            Assert.That(ExtendedAttributes.List(in held, new byte[1024]), Is.Zero.Or.EqualTo(-Errnos.Eopnotsupp), $"extended attributes of {path}");
        }
    }

    // The window is for files of the directory.
    private static bool IsOther(FileDescriptor file, ulong secret)
    {
        using HeldDescriptor held = file.Hold();
        return FileTree.GetStatus(in held, out FileStatus status) == 0 && status.IsRegular && status.Inode != secret;
    }

    private static ulong Number(string path)
    {
        using FileDescriptor file = FileDescriptor.Open(path, OpenMode.ReadOnly);
        using HeldDescriptor held = file.Hold();
        Assert.That(FileTree.GetStatus(in held, out FileStatus status), Is.Zero);
        return status.Inode;
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

    // Adds up in answered how many requests of each kind had no error.
    private void RunOne(Random random, FuseServer server, string outside, int[] answered)
    {
        // With threads of a pool, too, which do what may wait.
        using var pool = new RequestPool(server, random.Next(4) == 0 ? 2 : 0);
        using var device = new FuseDevice(server, pool);
        using var ring = new DeviceRing(device, 0, size: RingSize);
        var known = new KnownNumbers();
        ring.Add(FuseDevice.Init, [40], 80);
        if (random.Next(RunsOfTwoRings) != 0)
        {
            Send(random, ring, outside, known, answered);
            return;
        }
        // On a second ring another thread asks for the same files.
        using var second = new DeviceRing(device, 1, size: RingSize);
        var others = new Random(random.Next());
        Exception? thrown = null;
        var thread = new Thread(() =>
        {
            try
            {
                Send(others, second, outside, known, answered);
            }
            catch (Exception e)
            {
                thrown = e;
            }
        });
        thread.Start();
        try
        {
            Send(random, ring, outside, known, answered);
        }
        finally
        {
            thread.Join();
        }
        if (thrown is not null)
            ExceptionDispatchInfo.Throw(thrown);
    }

    private void Send(Random random, DeviceRing ring, string outside, KnownNumbers known, int[] answered)
    {
        for (int i = 0; i < RequestsOfARun; i++)
        {
            byte[] request = Make(random, outside, known);
            int room = random.Next(8) == 0 ? random.Next(200) : 16 + random.Next(1, 5000);
            ring.Add(request, [random.Next(1, 40), random.Next(1, 60)], random.Next(10) == 0 ? 0 : room);
            ring.Process();
            while (ring.Take() is byte[] reply)
            {
                if (reply.Length == 0)
                    continue;
                // A constraint for each would take longer than most requests.
                if (reply.Length < 16 || MemoryMarshal.Read<int>(reply) != reply.Length)
                    Assert.Fail($"a reply of {reply.Length} bytes does not say its length: {Convert.ToHexString(reply)}");
                int error = MemoryMarshal.Read<int>(reply.AsSpan(4));
                if (error is < -4095 or > 0)
                    Assert.Fail($"{error} is no error number");
                if (reply.AsSpan().IndexOf(SecretBytes) >= 0)
                    Assert.Fail("the guest has read what is outside");
                // Its number is the kind of request, unless that was changed: then it counts for none.
                ulong kind = MemoryMarshal.Read<ulong>(reply.AsSpan(8));
                if (error != 0 || kind >= (ulong)answered.Length)
                    continue;
                Interlocked.Increment(ref answered[kind]);
                known.Learn((uint)kind, reply);
            }
        }
        Interlocked.Add(ref _requests, RequestsOfARun);
    }

    private static byte[] Make(Random random, string outside, KnownNumbers known)
    {
        uint code = random.Next(20) == 0 ? (uint)random.Next() : (uint)random.Next(1, 54);
        // There must be files for the others to work with.
        if (random.Next(3) == 0 || (code is 36 or 38 && random.Next(10) != 0) || (code == 26 && random.Next(3) != 0))
            code = random.Next(6) switch { 0 => 35, 1 => 9, 2 => 6, 3 => 14, 4 => random.Next(3) == 0 ? 49U : 48U, _ => 1 };
        ulong node = random.Next(12) switch { 0 => (ulong)random.NextInt64(), < 5 => 1, _ => known.Node(random) };
        if (code == 48 && random.Next(4) != 0)
            node = known.File(random);
        // One of two new sessions is a good one.
        if (code == 26 && random.Next(2) == 0)
            return Numbered(FuseDevice.Init, code);
        var arguments = new List<byte>();
        int numbers = code switch { 1 or 10 or 11 => 0, 6 => 0, 9 or 12 or 13 or 14 or 27 or 3 => 1, 8 or 35 or 45 or 51 => 2, 21 or 22 or 23 or 24 or 48 or 49 => 0, 15 or 16 or 28 or 44 => 5, 4 => 11, 31 or 32 or 33 => 6, _ => random.Next(8) };
        for (int i = 0; i < numbers; i++)
        {
            ulong number = random.Next(5) switch { 0 => (ulong)random.NextInt64(), 1 => ulong.MaxValue, 2 => 1UL << random.Next(64), _ => (ulong)random.Next(12) };
            if (code is 15 or 16 or 18 or 20 or 25 or 28 or 29 or 30 or 31 or 32 or 33 or 39 or 43 or 44 or 46 or 47 && i == 0 && random.Next(4) != 0)
                number = known.Handle(random);
            if (code is 9 or 8 or 35 && i == 0)
                number = random.Next(2) == 0 ? 0x42 | 0x81A4UL << 32 : 0x1ED;
            arguments.AddRange(BitConverter.GetBytes(number));
        }
        AddOwnArguments(random, code, arguments, known);
        for (int i = random.Next(1, 3); i > 0 && code is 1 or 6 or 8 or 9 or 10 or 11 or 12 or 13 or 35 or 45 or 51; i--)
        {
            string name = random.Next(30) == 0 ? outside : s_names[random.Next(random.Next(3) == 0 ? s_names.Length : 6)];
            // The directory stays for all runs: a name that is something else once is never a file again, most times.
            if (random.Next(6) != 0)
                name = code switch { 8 or 35 => s_names[random.Next(3)], 9 => "directory", 6 => "link", _ => name };
            arguments.AddRange(Encoding.UTF8.GetBytes(name));
            arguments.Add(0);
        }
        if (code == 16)
            arguments.AddRange(new byte[random.Next(3000)]);
        byte[] request = Numbered(FuseDevice.Request(code, node, [.. arguments]), code);
        // A file does not become larger than this test can have.
        if (code is 4 or 16 or 43 or 47)
            CutSizes(request);
        for (int i = random.Next(3) == 0 ? random.Next(4) : 0; i > 0; i--)
            request[random.Next(request.Length)] = (byte)random.Next(256);
        return random.Next(30) == 0 ? request[..random.Next(1, request.Length)] : request;
    }

    // By the request's number a reply says what it answers.
    private static byte[] Numbered(byte[] request, uint code)
    {
        BitConverter.TryWriteBytes(request.AsSpan(8), (ulong)code);
        return request;
    }

    // Of extended attributes, and of the window.
    private static void AddOwnArguments(Random random, uint code, List<byte> arguments, KnownNumbers known)
    {
        byte[] value = new byte[random.Next(30)];
        random.NextBytes(value);
        if (code == 21)
            arguments.AddRange([.. BitConverter.GetBytes(random.Next(10) == 0 ? random.Next() : value.Length), .. BitConverter.GetBytes(random.Next(4))]);
        if (code is 22 or 23)
            arguments.AddRange(BitConverter.GetBytes(random.Next(5) switch { 0 => 0UL, 1 => (ulong)random.NextInt64(), _ => (ulong)random.Next(5000) }));
        if (code is 21 or 22 or 24)
            arguments.AddRange([.. Encoding.UTF8.GetBytes(s_attributes[random.Next(random.Next(3) == 0 ? s_attributes.Length : 2)]), 0]);
        if (code == 21)
            arguments.AddRange(value);
        if (code == 48)
        {
            // Small ones at the window's start most times, so that they meet.
            ulong length = random.Next(8) == 0 ? Pages(random) : (ulong)random.Next(1, 8) * 4096, offset = random.Next(8) == 0 ? Pages(random) : (ulong)random.Next(8) * 4096;
            AddNumbers(random.Next(8) == 0 ? known.Handle(random) : ulong.MaxValue, random.Next(8) == 0 ? Pages(random) : 0, length, (ulong)random.Next(2), offset);
        }
        if (code != 49)
            return;
        int count = random.Next(1, 5);
        arguments.AddRange(BitConverter.GetBytes(random.Next(20) == 0 ? random.Next() : count));
        for (int i = 0; i < count; i++)
            AddNumbers(random.Next(12) == 0 ? 0 : Pages(random), random.Next(12) == 0 ? ulong.MaxValue : Pages(random));

        void AddNumbers(params ReadOnlySpan<ulong> numbers)
        {
            foreach (ulong number in numbers)
                arguments.AddRange(BitConverter.GetBytes(number));
        }
    }

    // Bytes of pages, most times: a few, or as many as the window may have.
    private static ulong Pages(Random random) => random.Next(12) switch
    {
        0 => (ulong)random.NextInt64(),
        1 => ulong.MaxValue - (ulong)random.Next(8192),
        2 => (ulong)random.Next(5000),
        < 8 => (ulong)random.Next(16) * 4096,
        _ => (ulong)random.Next(WindowPages + 2) * 4096,
    };

    private static void CutSizes(byte[] request)
    {
        Span<ulong> words = MemoryMarshal.Cast<byte, ulong>(request.AsSpan(40));
        foreach (ref ulong word in words)
            word &= 0xFF_FFFF;
    }

    // What the guest was told in a run, on any ring: a server counts its numbers up for all its life.
    private sealed class KnownNumbers
    {
        private readonly List<ulong> _nodes = [FuseGuest.Root];
        private readonly List<ulong> _files = [FuseGuest.Root];
        private readonly List<ulong> _handles = [0];

        public ulong Node(Random random) => OneOf(_nodes, random);

        public ulong File(Random random) => OneOf(_files, random);

        public ulong Handle(Random random) => OneOf(_handles, random);

        // Of a reply with an entry, an opening, or one behind the other.
        public void Learn(uint code, byte[] reply)
        {
            const int header = 16;
            bool hasEntry = code is 1 or 6 or 8 or 9 or 13 or 35 or 51;
            int handle = header + (hasEntry ? FuseGuest.EntrySize : 0);
            lock (_nodes)
            {
                if (hasEntry && reply.Length >= header + FuseGuest.EntrySize)
                    _nodes.Add(MemoryMarshal.Read<ulong>(reply.AsSpan(header)));
                if (code == 35 && reply.Length >= handle)
                    _files.Add(MemoryMarshal.Read<ulong>(reply.AsSpan(header)));
                if (code is 14 or 27 or 35 or 51 && reply.Length >= handle + sizeof(ulong))
                    _handles.Add(MemoryMarshal.Read<ulong>(reply.AsSpan(handle)));
            }
        }

        private ulong OneOf(List<ulong> numbers, Random random)
        {
            lock (_nodes)
                return numbers[random.Next(numbers.Count)];
        }
    }
}
