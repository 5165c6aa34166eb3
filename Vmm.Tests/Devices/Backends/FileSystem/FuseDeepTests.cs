using System.Runtime.InteropServices;
using NUnit.Framework;
using Vmm.Devices.Backends.FileSystem;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost.Native.FileSystem;
using static Vmm.Tests.Conformance.FuseClient;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>What a guest can make the process keep and do by directories that are nested deep, in this process.</summary>
[NonParallelizable]   // it looks at the memory and the processor time of this process
public sealed class FuseDeepTests
{
    private const int EntrySize = 128, AttributesSize = 104, Stale = -116;
    private const uint Lookup = 1, Forget = 2, GetAttributes = 3, MakeDirectory = 9, RemoveDirectory = 11, Rename = 12, Open = 14, Init = 26, Create = 35;

    private string _shared = "";
    private Guest _guest = null!;

    [SetUp]
    public void Begin()
    {
        _shared = Directory.CreateTempSubdirectory("vmm-test-").FullName;
        _guest = new Guest(_shared);
    }

    [TearDown]
    public void End()
    {
        _guest?.Dispose();
        HostCommand.Run("rm", "-rf", _shared);      // paths are too long for others
    }

    // A guest can do so without end.
    [TestCase(false)]
    [TestCase(true)]
    public void Directories_ThatAreForgottenAboveAFile_AreKeptOnce(bool isOnlyOpen)
    {
        const int depth = 40, rounds = 500;
        ulong[] first = Walk(depth, isMade: true);
        (ulong leaf, _) = MakeFile(first[^1]);
        ForgetAll(first);
        Assert.That((_guest.Server.Count.Files, _guest.Server.CountKept()), Is.EqualTo((2, depth)));
        long before = GC.GetTotalMemory(forceFullCollection: true);
        for (int round = 0; round < rounds; round++)
        {
            ulong[] nodes = Walk(depth);
            if (isOnlyOpen)
            {
                ulong again = U64(_guest.Demand(Lookup, nodes[^1], Name("file"), EntrySize), 0);
                _guest.Demand(Open, again, Bytes(0U, 0U), 16);
                _guest.Forget(again, round == 0 ? 2UL : 1);
            }
            else
            {
                Assert.That(nodes, Is.EqualTo(first), "each has the number that it had");
            }
            ForgetAll(nodes);
        }
        Assert.That(GC.GetTotalMemory(forceFullCollection: true) - before, Is.LessThan(1 << 20), "bytes");
        Assert.That(_guest.Try(GetAttributes, first[0], Bytes(0UL, 0UL)), Is.EqualTo(Stale), "one that is forgotten");
        Assert.That(_guest.Try(GetAttributes, leaf, Bytes(0UL, 0UL)), Is.EqualTo(isOnlyOpen ? Stale : 0));
        _guest.Forget(leaf, 1);
        Assert.That((_guest.Server.Count.Files, _guest.Server.CountKept()), Is.EqualTo((1, 0)));
        Assert.That(Walk(1)[0], Is.GreaterThan(leaf), "no number is given out for another file");
    }

    [Test]
    public void Directory_ThatIsForgottenAndRenamed_LeadsToWhatIsBelow()
    {
        ulong[] nodes = Walk(3, isMade: true);
        (ulong leaf, _) = MakeFile(nodes[^1]);
        _guest.Forget(nodes[0], 1);
        Assert.That(_guest.Try(RemoveDirectory, FuseGuest.Root, Name("d")), Is.EqualTo(-39), "ENOTEMPTY");
        Assert.That(_guest.Try(GetAttributes, leaf, Bytes(0UL, 0UL)), Is.Zero);
        ForgetAll(nodes[1..]);
        _guest.Demand(Rename, FuseGuest.Root, [.. Bytes(FuseGuest.Root), .. Name("d"), .. Name("other")]);
        Assert.That(_guest.Try(GetAttributes, leaf, Bytes(0UL, 0UL)), Is.Zero);
        Assert.That(U64(_guest.Demand(Lookup, FuseGuest.Root, Name("other"), EntrySize), 0), Is.EqualTo(nodes[0]));
        _guest.Forget(nodes[0], 1);
        _guest.Forget(leaf, 1);
        Assert.That(_guest.Server.CountKept(), Is.Zero);
    }

    // A directory that is gone is of no use for a file that was in it, and those above are not, either.
    [Test]
    public void Directories_ThatAreForgottenAndRemoved_AreNotKept()
    {
        const int depth = 10;
        ulong[] nodes = Walk(depth, isMade: true);
        (ulong leaf, _) = MakeFile(nodes[^1]);
        ForgetAll(nodes);
        nodes = Walk(depth);
        _guest.Demand(10, nodes[^1], Name("file"));
        for (int i = depth - 1; i > 0; i--)
        {
            _guest.Forget(nodes[i], 1);
            _guest.Demand(RemoveDirectory, nodes[i - 1], Name("d"));
        }
        _guest.Forget(nodes[0], 1);
        Assert.That(_guest.Server.CountKept(), Is.EqualTo(1), "the one in which the file was");
        Assert.That(_guest.Try(GetAttributes, leaf, Bytes(0UL, 0UL)), Is.Zero);
        _guest.Forget(leaf, 1);
        Assert.That(_guest.Server.CountKept(), Is.Zero);
    }

    [Test]
    public void Directories_ThatTheHostTurnsInsideOut_MakeNoCircle()
    {
        ulong[] nodes = Walk(2, isMade: true);
        Assert.That(_guest.Try(GetAttributes, nodes[1], Bytes(0UL, 0UL)), Is.Zero, "it is open from now on");
        Directory.Move(Path.Combine(_shared, "d/d"), Path.Combine(_shared, "inner"));
        Directory.Move(Path.Combine(_shared, "d"), Path.Combine(_shared, "inner/outer"));
        Assert.That(U64(_guest.Demand(Lookup, nodes[1], Name("outer"), EntrySize), 0), Is.EqualTo(nodes[0]));
        Assert.That(_guest.Try(GetAttributes, nodes[0], Bytes(0UL, 0UL)), Is.Zero);
        _guest.Forget(nodes[0], 2);
        _guest.Forget(nodes[1], 1);
        Assert.That((_guest.Server.Count.Files, _guest.Server.CountKept()), Is.EqualTo((1, 0)));
    }

    // Each of the files has 3000 names above it.
    [Test]
    public void State_OfManyOpenFilesThatAreDeep_IsSavedAndLoadedInNoTime()
    {
        const int depth = 3000, files = 3000;
        ulong[] nodes = Walk(depth, isMade: true);
        (ulong Node, ulong Handle)[] open = [.. Enumerable.Range(0, files).Select(i => MakeFile(nodes[^1], $"file{i}"))];
        byte[]? state = null;
        AssertQuick(1, () => state = _guest.Server.Save());
        using var target = new Guest(_shared);
        AssertQuick(1, () => Assert.That(target.Server.Load(state)));
        Assert.That(target.Server.Count, Is.EqualTo((1 + depth + files, files, files)));
        Assert.That(target.Try(GetAttributes, open[^1].Node, Bytes(0UL, 0UL)), Is.Zero);
        foreach (ulong node in nodes)
            target.Forget(node, 1);
        Assert.That(target.Server.CountKept(), Is.EqualTo(depth));
        foreach ((ulong node, _) in open)
            target.Forget(node, 1);
        Assert.That((target.Server.Count.Files, target.Server.CountKept()), Is.EqualTo((1, 0)));
    }

    // In another directory, where each file is looked for by its path.
    [Test]
    public void State_OfDirectoriesThatAreNone_IsLoadedInNoTime()
    {
        const int directories = 100_000;
        Inode[] nested = [.. Enumerable.Range(2, directories).Select(id => NewDirectory((ulong)id))];
        for (int i = 1; i < directories; i++)
            nested[i].Parent = nested[i - 1];
        byte[] state = StateOf(new InodeIdentity(1, 1, 1), nested);
        AssertQuick(3, () => Assert.That(_guest.Server.Load(state)));
        foreach (ulong node in (ulong[])[2, 3, directories])
            Assert.That(_guest.Try(GetAttributes, node, Bytes(0UL, 0UL)), Is.EqualTo(Stale));
        AssertQuick(1, () => _guest.Server.Save());
        ForgetAll(nested.Select(inode => inode.Id));
        Assert.That((_guest.Server.Count.Files, _guest.Server.CountKept()), Is.EqualTo((1, 0)));
    }

    [Test]
    public void State_OfDirectoriesThatMakeACircle_LeavesNothing()
    {
        Inode[] circle = [NewDirectory(2), NewDirectory(3), NewDirectory(4), NewDirectory(5)];
        (circle[0].Parent, circle[1].Parent, circle[2].Parent, circle[3].Parent) = (circle[1], circle[0], circle[2], circle[0]);
        // Of this very directory.
        const int device = 8, number = 16, mount = 56;
        byte[] here = _guest.Server.Save()!;
        byte[] state = StateOf(new InodeIdentity(U64(here, device), U64(here, number), U64(here, mount)), circle);
        Assert.That(_guest.Server.Load(state));
        Assert.That((_guest.Server.Count.Files, _guest.Server.CountKept()), Is.EqualTo((5, 0)));
        foreach (Inode inode in circle)
            Assert.That(_guest.Try(GetAttributes, inode.Id, Bytes(0UL, 0UL)), Is.EqualTo(Stale));
        ForgetAll(circle.Select(inode => inode.Id));
        Assert.That((_guest.Server.Count.Files, _guest.Server.CountKept()), Is.EqualTo((1, 0)));
    }

    // The rest of a long name stands apart.
    [Test]
    public void State_WhoseFilesHaveARestOfANameInCommon_HasOneOfThem()
    {
        const int files = 4;
        var named = new Inode(2, new InodeIdentity(1, 2, 1), default, FileStatus.RegularFile) { Lookups = 1, Name = Name(new string('n', 1000)) };
        Inode[] all = [named, .. Enumerable.Range(3, files).Select(id => new Inode((ulong)id, default, default, FileStatus.RegularFile) { Lookups = 1, Name = Name("short") })];
        byte[] state = StateOf(new InodeIdentity(1, 1, 1), all);
        const int nameLength = 72;      // and then where its rest stands, and its start
        int first = SessionTable.HeaderRoom, slots = SessionTable.SlotsOf(named);
        for (int i = 0; i < files; i++)
            state.AsSpan(first + nameLength, SessionTable.SlotSize - nameLength).CopyTo(state.AsSpan(first + (slots + i) * SessionTable.SlotSize + nameLength));
        var table = new SessionTable(() => state);
        Assert.That(table.Load().Files.Select(file => file.Id), Is.EqualTo(new[] { 2UL }));
    }

    // Those of one file are in a list.
    [Test]
    public void Openings_OfOneFile_EndInNoTime()
    {
        const int openings = 15_000;
        (ulong node, _) = MakeFile(FuseGuest.Root);
        for (int i = 0; i < openings; i++)
            _guest.Demand(Open, node, Bytes(0U, 0U), 16);
        AssertQuick(0.3, _guest.Server.Reset);
        Assert.That(_guest.Server.Count, Is.EqualTo((1, 0, 0)));
    }

    private static void AssertQuick(double seconds, Action act)
    {
        TimeSpan before = Environment.CpuUsage.TotalTime;
        act();
        TimeSpan taken = Environment.CpuUsage.TotalTime - before;
        TestContext.Out.WriteLine($"{taken.TotalSeconds:0.000} s of processor time");
        Assert.That(taken, Is.LessThan(TimeSpan.FromSeconds(seconds)));
    }

    // The state of a guest that knows these.
    private static byte[] StateOf(InodeIdentity root, Inode[] files)
    {
        byte[] state = new byte[SessionTable.HeaderRoom + SessionTable.SlotSize * files.Sum(SessionTable.SlotsOf)];
        var table = new SessionTable(() => state);
        table.Clear();
        foreach (Inode file in files)
            table.Add(file);
        table.Begin(in root, default, 0);
        return state;
    }

    private static Inode NewDirectory(ulong id) => new(id, new InodeIdentity(1, id, 1), default, FileStatus.Directory) { Lookups = 1, Name = Name("d") };

    private ulong[] Walk(int depth, bool isMade = false)
    {
        ulong[] nodes = new ulong[depth];
        ulong node = FuseGuest.Root;
        for (int i = 0; i < depth; i++)
            nodes[i] = node = U64(isMade ? _guest.Demand(MakeDirectory, node, [.. Bytes(0x1EDU, 0U), .. Name("d")], EntrySize) : _guest.Demand(Lookup, node, Name("d"), EntrySize), 0);
        return nodes;
    }

    private (ulong Node, ulong Handle) MakeFile(ulong parent, string name = "file")
    {
        byte[] reply = _guest.Demand(Create, parent, [.. Bytes(0x42U, 0x81A4U, 0U, 0U), .. Name(name)], EntrySize + 16);
        return (U64(reply, 0), U64(reply, EntrySize));
    }

    private void ForgetAll(IEnumerable<ulong> nodes)
    {
        foreach (ulong node in nodes)
            _guest.Forget(node, 1);
    }

    // With a server of its own.
    private sealed class Guest : IDisposable
    {
        private readonly RequestPool _pool;
        private readonly FuseDevice _device;
        private readonly DeviceRing _ring;

        public Guest(string directory)
        {
            Server = new FuseServer(new FileSystemOptions { Directory = directory, Xattr = false, PoolSize = 0, KillPrivileges = false });
            _pool = new RequestPool(Server, 0);
            _device = new FuseDevice(Server, _pool);
            _ring = new DeviceRing(_device, 0);
            Demand(Init, 0, [.. Bytes(7U, 39U, 0U, 0U), .. new byte[48]], 64);
        }

        public FuseServer Server { get; }

        public int Try(uint code, ulong node, byte[] arguments, int room = AttributesSize) => MemoryMarshal.Read<int>(Ask(code, node, arguments, 16 + room).AsSpan(4));

        public byte[] Demand(uint code, ulong node, byte[] arguments, int room = 0)
        {
            byte[] reply = Ask(code, node, arguments, 16 + room);
            Assert.That(MemoryMarshal.Read<int>(reply.AsSpan(4)), Is.Zero, $"request {code}");
            return reply[16..];
        }

        public void Forget(ulong node, ulong lookups) => Ask(FuseDeepTests.Forget, node, Bytes(lookups), 0);

        public void Dispose()
        {
            _ring.Dispose();
            _device.Dispose();
            _pool.Dispose();
            Server.Dispose();
        }

        private byte[] Ask(uint code, ulong node, byte[] arguments, int room)
        {
            _ring.Add(FuseDevice.Request(code, node, arguments), [40], room);
            return _ring.Await();
        }
    }
}
