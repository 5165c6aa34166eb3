using System.Diagnostics;
using System.Runtime.Versioning;
using NUnit.Framework;
using Vmm.Devices.Backends.FileSystem;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration;
using Vmm.Tests.Integration.Linux.Devices;
using static Vmm.Tests.Conformance.FuseClient;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>What a guest has open, and what this costs the process.</summary>
[SupportedOSPlatform("linux")]
public class FuseOpeningTests : FileSystemTest
{
    private const int TooManyOpen = 24, Invalid = 22, Notempty = 39;
    private const uint Append = 0x400, FromCache = 1;

    [Test]
    public void Appending_IsForEachWriteToSay()
    {
        File.WriteAllText(In("file"), "0123456789");
        FuseGuest guest = Begin();
        ulong node = guest.Node("file"), handle = (ulong)guest.Open(node, Append | 2);
        Write(guest, node, handle, "a page", 0, Append);
        Assert.That(File.ReadAllText(In("file")), Is.EqualTo("0123456789a page"), "at the end, whatever the guest takes for it");
        Write(guest, node, handle, "PAGE", 2, 0);
        Write(guest, node, handle, "ab", 0, Append, FromCache);
        Assert.That(File.ReadAllText(In("file")), Is.EqualTo("abPAGE6789a page"), "what a cache writes back goes where it was");
    }

    [Test]
    public void Appending_ToAFileThatAllowsNothingElse_IsPossible()
    {
        RequireRoot();
        File.WriteAllText(In("log"), "one");
        if (HostCommand.TryRun("chattr", "+a", In("log")).Status != 0)
            Assert.Ignore("this file system has no files that may only be appended to");
        try
        {
            FuseGuest guest = Begin();
            ulong node = guest.Node("log");
            Assert.That(guest.Open(node, 2), Is.EqualTo(-1), "EPERM");
            Write(guest, node, (ulong)guest.Open(node, Append | 1), "two", 0, Append);
            Write(guest, node, (ulong)guest.TryCreate(FuseGuest.Root, "log", Append | 0x41), "three", 0, Append);
            Assert.That(File.ReadAllText(In("log")), Is.EqualTo("onetwothree"));
            byte[] page = [.. Bytes((ulong)guest.Open(node, Append | 1), 0UL), .. Bytes(3U, 1U), .. Bytes(0UL), .. Bytes(Append, 0U)];
            Assert.That(guest.Fuse.Try(16, node, page, 8, out _, "ONE"u8.ToArray()), Is.EqualTo(-1), "EPERM: a page of the guest's cache belongs at its place");
            Assert.That(File.ReadAllText(In("log")), Is.EqualTo("onetwothree"));
        }
        finally
        {
            HostCommand.TryRun("chattr", "-a", In("log"));
        }
    }

    [Test]
    public void Close_WhileAServerIsAskedForALock_DoesNotWait()
    {
        Directory.CreateDirectory(In("mounted"));
        using var host = new TroubledFileSystem(In("mounted"));
        FuseGuest guest = Begin();
        (ulong local, ulong localHandle) = guest.Create(FuseGuest.Root, "local");
        ulong node = guest.Node("mounted/locked"), handle = (ulong)guest.Open(node);
        var waiting = new PendingRequest(guest, 33, node, FuseGuest.LockArguments(handle, owner: 1, type: 1));
        Thread.Sleep(TroubledFileSystem.Delay / 6);
        var clock = Stopwatch.StartNew();
        guest.Fuse.Release(local, localHandle);
        Assert.That(clock.Elapsed, Is.LessThan(TroubledFileSystem.Delay / 2));
        Assert.That(waiting.HasEnded, Is.False);
        guest.Peer.Pause();
        Assert.That(waiting.Await(), Is.EqualTo(-37), "a pause ends the wait once the server has answered: ENOLCK");
    }

    // The owner of a lock has an opening of its own, which is closed with the last one of the guest's.
    [Test]
    public void Close_OfALockThatAServerDoesNotAnswer_HoldsUpNothingElse()
    {
        Directory.CreateDirectory(In("mounted"));
        using var host = new TroubledFileSystem(In("mounted"));
        FuseGuest guest = Begin();
        ulong node = guest.Node("mounted/flushed"), handle = (ulong)guest.Open(node, flags: 0);
        Assert.That(guest.Lock(node, handle, owner: 77, type: 1), Is.Zero);
        const uint release = 18;
        var closing = new PendingRequest(guest, release, node, [.. Bytes(handle), .. Bytes(0U, 0U), .. Bytes(0UL)]);
        Eventually.True(() => host.HasFlush, () => "the lock's opening is not closed");
        Assert.That(guest.TryAttributes(FuseGuest.Root), Is.Zero, "by the other queue");
        Assert.That(host.HasAnsweredLate, Is.False, "the server has yet to say that it is closed");
        Assert.That(closing.Await(), Is.Zero);
    }

    [Test]
    public void Locks_OfAFileThatIsOpenNoMore_AreGone()
    {
        FuseGuest guest = Begin();
        (ulong node, ulong handle) = guest.Create(FuseGuest.Root, "file");
        ulong second = (ulong)guest.Open(node);
        // Of an opening (F_OFD_SETLK): its owner does not stand in the FUSE_FLUSH of the process that closes it.
        Assert.That(guest.Lock(node, handle, owner: 77, type: 1), Is.Zero);
        guest.Demand(25, node, [.. Bytes(handle), .. Bytes(0U, 0U), .. Bytes(1UL)]);
        guest.Fuse.Release(node, handle);
        Assert.That(IsLockedOnHost("fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10)"), "another opening may have it");
        guest.Fuse.Release(node, second);
        Assert.That(IsLockedOnHost("fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10)"), Is.False);
        Assert.That(guest.Lock(node, second, owner: 77, type: 1), Is.EqualTo(-9), "EBADF: it is not open");
    }

    // A program waits that cannot be killed, because Linux passes no signal on.
    [Test]
    public void Locks_ThatWouldWaitForEachOther_AreRefused()
    {
        const int deadlock = -35;
        FuseGuest guest = Begin();
        (ulong node, ulong handle) = guest.Create(FuseGuest.Root, "file");
        PendingRequest Wait(ulong owner, ulong start, ulong end) => new(guest, 33, node, FuseGuest.LockArguments(handle, owner, 1, start: start, end: end));
        for (ulong owner = 1; owner <= 3; owner++)
            Assert.That(guest.Lock(node, handle, owner, type: 1, start: 10 * owner, end: 10 * owner + 9), Is.Zero);
        PendingRequest first = Wait(1, 20, 21), second = Wait(2, 39, 50), other = Wait(4, 10, 10);
        Assert.That(Wait(3, 19, 19).Await(), Is.EqualTo(deadlock), "1 waits for 2, and 2 for 3");
        Assert.That(Wait(2, 0, 10).Await(), Is.EqualTo(deadlock), "1 waits for 2");
        Assert.That(Wait(2, 0, 9).Await(), Is.Zero, "nobody has that");
        Assert.That(guest.Lock(node, handle, owner: 2, type: 2, start: 20, end: 21), Is.Zero);
        Assert.That(first.Await(), Is.Zero);
        PendingRequest third = Wait(3, 18, 19);
        Assert.That((second.HasEnded, other.HasEnded, third.HasEnded), Is.EqualTo((false, false, false)), "1 waits no more");
        Assert.That(Wait(1, 22, 22).Await(), Is.EqualTo(deadlock), "2 has the rest of its range, and waits for 3");
        Assert.That(guest.Lock(node, handle, owner: 1, type: 2), Is.Zero);
        Assert.That((other.Await(), third.Await()), Is.EqualTo((0, 0)));
        Assert.That(guest.Lock(node, handle, owner: 3, type: 2), Is.Zero);
        Assert.That(second.Await(), Is.Zero);
    }

    // As Samba has one for a client that keeps what it has read. The host's kernel asks for it, and waits until it is given up.
    [TestCase(true)]
    [TestCase(false)]
    public void Lease_OfAProgramOfTheHosts_IsNoError(bool isTruncated)
    {
        string ready = Path.Combine(Scratch, "leased"), ended = Path.Combine(Scratch, "ended");
        File.WriteAllText(In("file"), "text");
        const string program = """
            import fcntl, os, signal, sys, time
            file = os.open(sys.argv[1], os.O_RDONLY)
            def give_up(*_):
                time.sleep(0.2)
                open(sys.argv[3], 'w').close()
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            signal.signal(signal.SIGIO, give_up)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            open(sys.argv[2], 'w').close()
            while True:
                signal.pause()
            """;
        using var holder = new HostDaemon([ready], "python3", "-c", program, In("file"), ready, ended);
        FuseGuest guest = Begin();
        ulong node = guest.Node("file"), handle = (ulong)guest.Open(node, flags: 0);
        if (isTruncated)
        {
            const uint setAttributes = 4, size = 8;
            Assert.That(guest.Try(setAttributes, node, [.. Bytes(size, 0U), .. new byte[80]], FuseGuest.AttributesSize), Is.Zero);
            Assert.That((File.Exists(ended), new FileInfo(In("file")).Length), Is.EqualTo((true, 0L)));
        }
        else
        {
            Assert.That(guest.Lock(node, handle, owner: 1, type: 0), Is.Zero);
            Assert.That(guest.Lock(node, handle, owner: 2, type: 0), Is.Zero);
        }
    }

    [Test]
    public void Locks_OfAGuestThatIsGone_AreGone()
    {
        VmmProcess process = Serve();
        int before;
        using (var guest = new FuseGuest(SocketPath))
        {
            before = Directory.GetFiles($"/proc/{process.Id}/fd").Length;
            (ulong node, ulong handle) = guest.Create(FuseGuest.Root, "file");
            Assert.That(guest.Lock(node, handle, owner: 1, type: 1), Is.Zero);
            Assert.That(guest.Lock(node, handle, owner: 1, type: 1, isFlock: true), Is.Zero);
            Assert.That(IsLockedOnHost("fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)"));
        }
        Eventually.True(() => Directory.GetFiles($"/proc/{process.Id}/fd").Length < before, () => "it has all that it had with its guest");
        Assert.That(IsLockedOnHost("fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10)"), Is.False);
        Assert.That(IsLockedOnHost("fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)"), Is.False);
    }

    [Test]
    public void Locks_WhereNothingMayBeChanged_AreTheGuestsOwn()
    {
        File.WriteAllText(In("file"), "");
        FuseGuest guest = Begin("--readonly");
        Assert.That(guest.Flags & (ulong)(FuseFlags.PosixLocks | FuseFlags.FlockLocks), Is.Zero);
        ulong node = guest.Node("file"), handle = (ulong)guest.Open(node, 0);
        Assert.That(guest.Lock(node, handle, owner: 1, type: 1, isFlock: true), Is.EqualTo(-38), "ENOSYS");
        Assert.That(guest.Lock(node, handle, owner: 1, type: 0), Is.EqualTo(-38));
        Assert.That(IsLockedOnHost("fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)"), Is.False);
    }

    [Test]
    public void Paths_OfAnyLength_AreFound()
    {
        // After the first name and fifteen others 3941 bytes are less than a path may have, and with one more 4197 are too many.
        FuseGuest guest = Begin();
        ulong node = guest.MakeDirectory(FuseGuest.Root, new string('a', 100));
        try
        {
            for (int i = 0; i < 40; i++)
                node = guest.MakeDirectory(node, new string((char)('b' + i % 20), 255));
            Assert.That(guest.TryCreate(node, "file"), Is.Not.Negative);
        }
        finally
        {
            HostCommand.Run("rm", "-r", In(new string('a', 100)));  // .NET does not get there
        }
    }

    [Test]
    public void Overlay_AFileThatIsWrittenTo_StaysTheSame()
    {
        RequireRoot();
        string[] parts = [.. new[] { "lower", "upper", "work" }.Select(name => Directory.CreateDirectory(Path.Combine(Scratch, name)).FullName)];
        File.WriteAllText(Path.Combine(parts[0], "file"), "lower");
        if (HostCommand.TryRun("mount", "-t", "overlay", "overlay", "-o", $"lowerdir={parts[0]},upperdir={parts[1]},workdir={parts[2]}", Shared).Status != 0)
            Assert.Ignore("no overlay can be mounted here");
        try
        {
            FuseGuest guest = Begin();
            ulong node = guest.Node("file");
            Assert.That(guest.ReadText(node), Is.EqualTo("lower"));
            // The copy is made later than the file.
            Thread.Sleep(20);
            File.AppendAllText(In("file"), " and upper");
            Assert.That(guest.Node("file"), Is.EqualTo(node));
            Assert.That(guest.ReadText(node), Is.EqualTo("lower and upper"));
        }
        finally
        {
            HostCommand.Run("umount", "--lazy", Shared);
        }
    }

    [Test]
    public void Removed_WithoutForgetting_HasAnEndAndLosesNothing()
    {
        VmmProcess process = Serve("--rlimit-nofile", "400");
        using var guest = new FuseGuest(SocketPath);
        var nodes = new List<ulong>();
        int error = 0;
        for (int i = 0; i < 1000 && error == 0; i++)
        {
            nodes.Add(U64(guest.Demand(8, FuseGuest.Root, [.. Bytes(0x81A4U, 0U, 0U, 0U), .. Name($"f{i}")], 128), 0));
            error = guest.Unlink(FuseGuest.Root, $"f{i}");
        }
        Assert.That(error, Is.EqualTo(-TooManyOpen), "each is a descriptor of the host's");
        Assert.That(nodes, Has.Count.GreaterThan(200));
        string last = $"f{nodes.Count - 1}";
        Assert.That(File.Exists(In(last)), "it could not be kept, so it has its name");
        File.WriteAllText(In("other"), "");
        Assert.That(guest.Rename(FuseGuest.Root, "other", FuseGuest.Root, last), Is.EqualTo(-TooManyOpen));
        process.WaitForErrors("as many files open as this process may have descriptors");
        foreach (ulong node in nodes[..10])
            guest.Fuse.Forget(node, 1);
        Assert.That(guest.Unlink(FuseGuest.Root, last), Is.Zero);
        Assert.That(guest.TryAttributes(nodes[^1]), Is.Zero, "the guest still knows it");
    }

    // NFS would keep a file by a name that is removed as long as a descriptor was opened by it.
    [TestCase("a/file", "b/file", true)]
    [TestCase("b/file", "a/file", false)]
    public void Removed_AFileWithAnotherName_IsNotOpenByTheOldOne(string seenFirst, string seenLater, bool isOpened)
    {
        foreach (string name in new[] { "a", "b" })
            Directory.CreateDirectory(In(name));
        File.WriteAllText(In("a/file"), "text");
        HostCommand.Run("ln", In("a/file"), In("b/file"));
        VmmProcess process = Serve();
        using var guest = new FuseGuest(SocketPath);
        ulong node = guest.Node(seenFirst);
        if (isOpened)
            Assert.That(guest.TryAttributes(node), Is.Zero);
        Assert.That(guest.Node(seenLater), Is.EqualTo(node));
        Assert.That(guest.Unlink(guest.Node("a"), "file"), Is.Zero);
        Assert.That(DescriptorsOf(process, "a/file"), Is.Empty);
        Assert.That(guest.ReadText(node), Is.EqualTo("text"), "by the other name");
    }

    [Test]
    public void NotRemoved_AfterAll_CostsNoDescriptor()
    {
        const int directories = 500;
        for (int i = 0; i < directories; i++)
            File.WriteAllText(Path.Combine(Directory.CreateDirectory(In($"d{i}")).FullName, "file"), $"{i}");
        Serve("--rlimit-nofile", "400");
        using var guest = new FuseGuest(SocketPath);
        ulong[] nodes = [.. Enumerable.Range(0, directories).Select(i => guest.Node($"d{i}"))];
        ulong empty = guest.MakeDirectory(FuseGuest.Root, "empty");
        for (int i = 0; i < directories; i++)
        {
            Assert.That(guest.Try(11, FuseGuest.Root, Name($"d{i}")), Is.EqualTo(-Notempty));
            Assert.That(guest.Rename(FuseGuest.Root, "empty", FuseGuest.Root, $"d{i}"), Is.EqualTo(-Notempty));
        }
        Assert.That(guest.TryAttributes(empty), Is.Zero);
        for (int i = 0; i < directories; i++)
            Assert.That(guest.ReadText(guest.Node($"d{i}/file")), Is.EqualTo($"{i}"));
    }

    [Test]
    public void Read_OfAFileSystemThatDoesNotAnswer_HoldsUpNothingElse()
    {
        using var slow = new SlowFile(In("slow"), 4 << 20, perSecond: 1, requestSize: 4096);
        FuseGuest guest = Begin();
        ulong node = guest.Node("slow"), handle = (ulong)guest.Open(node, 0);
        byte[] Read(ulong offset) => [.. Bytes(handle, offset), .. Bytes(0x1_0000U, 0U), .. Bytes(0UL), .. Bytes(0U, 0U)];
        // The first is done at once, and those behind it are late.
        Assert.That(new PendingRequest(guest, 15, node, Read(0), 0x1_0000).Await(), Is.Zero);
        var late = new PendingRequest(guest, 15, node, Read(2 << 20), 0x1_0000);
        Assert.That(new PendingRequest(guest, 3, FuseGuest.Root, Bytes(0UL, 0UL), FuseGuest.AttributesSize).Await(), Is.Zero);
        Assert.That(late.HasEnded, Is.False);
    }

    [Test]
    public void Requests_ThatMayWait_HaveNoLongArguments()
    {
        FuseGuest guest = Begin();
        (ulong node, ulong handle) = guest.Create(FuseGuest.Root, "file");
        Assert.That(guest.Try(20, node, [.. Bytes(handle), .. Bytes(0U, 0U), .. new byte[60_000]]), Is.EqualTo(-Invalid), "FUSE_FSYNC");
        Assert.That(guest.Try(33, node, [.. FuseGuest.LockArguments(handle, 1, 1), .. new byte[60_000]]), Is.EqualTo(-Invalid), "FUSE_SETLKW");
        byte[] value = new byte[60_000];
        new Random(5).NextBytes(value);
        // Where the file system has room for such a value, it is taken over whole.
        Assert.That(guest.SetXattr(node, "user.long", value), Is.Zero.Or.EqualTo(-28).Or.EqualTo(-95).Or.EqualTo(-7));
        Assert.That(guest.Try(20, node, [.. Bytes(handle), .. Bytes(0U, 0U)]), Is.Zero);
    }

    private static void Write(FuseGuest guest, ulong node, ulong handle, string text, ulong offset, uint flags, uint transferFlags = 0)
    {
        byte[] data = System.Text.Encoding.ASCII.GetBytes(text);
        guest.Demand(16, node, [.. Bytes(handle, offset), .. Bytes((uint)data.Length, transferFlags), .. Bytes(0UL), .. Bytes(flags, 0U)], 8, data);
    }
}
