using System.Net.Sockets;
using System.Runtime.Versioning;
using System.Text;
using NUnit.Framework;
using Vmm.Devices.Backends.FileSystem;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Tests.Integration.Peers;
using Vmm.Vhost.Native;
using static Vmm.Tests.Conformance.FuseClient;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>What requests of a guest do on the host.</summary>
[SupportedOSPlatform("linux")]
public class FuseRequestTests : FileSystemTest
{
    private const int Eperm = 1, Eio = 5, Enxio = 6, Ebadf = 9, Eagain = 11, Eacces = 13, Exist = 17, Enotdir = 20, Isdir = 21, Invalid = 22, Rofs = 30, Nametoolong = 36,
        Enosys = 38, Notempty = 39, Nodata = 61, Notsupported = 95, Stale = 116;

    [Test]
    public void Init_OldAndNewClients_AreAnswered()
    {
        FuseGuest guest = Begin();
        Assert.That(guest.Fuse.Try(26, 0, Bytes(7U, 30U, 0U, 0U), 64, out _), Is.EqualTo(-71), "EPROTO: no virtio-fs then");
        Assert.That(guest.Fuse.Try(26, 0, Bytes(8U, 0U, 0U, 0U), 64, out byte[] reply), Is.Zero);
        Assert.That((U32(reply, 0), U32(reply, 4)), Is.EqualTo((7U, 39U)), "it asks again");
        Assert.That(guest.Fuse.Try(26, 0, Bytes(7U, 31U, 0x20000U, 0U), 64, out reply), Is.Zero);
        Assert.That((U32(reply, 12), U32(reply, 20)), Is.EqualTo((0U, 1U << 20)), "what was not offered is not used");
        Assert.That(guest.Fuse.Try(26, 0, Bytes(7U, 31U), 64, out _), Is.EqualTo(-Invalid));
        guest.Fuse.Destroy();
        Assert.That(guest.Find("x"), Is.EqualTo(-Eio), "there is no session");
    }

    [Test]
    public void Requests_Unknown_AreRefused()
    {
        FuseGuest guest = Begin();
        foreach (uint code in new uint[] { 0, 7, 37, 40, 41, 53, 4096, uint.MaxValue })
            Assert.That(guest.Try(code, FuseGuest.Root, []), Is.EqualTo(-Enosys), $"request {code}");
        Assert.That(guest.Try(3, 12345, Bytes(0UL, 0UL), 104), Is.EqualTo(-Stale), "a node that was never given out");
        Assert.That(guest.Try(3, FuseGuest.Root, Bytes(0U), 104), Is.EqualTo(-Invalid), "too short");
    }

    [TestCase("", -22)]
    [TestCase(".", -22, 0)]
    [TestCase("..", -22, 0)]
    [TestCase("a/b", -22)]
    [TestCase("../outside", -22)]
    [TestCase("/etc/passwd", -22)]
    public void Names_ThatAreNoName_AreRefused(string name, int expected, int? lookup = null)
    {
        File.WriteAllText(Path.Combine(Scratch, "outside"), "secret");
        FuseGuest guest = Begin();
        ulong file = guest.Create(FuseGuest.Root, "file").Node;
        Assert.Multiple(() =>
        {
            Assert.That(guest.Try(1, FuseGuest.Root, Name(name), 128), Is.EqualTo(lookup ?? expected), "lookup");
            Assert.That(guest.Try(9, FuseGuest.Root, [.. Bytes(0x1EDU, 0U), .. Name(name)], 128), Is.EqualTo(expected), "mkdir");
            Assert.That(guest.Try(8, FuseGuest.Root, [.. Bytes(0x81A4U, 0U, 0U, 0U), .. Name(name)], 128), Is.EqualTo(expected), "mknod");
            Assert.That(guest.Try(6, FuseGuest.Root, [.. Name(name), .. Name("target")], 128), Is.EqualTo(expected), "symlink");
            Assert.That(guest.Unlink(FuseGuest.Root, name), Is.EqualTo(expected), "unlink");
            Assert.That(guest.Rename(FuseGuest.Root, "file", FuseGuest.Root, name), Is.EqualTo(expected), "rename to");
            Assert.That(guest.Rename(FuseGuest.Root, name, FuseGuest.Root, "file"), Is.EqualTo(expected), "rename from");
            Assert.That(guest.Try(13, FuseGuest.Root, [.. Bytes(file), .. Name(name)], 128), Is.EqualTo(expected), "link");
            Assert.That(guest.TryCreate(FuseGuest.Root, name), Is.EqualTo(expected), "create");
        });
        Assert.That(guest.Try(1, FuseGuest.Root, Name(new string('n', 256)), 128), Is.EqualTo(-Nametoolong));
        Assert.That(guest.Try(1, FuseGuest.Root, "no end"u8.ToArray(), 128), Is.EqualTo(-Invalid));
    }

    [Test]
    public void Links_AreRead_AndNeverFollowed()
    {
        File.WriteAllText(Path.Combine(Scratch, "outside"), "secret");
        Directory.CreateDirectory(Path.Combine(Scratch, "away"));
        File.WriteAllText(Path.Combine(Scratch, "away", "file"), "secret");
        File.CreateSymbolicLink(In("file"), Path.Combine(Scratch, "outside"));
        File.CreateSymbolicLink(In("directory"), Path.Combine(Scratch, "away"));
        FuseGuest guest = Begin();
        ulong link = guest.Node("file");
        Assert.That(Encoding.UTF8.GetString(guest.Demand(5, link, [], 4096)), Is.EqualTo(Path.Combine(Scratch, "outside")));
        Assert.That(guest.Open(link), Is.EqualTo(-Enxio));
        Assert.That(guest.Find("directory/file"), Is.EqualTo(-Enotdir));
        Assert.That(guest.Try(27, guest.Node("directory"), Bytes(0U, 0U), 16), Is.EqualTo(-Enotdir));
        Assert.That(guest.TryCreate(FuseGuest.Root, "file"), Is.EqualTo(-Enxio), "what is there is not a file");
        Assert.That(guest.Demand(6, FuseGuest.Root, [.. Name("made"), .. Name("../outside")], 128), Is.Not.Empty);
        Assert.That(new FileInfo(In("made")).LinkTarget, Is.EqualTo("../outside"));
    }

    [Test]
    public void Nodes_ThatAreNoFiles_AreNeverOpened()
    {
        HostCommand.Run("mkfifo", In("fifo"));
        FuseGuest guest = Begin();
        ulong fifo = guest.Node("fifo");
        Assert.That(guest.Open(fifo), Is.EqualTo(-Enxio));
        Assert.That(guest.TryCreate(FuseGuest.Root, "fifo"), Is.EqualTo(-Enxio));
        Assert.That(guest.Try(4, fifo, SetAttributes(valid: 8, size: 0), 104), Is.EqualTo(-Invalid), "a new size");
        Assert.That(U32(guest.Attributes(fifo), 60) & 0xF000, Is.EqualTo(0x1000), "S_IFIFO");
        Assert.That(guest.Try(8, FuseGuest.Root, [.. Bytes(0x11A4U, 0U, 0U, 0U), .. Name("another")], 128), Is.Zero);
        Assert.That(File.Exists(In("another")));
    }

    [Test]
    public void Files_AreReadAndWritten_AndTheHostSeesThem()
    {
        FuseGuest guest = Begin();
        (ulong node, ulong handle) = guest.Create(FuseGuest.Root, "file");
        byte[] bytes = new byte[200_000];
        new Random(1).NextBytes(bytes);
        guest.Fuse.Write(node, handle, 5, bytes);
        Assert.That(File.ReadAllBytes(In("file")).AsSpan(5).ToArray(), Is.EqualTo(bytes));
        Assert.That(guest.Fuse.Read(node, handle, 5, 250_000), Is.EqualTo(bytes), "up to the end");
        Assert.That(guest.Fuse.Read(node, handle, 1_000_000, 4096), Is.Empty);
        Assert.That(guest.Try(15, node, [.. Bytes(handle, ulong.MaxValue), .. Bytes(4096U, 0U), .. Bytes(0UL), .. Bytes(0U, 0U)], 4096), Is.EqualTo(-Invalid));
        Assert.That(guest.Try(16, node, [.. Bytes(handle, 0UL), .. Bytes(4096U, 0U), .. Bytes(0UL), .. Bytes(0U, 0U)], 8), Is.EqualTo(-Invalid), "less data than said");
        Assert.That(U64(guest.Demand(46, node, [.. Bytes(handle, 0UL), .. Bytes(4U, 0U)], 8), 0), Is.EqualTo(200_005), "SEEK_HOLE");
        guest.Demand(43, node, [.. Bytes(handle, 0UL, 300_000UL), .. Bytes(0U, 0U)]);
        Assert.That(new FileInfo(In("file")).Length, Is.EqualTo(300_000), "fallocate");
        (ulong copy, ulong copyHandle) = guest.Create(FuseGuest.Root, "copy");
        Assert.That(U32(guest.Demand(47, node, Bytes(handle, 5, copy, copyHandle, 0, 1000, 0), 8), 0), Is.EqualTo(1000), "copy_file_range");
        Assert.That(File.ReadAllBytes(In("copy")), Is.EqualTo(bytes[..1000]));
        guest.Demand(20, node, [.. Bytes(handle), .. Bytes(0U, 0U)]);
        guest.Demand(50, FuseGuest.Root, Bytes(0UL));
        guest.Fuse.Release(node, handle);
        Assert.That(guest.Try(18, node, [.. Bytes(handle), .. Bytes(0U, 0U), .. Bytes(0UL)]), Is.EqualTo(-Ebadf), "twice");
        Assert.That(guest.Try(15, node, [.. Bytes(handle, 0UL), .. Bytes(4096U, 0U), .. Bytes(0UL), .. Bytes(0U, 0U)], 4096), Is.EqualTo(-Ebadf));
    }

    [Test]
    public void Attributes_AreChanged()
    {
        File.WriteAllText(In("file"), "0123456789");
        FuseGuest guest = Begin();
        ulong node = guest.Node("file");
        Assert.That(U64(guest.Demand(4, node, SetAttributes(valid: 1 | 8 | 16 | 32, size: 4, mode: 0x81C0, accessed: 1000, modified: 2000), 104), 16 + 8), Is.EqualTo(4));
        Assert.That(File.ReadAllText(In("file")), Is.EqualTo("0123"));
        Assert.That(File.GetUnixFileMode(In("file")), Is.EqualTo(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute));
        Assert.That(File.GetLastWriteTimeUtc(In("file")), Is.EqualTo(DateTime.UnixEpoch.AddSeconds(2000)));
        byte[] statx = guest.Demand(52, node, [.. Bytes(0U, 0U), .. Bytes(0UL), .. Bytes(0U, 0xFFFU)], 288);
        Assert.That((U64(statx, 32 + 40), U32(statx, 32) & 0x800), Is.EqualTo((4UL, 0x800U)), "statx: the size, and that it knows when the file was made");
        Assert.That(guest.Try(4, FuseGuest.Root, SetAttributes(valid: 8, size: 4), 104), Is.EqualTo(-Isdir));
        byte[] statfs = guest.Demand(17, FuseGuest.Root, [], 80);
        Assert.That((U64(statfs, 0) > 0, U32(statfs, 44)), Is.EqualTo((true, 255U)));
        Assert.That(guest.Try(34, node, Bytes(4U, 0U)), Is.Zero, "access");
    }

    [Test]
    public void Removed_WhileOpen_GoesOn()
    {
        FuseGuest guest = Begin();
        (ulong node, ulong handle) = guest.Create(FuseGuest.Root, "file");
        ulong other = guest.Create(FuseGuest.Root, "other").Node;
        ulong directory = guest.MakeDirectory(FuseGuest.Root, "directory");
        guest.Fuse.Write(node, handle, 0, "still there"u8.ToArray());
        Assert.That(guest.Unlink(FuseGuest.Root, "file"), Is.Zero);
        Assert.That(guest.Unlink(FuseGuest.Root, "other"), Is.Zero);
        Assert.That(guest.Try(11, FuseGuest.Root, Name("directory")), Is.Zero);
        Assert.That(guest.ReadText(node), Is.EqualTo("still there"), "opened once more");
        Assert.That(U32(guest.Attributes(other), 64), Is.Zero, "its links, by a number alone");
        Assert.That(guest.TryAttributes(directory), Is.Zero);
        Assert.That(guest.TryCreate(directory, "x"), Is.EqualTo(-2));
        // And a file of the same name is another.
        Assert.That(guest.Create(FuseGuest.Root, "file").Node, Is.Not.EqualTo(node));
    }

    [Test]
    public void Renamed_ByGuestAndHost_IsFound()
    {
        FuseGuest guest = Begin();
        ulong a = guest.MakeDirectory(FuseGuest.Root, "a"), b = guest.MakeDirectory(FuseGuest.Root, "b");
        (ulong node, ulong handle) = guest.Create(a, "file");
        guest.Fuse.Write(node, handle, 0, "text"u8.ToArray());
        guest.Fuse.Release(node, handle);
        Assert.That(guest.Rename(a, "file", b, "moved"), Is.Zero);
        Assert.That(guest.ReadText(node), Is.EqualTo("text"));
        Assert.That(guest.Rename(FuseGuest.Root, "b", a, "c"), Is.Zero);
        Assert.That(guest.ReadText(node), Is.EqualTo("text"), "its directory is elsewhere now");
        Assert.That(guest.Rename(FuseGuest.Root, "a", a, "d"), Is.EqualTo(-Invalid), "into itself");
        ulong second = guest.Create(a, "second").Node;
        Assert.That(guest.Rename(a, "second", b, "moved", flags: 1), Is.EqualTo(-Exist), "RENAME_NOREPLACE");
        Assert.That(guest.Rename(a, "second", b, "moved", flags: 2), Is.Zero, "RENAME_EXCHANGE");
        Assert.That((guest.ReadText(node), guest.ReadText(second)), Is.EqualTo(("text", "")));
        Assert.That(guest.Rename(a, "second", b, "moved"), Is.Zero, "over another");
        Assert.That(guest.TryAttributes(second), Is.Zero, "which the guest still knows");
        Assert.That(guest.Rename(a, "nothing", b, "moved", flags: 64), Is.EqualTo(-Invalid));
        File.Move(In("a/c/moved"), In("elsewhere"));
        Assert.That(guest.Node("elsewhere"), Is.EqualTo(node), "the host has moved it");
        Assert.That(guest.ReadText(node), Is.EqualTo("text"));
    }

    // The guest works in a directory that the host renames, and then puts another in its place.
    [Test]
    public void HostRenamesADirectory_WhatIsBelowIsFound()
    {
        Directory.CreateDirectory(In("a/inner"));
        foreach (string name in (string[])["a/file", "a/inner/file"])
            File.WriteAllText(In(name), "text");
        FuseGuest guest = Begin();
        ulong directory = guest.Node("a"), file = guest.Node("a/file"), inner = guest.Node("a/inner/file");
        Directory.Move(In("a"), In("x"));
        Assert.That(U64(guest.Demand(1, directory, Name("file"), FuseGuest.EntrySize), 0), Is.EqualTo(file));
        Assert.That((guest.ReadText(file), guest.ReadText(inner)), Is.EqualTo(("text", "text")));
        ulong second = guest.Create(directory, "second").Node;
        Directory.CreateDirectory(In("a"));
        File.WriteAllText(In("a/second"), "another");
        Assert.That(guest.ReadText(second), Is.Empty, "not the other");
        // And a file that is where the guest saw its directory, and no more in the directory that is open.
        File.WriteAllText(In("x/third"), "third");
        ulong third = U64(guest.Demand(1, directory, Name("third"), FuseGuest.EntrySize), 0);
        File.Move(In("x/third"), In("a/third"));
        Assert.That(guest.ReadText(third), Is.EqualTo("third"));
    }

    // As cp -al makes them, and rm takes them away.
    [TestCase(false)]
    [TestCase(true)]
    public void HardLinks_OfWhichOneIsRemoved_CostNoDescriptors(bool removesTheCopy)
    {
        const int files = 500;
        Directory.CreateDirectory(In("a"));
        for (int i = 0; i < files; i++)
            File.WriteAllText(In($"a/f{i}"), $"{i}");
        Serve("--rlimit-nofile", "400");
        using var guest = new FuseGuest(SocketPath);
        ulong a = guest.Node("a"), b = guest.MakeDirectory(FuseGuest.Root, "b");
        ulong[] nodes = [.. Enumerable.Range(0, files).Select(i => guest.Node($"a/f{i}"))];
        for (int i = 0; i < files; i++)
            Assert.That(guest.Try(13, b, [.. Bytes(nodes[i]), .. Name($"new{i}")], FuseGuest.EntrySize), Is.Zero);
        for (int i = 0; i < files; i++)
            Assert.That(guest.Rename(b, $"new{i}", b, $"f{i}"), Is.Zero);
        // By each of its names in turn.
        for (int i = 0; i < files; i++)
            Assert.That(guest.Node(i % 2 == 0 ? $"b/f{i}" : $"a/f{i}"), Is.EqualTo(nodes[i]));
        for (int i = 0; i < files; i++)
            Assert.That(guest.Unlink(removesTheCopy ? b : a, $"f{i}"), Is.Zero, $"f{i}");
        for (int i = 0; i < files; i++)
            Assert.That(guest.ReadText(nodes[i]), Is.EqualTo($"{i}"));
        // The last name of all, too: the guest still knows the file.
        for (int i = 0; i < 10; i++)
            Assert.That(guest.Unlink(removesTheCopy ? a : b, $"f{i}"), Is.Zero);
        for (int i = 0; i < 10; i++)
            Assert.That(guest.ReadText(nodes[i]), Is.EqualTo($"{i}"));
    }

    [Test]
    public void HostReplacesAFile_TheGuestsIsStaleAndNeverTheOther()
    {
        File.WriteAllText(In("file"), "old");
        FuseGuest guest = Begin();
        ulong old = guest.Node("file");
        File.WriteAllText(In("new"), "new");
        File.Move(In("new"), In("file"), overwrite: true);
        Assert.That(guest.Open(old), Is.EqualTo(-Stale));
        ulong current = guest.Node("file");
        Assert.That((current == old, guest.ReadText(current)), Is.EqualTo((false, "new")));
    }

    [Test]
    public void TemporaryFile_IsLinkedLater()
    {
        FuseGuest guest = Begin();
        byte[] reply = guest.Demand(51, FuseGuest.Root, [.. Bytes(0x410002U, 0x81A4U, 0U, 0U), .. Name("/")], 144);
        (ulong node, ulong handle) = (U64(reply, 0), U64(reply, 128));
        guest.Fuse.Write(node, handle, 0, "text"u8.ToArray());
        Assert.That(Directory.GetFileSystemEntries(Shared), Is.Empty);
        byte[] entry = guest.Demand(13, FuseGuest.Root, [.. Bytes(node), .. Name("named")], 128);
        Assert.That((U64(entry, 0), File.ReadAllText(In("named"))), Is.EqualTo((node, "text")));
    }

    [Test]
    public void Listings_OfALargeDirectory_AreWhole()
    {
        string[] names = [.. Enumerable.Range(0, 1500).Select(i => $"file-{i}-{new string('x', i % 100)}")];
        foreach (string name in names)
            File.WriteAllText(In(name), "");
        FuseGuest guest = Begin();
        Assert.That(guest.Fuse.List(FuseGuest.Root), Is.EquivalentTo(names));
        List<(string Name, ulong Node)> plus = guest.ListPlus(FuseGuest.Root);
        Assert.That(plus.Where(entry => entry.Name is not ("." or "..")).Select(entry => entry.Name), Is.EquivalentTo(names));
        Assert.That(plus.Count(entry => entry.Node != 0), Is.EqualTo(names.Length));
        Assert.That(guest.Node("file-7-xxxxxxx"), Is.EqualTo(plus.Single(entry => entry.Name == "file-7-xxxxxxx").Node));
    }

    [TestCase("proc", "self")]
    [TestCase("sys", "kernel")]
    public void FilesOfTheKernel_AreSeenAndNotReached(string place, string name)
    {
        StartBackend("fs", ["--shared-dir", "/", "--readonly"]);
        FuseGuest guest = Keep(new FuseGuest(SocketPath));
        Assert.That(guest.Open(guest.Node("etc/passwd"), flags: 0), Is.Not.Negative);
        ulong node = guest.Node(place);
        Assert.Multiple(() =>
        {
            Assert.That(guest.TryAttributes(node), Is.Zero, "the guest's kernel mounts its own there");
            Assert.That(guest.Find($"{place}/{name}"), Is.EqualTo(-Eacces), "lookup");
            Assert.That(guest.Try(27, node, Bytes(0U, 0U), 16), Is.EqualTo(-Eacces), "opendir");
            Assert.That(guest.Try(17, node, [], 80), Is.EqualTo(-Eacces), "statfs");
            Assert.That(guest.Find("etc/passwd"), Is.Positive);
        });
    }

    // Whatever the umask says: who may connect has the directory, or the disk.
    [TestCase("fs", "--shared-dir")]
    [TestCase("blk", "--readonly", "--path")]
    [TestCase("rng", "--source", "/dev/urandom")]
    public void Start_WithoutUmask_OnlyTheOwnerMayConnect(string device, params string[] options)
    {
        string disk = Path.Combine(Scratch, "disk");
        File.WriteAllBytes(disk, new byte[4096]);
        string[] last = options[^1] switch { "--shared-dir" => [Shared], "--path" => [disk], _ => [] };
        Keep(new HostDaemon([SocketPath], "/bin/sh", ["-c", "umask 0; exec \"$@\"", "sh", .. VmmProcess.Command, "backend", device, "--socket-path", SocketPath, .. options, .. last]));

        Assert.That(File.GetUnixFileMode(SocketPath), Is.EqualTo(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute));
    }

    [TestCase(false)]
    [TestCase(true)]
    public void Start_RelativeSocketPath_IsOfTheDirectoryOfTheStart(bool connects)
    {
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        if (connects)
        {
            listener.Bind(new UnixDomainSocketEndPoint(SocketPath));
            listener.Listen();
        }
        Keep(new HostDaemon(connects ? [] : [SocketPath], "/bin/sh",
        [
            "-c", "cd \"$1\"; shift; exec \"$@\"", "sh", Path.GetDirectoryName(SocketPath)!, .. VmmProcess.Command,
            "backend", "fs", "--socket-path", Path.GetFileName(SocketPath), "--shared-dir", Shared, .. connects ? ["--client"] : Array.Empty<string>(),
        ]));

        if (connects)
            Assert.That(listener.Poll(30_000_000, SelectMode.SelectRead), "it connects");
    }

    // What is there is memory of other processes: their messages, their huge pages.
    [TestCase("mqueue")]
    [TestCase("hugetlbfs")]
    public void Start_DirectoryOfOthersMemory_IsRefused(string type)
    {
        RequireRoot();
        string directory = Directory.CreateDirectory(Path.Combine(Scratch, type)).FullName;
        (int status, string output) = HostCommand.TryRun("mount", "-t", type, "none", directory);
        if (status != 0)
            Assert.Ignore($"no {type} can be mounted here: {output}");
        try
        {
            VmmResult result = StartVmm("backend", "fs", "--socket-path", SocketPath, "--shared-dir", directory).WaitForEnd();
            Assert.That(result.ExitCode, Is.EqualTo(1));
            Assert.That(result.Errors, Does.Contain("is of the kernel's own files"));
        }
        finally
        {
            HostCommand.Run("umount", directory);
        }
    }

    [TestCase("/proc")]
    [TestCase("/sys/kernel")]
    public void Start_DirectoryOfTheKernel_IsRefused(string directory)
    {
        VmmResult result = StartVmm("backend", "fs", "--socket-path", SocketPath, "--shared-dir", directory).WaitForEnd();

        Assert.That(result, Is.EqualTo(new VmmResult(1, "", $"vmm: --shared-dir: {directory} is of the kernel's own files, such as /proc or /sys: give a directory with files\n")));
    }

    [Test]
    public void ReadOnly_NothingChanges()
    {
        File.WriteAllText(In("file"), "text");
        FuseGuest guest = Begin("--readonly");
        ulong node = guest.Node("file");
        Assert.That(guest.ReadText(node), Is.EqualTo("text"));
        Assert.Multiple(() =>
        {
            Assert.That(guest.Open(node, flags: 2), Is.EqualTo(-Rofs));
            Assert.That(guest.Open(node, flags: 0x200), Is.EqualTo(-Rofs), "O_TRUNC");
            Assert.That(guest.TryCreate(FuseGuest.Root, "new"), Is.EqualTo(-Rofs));
            Assert.That(guest.Unlink(FuseGuest.Root, "file"), Is.EqualTo(-Rofs));
            Assert.That(guest.Try(4, node, SetAttributes(valid: 8, size: 0), 104), Is.EqualTo(-Rofs));
            Assert.That(guest.SetXattr(node, "user.x", [1]), Is.EqualTo(-Rofs));
            Assert.That(guest.Try(9, FuseGuest.Root, [.. Bytes(0x1EDU, 0U), .. Name("d")], 128), Is.EqualTo(-Rofs));
        });
        Assert.That(File.ReadAllText(In("file")), Is.EqualTo("text"));
        Assert.That(Directory.GetFileSystemEntries(Shared), Has.Length.EqualTo(1));
    }

    [Test]
    public void NoPrivilegedFiles_GuestMakesNothingThatGivesRightsOnTheHost()
    {
        const uint setIds = 0xC00, setGroup = 0x400;
        if (!VmmProcess.IsNative && !Environment.IsPrivilegedProcess)
            Assert.Ignore("run as root");
        File.WriteAllText(In("old"), "text");
        HostCommand.Run("chmod", "6755", In("old"));
        FuseGuest guest = Begin("--no-privileged-files");
        ulong file = guest.Create(FuseGuest.Root, "created", mode: 0x81ED | setIds).Node, directory = guest.MakeDirectory(FuseGuest.Root, "directory");
        Assert.Multiple(() =>
        {
            Assert.That(ModeOf("created"), Is.EqualTo(0x1EDU), "create");
            Assert.That(guest.Try(4, file, SetAttributes(valid: 1, mode: 0x81ED | setIds), 104), Is.Zero);
            Assert.That(ModeOf("created"), Is.EqualTo(0x1EDU), "chmod");
            Assert.That(guest.Try(8, FuseGuest.Root, [.. Bytes(0x81EDU | setIds, 0U, 0U, 0U), .. Name("node")], 128), Is.Zero);
            Assert.That(ModeOf("node"), Is.EqualTo(0x1EDU), "mknod of a file");
            Assert.That(guest.Try(8, FuseGuest.Root, [.. Bytes(0x21B6U, 0x103U, 0U, 0U), .. Name("null")], 128), Is.EqualTo(-Eperm), "character device");
            Assert.That(guest.Try(8, FuseGuest.Root, [.. Bytes(0x61B6U, 0x800U, 0U, 0U), .. Name("disk")], 128), Is.EqualTo(-Eperm), "block device");
            Assert.That(guest.Try(8, FuseGuest.Root, [.. Bytes(0x11B6U, 0U, 0U, 0U), .. Name("pipe")], 128), Is.Zero, "pipe");
            Assert.That(guest.SetXattr(file, "security.capability", [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Is.EqualTo(-Eperm));
            Assert.That(guest.Try(4, directory, SetAttributes(valid: 1, mode: 0x41ED | setGroup), 104), Is.Zero);
            Assert.That(ModeOf("directory") & setIds, Is.EqualTo(setGroup), "what is made there gets the directory's group");
            Assert.That(guest.Open(guest.Node("old"), flags: 0), Is.Not.Negative);
            Assert.That(ModeOf("old") & setIds, Is.EqualTo(setIds), "the host's own");
            Assert.That(guest.Open(guest.Node("old")), Is.Not.Negative);
        });
        if (Environment.IsPrivilegedProcess)    // for others the kernel does it at the write
            Assert.That(ModeOf("old") & setIds, Is.Zero, "once the guest may write to it");
    }

    // Linux takes them away when a file is written or given to another, but does not know them by another name (CVE-2021-20263).
    [TestCase(":map::user.virtiofs.:")]
    [TestCase(":map:security.capability:user.virtiofs.:")]
    public void FileCapabilities_ByAnotherName_AreTakenAwayByChanges(string map)
    {
        if (!VmmProcess.IsNative && !Environment.IsPrivilegedProcess)
            Assert.Ignore("run as root");
        const string name = "security.capability";
        FuseGuest guest = Begin("--xattrmap", map);
        (ulong node, ulong handle) = guest.Create(FuseGuest.Root, "file", mode: 0x81ED);
        guest.Fuse.Write(node, handle, 0, "text"u8.ToArray());
        (ulong source, ulong sourceHandle) = guest.Create(FuseGuest.Root, "source");
        guest.Fuse.Write(source, sourceHandle, 0, "text"u8.ToArray());
        uint own = U32(guest.Attributes(node), 68);
        foreach ((string what, Func<long> change) in new (string, Func<long>)[]
        {
            ("write", () => guest.Fuse.Try(16, node, [.. Bytes(handle, 0UL), .. Bytes(4U, 0U), .. Bytes(0UL), .. Bytes(0U, 0U)], 8, out _, "evil"u8.ToArray())),
            ("truncate", () => guest.Try(4, node, SetAttributes(valid: 8, size: 2), 104)),
            ("chown", () => guest.Try(4, node, SetAttributes(valid: 2, user: own), 104)),
            ("open with O_TRUNC", () => guest.Open(node, flags: 0x202)),
            ("create with O_TRUNC over it", () => guest.TryCreate(FuseGuest.Root, "file", flags: 0x242)),
            ("fallocate", () => guest.Try(43, node, [.. Bytes(handle, 0UL, 4096UL), .. Bytes(0U, 0U)])),
            ("copy_file_range", () => guest.Try(47, source, Bytes(sourceHandle, 0, node, handle, 0, 4, 0), 8)),
        })
        {
            Assert.That(guest.SetXattr(node, name, [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Is.Zero, what);
            guest.Fuse.Read(node, handle, 0, 10);
            long open = guest.Open(node, flags: 0x2);
            Assert.That(guest.GetXattr(node, name, out _), Is.Zero, "what is only read keeps them, and what is opened to be written");
            Assert.That(change(), Is.Not.Negative, what);
            Assert.That(guest.GetXattr(node, name, out _), Is.EqualTo(-Nodata), what);
            guest.Fuse.Release(node, (ulong)open);
        }
    }

    // For the guest, who changes it is not in the file's group. The daemon is.
    [Test]
    public void Acl_OfAFileOfAGroupThatTheCallerIsNotIn_TakesTheSetGroupIdBitAway()
    {
        if (!VmmProcess.IsNative && !Environment.IsPrivilegedProcess)
            Assert.Ignore("run as root");
        FuseGuest guest = Begin();
        ulong node = guest.Create(FuseGuest.Root, "file", mode: 0x81ED).Node;
        // rwx for the owner, r-x for the group and all others.
        byte[] acl = [.. Bytes(2U), 1, 0, 7, 0, .. Bytes(uint.MaxValue), 4, 0, 5, 0, .. Bytes(uint.MaxValue), 0x20, 0, 5, 0, .. Bytes(uint.MaxValue)];
        int Set(string name, uint flags) => guest.Try(21, node, [.. Bytes((uint)acl.Length, 0U), .. Bytes(flags, 0U), .. Name(name), .. acl]);
        guest.Demand(4, node, SetAttributes(valid: 1, mode: 0x85ED), 104);
        if (Set("system.posix_acl_access", 0) == -Notsupported)
            Assert.Ignore("this file system has no ACLs");
        Assert.That(ModeOf("file"), Is.EqualTo(0x5EDU), "the caller is in the group");
        Assert.That(Set("user.other", 1), Is.Zero);
        Assert.That(ModeOf("file"), Is.EqualTo(0x5EDU), "it is no ACL");
        Assert.That(Set("system.posix_acl_access", 1), Is.Zero);
        Assert.That(ModeOf("file"), Is.EqualTo(0x1EDU), "FUSE_SETXATTR_ACL_KILL_SGID");
    }

    // RENAME_WHITEOUT leaves a new file. The user is no owner of what is in this directory, and the guest's kernel has found him to have CAP_FOWNER.
    [Test]
    public void Rename_Whiteout_BelongsToTheCaller()
    {
        RequireRoot();
        File.SetUnixFileMode(Shared, (UnixFileMode)0x3FF);
        FuseGuest guest = Begin();
        guest.Create(FuseGuest.Root, "file");
        guest.Fuse.Caller = (1234, 2345);
        Assert.That(guest.Rename(FuseGuest.Root, "file", FuseGuest.Root, "moved", flags: 4), Is.Zero);
        Assert.That(HostCommand.Run("stat", "-c", "%F %u %g %t:%T", In("file")).Trim(), Is.EqualTo("character special file 1234 2345 0:0"));
        Assert.That(HostCommand.Run("stat", "-c", "%u", In("moved")).Trim(), Is.EqualTo("0"));
        guest.Fuse.Caller = (0, 0);
        Assert.That(guest.Rename(FuseGuest.Root, "moved", FuseGuest.Root, "again", flags: 4), Is.Zero);
        Assert.That(HostCommand.Run("stat", "-c", "%u %g", In("moved")).Trim(), Is.EqualTo("0 0"), "and the thread is itself again");
    }

    // The guest's kernel leaves them to the file system, as those of NFS (system.nfs4_acl).
    [Test]
    public void Xattrs_OfTheSystem_AreForTheOwnerAndRootToChange()
    {
        RequireRoot();
        FuseGuest guest = Begin();
        ulong node = guest.Create(FuseGuest.Root, "file").Node;
        HostCommand.Run("chown", "1000:1000", In("file"));
        foreach ((uint user, int expected) in new[] { (0U, -Notsupported), (1000U, -Notsupported), (1001U, -Eperm) })
        {
            guest.Fuse.Caller = (user, user);
            Assert.That(guest.SetXattr(node, "system.nfs4_acl", [1]), Is.EqualTo(expected), $"set by {user}");
            Assert.That(guest.Try(24, node, Name("system.nfs4_acl")), Is.EqualTo(expected), $"removed by {user}");
            Assert.That(guest.GetXattr(node, "system.nfs4_acl", out _), Is.EqualTo(-Notsupported), "and for all to read");
        }
    }

    private uint ModeOf(string name) => Convert.ToUInt32(HostCommand.Run("stat", "-c", "%a", In(name)).Trim(), 8);

    [Test]
    public void Xattrs_HaveTheHostsNamesByTheMap()
    {
        if (!VmmProcess.IsNative && !Environment.IsPrivilegedProcess)
            Assert.Ignore("run as root");
        FuseGuest guest = Begin();
        ulong node = guest.Create(FuseGuest.Root, "file").Node;
        Assert.That(guest.SetXattr(node, "user.mine", "value"u8.ToArray()), Is.Zero);
        Assert.That(guest.SetXattr(node, "trusted.overlay.opaque", "y"u8.ToArray()), Is.Zero);
        Assert.That(guest.SetXattr(node, "user.virtiofs.trusted.x", "y"u8.ToArray()), Is.EqualTo(-Eperm), "that name is this side's");
        Assert.That(guest.GetXattr(node, "trusted.overlay.opaque", out byte[] value), Is.Zero);
        Assert.That(value, Is.EqualTo("y"u8.ToArray()));
        Assert.That(guest.GetXattr(node, "user.nothing", out _), Is.EqualTo(-Nodata));
        Assert.That(guest.ListXattrs(node), Is.EquivalentTo(new[] { "user.mine", "trusted.overlay.opaque" }));
        Assert.That(U32(guest.Demand(23, node, Bytes(0U, 0U), 8), 0), Is.EqualTo("user.mine".Length + "trusted.overlay.opaque".Length + 2), "how long the list is");
        guest.Fuse.Caller = (1000, 1000);
        Assert.That(guest.ListXattrs(node), Is.EqualTo(new[] { "user.mine" }), "the names of trusted.* are for root to see");
        guest.Fuse.Caller = (0, 0);
        Assert.That(guest.Try(24, node, Name("user.mine")), Is.Zero);
        Assert.That(guest.ListXattrs(node), Is.EqualTo(new[] { "trusted.overlay.opaque" }));
        guest.Begin(FuseGuest.AllFlags & ~(ulong)FuseFlags.PosixAcl);
        Assert.That(guest.SetXattr(guest.Node("file"), "system.posix_acl_access", [2, 0, 0, 0]), Is.EqualTo(-Notsupported), "nobody would check it");
    }

    [TestCase(true)]
    [TestCase(false)]
    public void SecurityLabel_OfANewFile_IsKept(bool isExtension)
    {
        FuseGuest guest = Begin("--security-label", "--xattrmap", ":map:security.selinux:user.virtiofs.:");
        Assert.That(guest.Flags & (ulong)FuseFlags.SecurityContext, Is.Not.Zero);
        byte[] value = "system_u:object_r:etc_t:s0"u8.ToArray();
        byte[] context = [.. Bytes((uint)value.Length, 0U), .. Name("security.selinux"), .. value];
        context = [.. context, .. new byte[-context.Length & 7]];
        byte[] header = Bytes((uint)(8 + context.Length), 1U);
        int Make(uint code, byte[] arguments, string name)
        {
            byte[] names = [.. arguments, .. Name(name), .. code == 6 ? Name("target") : []];
            byte[] padding = isExtension ? new byte[-names.Length & 7] : [];
            return guest.Fuse.Try(code, FuseGuest.Root, [.. names, .. padding, .. header, .. context], 144, out _, extensions: isExtension ? 8 + context.Length : 0);
        }
        Assert.That(Make(35, Bytes(0x42U, 0x81A4U, 0U, 0U), "file"), Is.Zero, "create");
        Assert.That(Make(9, Bytes(0x1EDU, 0U), "directory"), Is.Zero, "mkdir");
        foreach (string name in new[] { "file", "directory" })
        {
            Assert.That(guest.GetXattr(guest.Node(name), "security.selinux", out byte[] kept), Is.Zero, name);
            Assert.That(kept, Is.EqualTo(value), name);
        }
        // A name that the host does not take: nothing is left.
        context[8 + "security.".Length] = (byte)'x';
        Assert.That(Make(9, Bytes(0x1EDU, 0U), "refused"), Is.Negative);
        Assert.That(Directory.Exists(In("refused")), Is.False);
    }

    [Test]
    public void Xattrs_Off_AreNotThere()
    {
        FuseGuest guest = Begin("--no-xattr");
        Assert.That(guest.SetXattr(FuseGuest.Root, "user.x", [1]), Is.EqualTo(-Enosys));
        Assert.That(guest.Flags & (ulong)FuseFlags.PosixAcl, Is.Zero);
    }

    [Test]
    public void New_Files_BelongToTheirUsers()
    {
        RequireRoot();
        File.SetUnixFileMode(Shared, (UnixFileMode)0x1FF);
        FuseGuest guest = Begin();
        guest.Fuse.Caller = (1234, 2345);
        ulong file = guest.Create(FuseGuest.Root, "file", mode: 0x8000 | 0x1B6, mask: 0x12).Node;
        ulong directory = guest.MakeDirectory(FuseGuest.Root, "directory", mode: 0x1C0);
        guest.Demand(6, FuseGuest.Root, [.. Name("link"), .. Name("x")], 128);
        guest.Demand(8, FuseGuest.Root, [.. Bytes(0x11A4U, 0U, 0U, 0U), .. Name("fifo")], 128);
        foreach (string name in new[] { "file", "directory", "link", "fifo" })
            Assert.That(HostCommand.Run("stat", "-c", "%u %g", In(name)).Trim(), Is.EqualTo("1234 2345"), name);
        Assert.That((U32(guest.Attributes(file), 68), U32(guest.Attributes(directory), 60)), Is.EqualTo((1234U, 0x41C0U)));
        Assert.That(File.GetUnixFileMode(In("file")), Is.EqualTo((UnixFileMode)0x1A4), "the umask, which is left to this side with ACLs");
        // In the directory of another user, where the guest's kernel knows that they may: by an ACL, or a capability.
        guest.Fuse.Caller = (4321, 4321);
        guest.Create(directory, "another's");
        Assert.That(HostCommand.Run("stat", "-c", "%u %g", In("directory/another's")).Trim(), Is.EqualTo("4321 4321"));
        Assert.That(guest.Try(34, directory, Bytes(2U, 0U)), Is.EqualTo(-Eacces), "access(2), where the host is asked");
        guest.Fuse.Caller = (0, 0);
        Assert.That(HostCommand.Run("stat", "-c", "%u", In("file")).Trim(), Is.EqualTo("1234"));
        guest.Create(FuseGuest.Root, "roots");
        Assert.That(HostCommand.Run("stat", "-c", "%u", In("roots")).Trim(), Is.EqualTo("0"), "and the thread is itself again");
        // A group of the caller's by which he may write there: FUSE_EXT_GROUPS. Only a member's file has the set-group-id bit.
        const uint mode = 0x85ED;
        HostCommand.Run("chown", "0:777", In("directory"));
        HostCommand.Run("chmod", "2770", In("directory"));
        guest.Fuse.Caller = (1234, 2345);
        byte[] arguments = [.. Bytes(0x42U, mode, 0U, 0U), .. Name("withgroup"), .. new byte[6]];
        Assert.That(guest.Fuse.Try(35, directory, [.. arguments, .. Bytes(16U, 32U, 1U, 777U)], 144, out _, extensions: 16), Is.Zero);
        Assert.That(HostCommand.Run("stat", "-c", "%u %g %a", In("directory/withgroup")).Trim(), Is.EqualTo("1234 777 2755"));
        guest.Create(directory, "without", mode);
        Assert.That(HostCommand.Run("stat", "-c", "%u %g %a", In("directory/without")).Trim(), Is.EqualTo("1234 777 755"), "it was for that request alone");
    }

    // In a directory that belongs to a user of the guest's, who is none of the host's.
    [Test]
    public void New_ByTheGuestsRootWhoIsAUserHere_IsPossibleWhereverRootMay()
    {
        RequireRoot();
        HostCommand.Run("chown", "100000:100000", Shared);
        Directory.CreateDirectory(In("home"));
        HostCommand.Run("chown", "101000:101000", In("home"));
        FuseGuest guest = Begin("--translate-uid", "map:0:100000:65536", "--translate-gid", "map:0:100000:65536");
        ulong home = guest.Node("home");
        Assert.Multiple(() =>
        {
            Assert.That(guest.TryCreate(home, "file"), Is.Not.Negative);
            Assert.That(guest.Try(9, home, [.. Bytes(0x1EDU, 0U), .. Name("directory")], 128), Is.Zero, "mkdir");
            Assert.That(guest.Try(6, home, [.. Name("link"), .. Name("x")], 128), Is.Zero, "symlink");
            Assert.That(guest.Try(8, home, [.. Bytes(0x21B6U, 0x103U, 0U, 0U), .. Name("null")], 128), Is.Zero, "mknod");
        });
        foreach (string name in new[] { "file", "directory", "link", "null" })
            Assert.That(HostCommand.Run("stat", "-c", "%u %g", In($"home/{name}")).Trim(), Is.EqualTo("100000 100000"), name);
        // Root keeps the bit where he is not in the group, and another does not.
        HostCommand.Run("chmod", "2777", In("home"));
        guest.Create(home, "roots", mode: 0x85ED);
        guest.Fuse.Caller = (1, 1);
        guest.Create(home, "another's", mode: 0x85ED);
        Assert.That((ModeOf("home/roots"), ModeOf("home/another's")), Is.EqualTo((0x5EDU, 0x1EDU)));
    }

    // A guest with Linux before 6.3 has checked it, and cannot say by which of the caller's groups.
    [Test]
    public void New_InADirectoryOfAnyGroup_IsMadeForItsUser()
    {
        RequireRoot();
        Directory.CreateDirectory(In("directory"));
        HostCommand.Run("chown", "0:777", In("directory"));
        HostCommand.Run("chmod", "2770", In("directory"));
        Serve();
        FuseGuest guest = Keep(new FuseGuest(SocketPath, FuseGuest.AllFlags & ~(ulong)FuseFlags.CreateSupplementaryGroup));
        ulong directory = guest.Node("directory");
        guest.Fuse.Caller = (1234, 2345);
        guest.Create(directory, "file");
        guest.MakeDirectory(directory, "below");
        guest.Demand(6, directory, [.. Name("link"), .. Name("x")], 128);
        guest.Demand(8, directory, [.. Bytes(0x11A4U, 0U, 0U, 0U), .. Name("fifo")], 128);
        foreach (string name in new[] { "file", "below", "link", "fifo" })
            Assert.That(HostCommand.Run("stat", "-c", "%u %g", In($"directory/{name}")).Trim(), Is.EqualTo("1234 777"), name);
        guest.Fuse.Caller = (0, 0);
        guest.Create(directory, "roots");
        Assert.That(HostCommand.Run("stat", "-c", "%u", In("directory/roots")).Trim(), Is.EqualTo("0"), "and the thread is itself again");
        Assert.That(guest.Try(4, directory, [.. Bytes(6U, 0U), .. Bytes(0UL, 0UL, 0UL, 0UL, 0UL, 0UL), .. Bytes(0U, 0U, 0U, 0U, 0U, 0U, 5U, 5U)], 128), Is.Zero, "with all that it may do");
    }

    // A service with Group=, or a user namespace that a user enters with a group of the user's own.
    [Test]
    public void New_WhereTheDaemonBeganInAnotherGroup_BelongsToTheGuestsGroup()
    {
        RequireRoot();
        Keep(new PeerProcess("setpriv", ["--regid", "1234", "--clear-groups", .. VmmProcess.Command, "backend", "fs", "--socket-path", SocketPath, "--shared-dir", Shared]));
        Eventually.True(() =>
        {
            bool listens = UnixSocket.TryConnect(SocketPath, out UnixSocket? socket) == 0;
            socket?.Dispose();
            return listens;
        }, () => "the back-end does not listen");
        FuseGuest guest = Keep(new FuseGuest(SocketPath));
        guest.Create(FuseGuest.Root, "roots");
        guest.Fuse.Caller = (1, 2);
        guest.Create(FuseGuest.Root, "another's");
        guest.Fuse.Caller = (0, 0);
        guest.Create(FuseGuest.Root, "roots again");
        foreach ((string name, string owner) in new[] { ("roots", "0 0"), ("another's", "1 2"), ("roots again", "0 0") })
            Assert.That(HostCommand.Run("stat", "-c", "%u %g", In(name)).Trim(), Is.EqualTo(owner), name);
    }

    [Test]
    public void Write_OfTheGuestsCacheToAFullFileSystem_IsAnError()
    {
        RequireRoot();
        HostCommand.Run("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", Shared);
        try
        {
            FuseGuest guest = Begin();
            (ulong node, ulong handle) = guest.Create(FuseGuest.Root, "file");
            byte[] data = new byte[512 << 10];
            byte[] Arguments(uint flags) => [.. Bytes(handle, 0UL), .. Bytes((uint)data.Length, flags), .. Bytes(0UL), .. Bytes(0U, 0U)];
            byte[] some = guest.Demand(16, node, Arguments(0), 8, data);
            Assert.That(U32(some, 0), Is.InRange(1U, (uint)data.Length - 1), "a program sees how much was written");
            Assert.That(guest.Fuse.Try(16, node, Arguments(1), 8, out _, data), Is.EqualTo(-28), "Linux looks for an error only, after a write of its cache");
        }
        finally
        {
            HostCommand.Run("umount", "--lazy", Shared);
        }
    }

    [Test]
    public void Write_ThatIsToReachTheDisk_IsDone()
    {
        FuseGuest guest = Begin();
        (ulong node, ulong handle) = guest.Create(FuseGuest.Root, "file");
        foreach (uint flags in new uint[] { 0x1000, 0x101000 })
        {
            guest.Demand(16, node, [.. Bytes(handle, 0UL), .. Bytes(4U, 0U), .. Bytes(0UL), .. Bytes(flags, 0U)], 8, "data"u8.ToArray());
            Assert.That(File.ReadAllText(In("file")), Is.EqualTo("data"));
        }
    }

    [Test]
    public void Handle_OfAnotherFile_IsNone()
    {
        FuseGuest guest = Begin();
        (ulong one, ulong _) = guest.Create(FuseGuest.Root, "one");
        (ulong _, ulong other) = guest.Create(FuseGuest.Root, "other");
        Assert.That(guest.Fuse.Try(16, one, [.. Bytes(other, 0UL), .. Bytes(4U, 0U), .. Bytes(0UL), .. Bytes(0U, 0U)], 8, out _, "data"u8.ToArray()), Is.EqualTo(-Ebadf));
        Assert.That(guest.Try(15, one, [.. Bytes(other, 0UL), .. Bytes(4096U, 0U), .. Bytes(0UL), .. Bytes(0U, 0U)], 4096), Is.EqualTo(-Ebadf));
        Assert.That(new FileInfo(In("other")).Length, Is.Zero);
    }

    [Test]
    public void Lock_OfManyRanges_HasALimitAlsoWhereRangesAreGivenUp()
    {
        FuseGuest guest = Begin();
        (ulong node, ulong handle) = guest.Create(FuseGuest.Root, "file");
        Assert.That(guest.Lock(node, handle, owner: 1, type: 1), Is.Zero);
        ulong at = 1;
        for (; at < 2 * 4096 - 1; at += 2)
            Assert.That(guest.Lock(node, handle, owner: 1, type: 2, start: at, end: at), Is.Zero, $"{at}");
        Assert.That(guest.Lock(node, handle, owner: 1, type: 2, start: at, end: at), Is.EqualTo(-37), "ENOLCK: one more range");
        Assert.That(guest.Lock(node, handle, owner: 1, type: 2, end: 0), Is.Zero, "what makes no range more");
        Assert.That(guest.Lock(node, handle, owner: 1, type: 2), Is.Zero);
    }

    [Test]
    public void Ids_AreTranslated()
    {
        RequireRoot();
        File.WriteAllText(In("file"), "");
        HostCommand.Run("chown", "1000:1000", In("file"));
        File.SetUnixFileMode(Shared, (UnixFileMode)0x1FF);
        FuseGuest guest = Begin("--translate-uid", "map:0:1000:10", "--translate-uid", "forbid-guest:50:5", "--translate-gid", "squash-guest:0:1000:100", "--translate-gid", "host:1000:0:1");
        byte[] attributes = guest.Attributes(guest.Node("file"));
        Assert.That((U32(attributes, 68), U32(attributes, 72)), Is.EqualTo((0U, 0U)));
        guest.Fuse.Caller = (3, 7);
        guest.Create(FuseGuest.Root, "made");
        Assert.That(HostCommand.Run("stat", "-c", "%u %g", In("made")).Trim(), Is.EqualTo("1003 1000"));
        guest.Fuse.Caller = (52, 7);
        Assert.That(guest.TryCreate(FuseGuest.Root, "forbidden"), Is.EqualTo(-Eperm));
        Assert.That(guest.Try(4, guest.Node("made"), SetAttributes(valid: 2, user: 54), 104), Is.EqualTo(-Eperm));
        guest.Demand(4, guest.Node("made"), SetAttributes(valid: 2, user: 4), 104);
        Assert.That(HostCommand.Run("stat", "-c", "%u", In("made")).Trim(), Is.EqualTo("1004"));
    }

    [Test]
    public void SetIdBits_GoWithWritesThatSaySo()
    {
        RequireRoot();
        FuseGuest guest = Begin();
        (ulong node, ulong handle) = guest.Create(FuseGuest.Root, "file", mode: 0x8000 | 0x9ED);
        void Write(uint flags) => guest.Demand(16, node, [.. Bytes(handle, 0UL), .. Bytes(1U, flags), .. Bytes(0UL), .. Bytes(0U, 0U)], 8, [1]);
        Write(0);
        Assert.That(U32(guest.Attributes(node), 60) & 0x800, Is.EqualTo(0x800), "root wrote");
        Write(4);
        Assert.That(U32(guest.Attributes(node), 60) & 0x800, Is.Zero, "FUSE_WRITE_KILL_SUIDGID");
        guest.Demand(4, node, SetAttributes(valid: 1, mode: 0x89ED), 104);
        guest.Demand(4, node, SetAttributes(valid: 8 | 2048, size: 0), 104);
        Assert.That(U32(guest.Attributes(node), 60) & 0x800, Is.Zero, "FATTR_KILL_SUIDGID");
        guest.Demand(4, node, SetAttributes(valid: 1, mode: 0x89ED), 104);
        Assert.That(guest.Open(node, 0x201, openFlags: 1), Is.Not.Negative);
        Assert.That(U32(guest.Attributes(node), 60) & 0x800, Is.Zero, "FUSE_OPEN_KILL_SUIDGID");
    }

    [Test]
    public void Locks_HoldAgainstTheHostAndOtherOwners()
    {
        FuseGuest guest = Begin();
        (ulong node, ulong handle) = guest.Create(FuseGuest.Root, "file");
        ulong second = (ulong)guest.Open(node);
        Assert.That(guest.Lock(node, handle, owner: 1, type: 1, start: 0, end: 99), Is.Zero);
        Assert.That(guest.Lock(node, handle, owner: 2, type: 1, start: 50, end: 150), Is.EqualTo(-Eagain));
        Assert.That(guest.Lock(node, handle, owner: 2, type: 1, start: 100, end: 150), Is.Zero);
        byte[] found = guest.Demand(31, node, FuseGuest.LockArguments(handle, 2, 1, start: 10, end: 20), 24);
        Assert.That((U64(found, 0), U64(found, 8), U32(found, 16), U32(found, 20)), Is.EqualTo((0UL, 99UL, 1U, FuseGuest.LockProcess)), "what is locked, and who has it");
        Assert.That(IsLockedOnHost("fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10)"), "a program of the host's");
        Assert.That(guest.Lock(node, handle, owner: 1, type: 2, start: 90, end: 99), Is.Zero);
        found = guest.Demand(31, node, FuseGuest.LockArguments(handle, 2, 1, start: 10, end: 20), 24);
        Assert.That((U64(found, 8), U32(found, 20)), Is.EqualTo((89UL, FuseGuest.LockProcess)), "a part is given up, and the rest is still its");
        guest.Demand(25, node, [.. Bytes(handle), .. Bytes(0U, 0U), .. Bytes(1UL)]);
        Assert.That(guest.Lock(node, handle, owner: 2, type: 1, start: 0, end: 99), Is.Zero, "the first owner has closed");

        Assert.That(guest.Lock(node, handle, owner: 1, type: 1, isFlock: true), Is.Zero);
        Assert.That(guest.Lock(node, second, owner: 2, type: 0, isFlock: true), Is.EqualTo(-Eagain));
        Assert.That(IsLockedOnHost("fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)"));
        guest.Fuse.Release(node, handle);
        Assert.That(guest.Lock(node, second, owner: 2, type: 0, isFlock: true), Is.Zero);
        Assert.That(guest.Lock(node, second, owner: 2, type: 7), Is.EqualTo(-Invalid));
    }

    [Test]
    public void Locks_ThatAreWaitedFor_HoldNothingElseUp()
    {
        FuseGuest guest = Begin();
        (ulong node, ulong handle) = guest.Create(FuseGuest.Root, "file");
        Assert.That(guest.Lock(node, handle, owner: 1, type: 1), Is.Zero);
        var second = new PendingRequest(guest, 33, node, FuseGuest.LockArguments(handle, 2, 1));
        var third = new PendingRequest(guest, 33, node, FuseGuest.LockArguments(handle, 3, 1));
        Assert.That(guest.TryAttributes(node), Is.Zero, "others go on");
        Assert.That(guest.Lock(node, handle, owner: 1, type: 2), Is.Zero);
        // One that the back-end has only just seen may be faster than one that waits.
        Eventually.True(() => second.HasEnded || third.HasEnded, () => "nobody has got the lock");
        (PendingRequest first, PendingRequest other) = second.HasEnded ? (second, third) : (third, second);
        Assert.That(first.Await(), Is.Zero);
        Assert.That(other.HasEnded, Is.False);
        guest.Peer.Pause();
        // Linux makes ERESTARTSYS of EINTR, which a program sees as error 512 where no signal is on its way.
        Assert.That(other.Await(), Is.EqualTo(-37), "a pause ends the wait: ENOLCK");
    }

    [Test]
    public void Descriptors_FewerThanFiles_AreEnough()
    {
        int files = VmmTest.IsFull ? 100_000 : 3000, limit = VmmTest.IsFull ? 4096 : 400;
        for (int i = 0; i < files; i++)
            File.WriteAllText(Path.Combine(Directory.CreateDirectory(In($"d{i % 10}")).FullName, $"f{i}"), $"{i}");
        VmmProcess process = Serve("--rlimit-nofile", $"{limit}");
        using var guest = new FuseGuest(SocketPath);
        ulong[] nodes = [.. Enumerable.Range(0, files).Select(i => guest.Node($"d{i % 10}/f{i}"))];
        for (int i = 0; i < files; i++)
            Assert.That(guest.ReadText(nodes[i]), Is.EqualTo($"{i}"));
        Assert.That(Directory.GetFiles($"/proc/{process.Id}/fd"), Has.Length.LessThan(limit));
        // As many as there are descriptors for, and then no more; those that are open go on.
        var handles = new List<long>();
        for (int i = 0; i < limit + 100 && (handles.Count == 0 || handles[^1] >= 0); i++)
            handles.Add(guest.Open(nodes[i], 0));
        Assert.That(handles[^1], Is.EqualTo(-24), "EMFILE");
        Assert.That(handles, Has.Count.GreaterThan(limit / 2));
        Assert.That(guest.Fuse.Read(nodes[0], (ulong)handles[0], 0, 100), Is.EqualTo("0"u8.ToArray()));
        process.WaitForErrors("as many files open as this process may have descriptors");
        for (int i = 0; i < handles.Count - 1; i++)
            guest.Fuse.Release(nodes[i], (ulong)handles[i]);
        Assert.That(guest.ReadText(nodes[files - 1]), Is.EqualTo($"{files - 1}"));
    }

    [Test]
    public void Forget_EveryLookup_LeavesNothing()
    {
        for (int i = 0; i < 100; i++)
            File.WriteAllText(In($"f{i}"), "");
        VmmProcess process = Serve();
        using var guest = new FuseGuest(SocketPath);
        int before = Directory.GetFiles($"/proc/{process.Id}/fd").Length;
        for (int i = 0; i < 100; i++)
        {
            ulong node = guest.Node($"f{i}");
            Assert.That(guest.Node($"f{i}"), Is.EqualTo(node));
            guest.ReadText(node);
            guest.Fuse.Forget(node, 1);
            Assert.That(guest.TryAttributes(node), Is.Zero, "once more was it told");
            guest.Fuse.Forget(node, 1);
            Assert.That(guest.TryAttributes(node), Is.EqualTo(-Stale));
            guest.Fuse.Forget(node, ulong.MaxValue);
        }
        guest.Fuse.Forget(FuseGuest.Root, ulong.MaxValue);
        Assert.That(guest.TryAttributes(FuseGuest.Root), Is.Zero, "the root is never forgotten");
        Assert.That(Directory.GetFiles($"/proc/{process.Id}/fd"), Has.Length.EqualTo(before));
    }

    [Test]
    public void Ioctl_FlagsOfFiles_AreReadAndNothingElse()
    {
        FuseGuest guest = Begin();
        (ulong node, ulong handle) = guest.Create(FuseGuest.Root, "file");
        byte[] Arguments(uint command, params byte[] data) => [.. Bytes(handle), .. Bytes(0U, command), .. Bytes(0UL), .. Bytes((uint)data.Length, 8U), .. data];
        int error = guest.Fuse.Try(39, node, Arguments(0x80086601), 24, out byte[] reply);
        Assert.That(error, Is.Zero.Or.EqualTo(-25).Or.EqualTo(-Notsupported), "a file system may have no flags");
        if (error == 0)
            Assert.That(reply, Has.Length.EqualTo(20));
        Assert.That(guest.Try(39, node, Arguments(0x40049409), 16), Is.EqualTo(-25), "FICLONE");
        Assert.That(guest.Try(39, node, Arguments(0x5421), 16), Is.EqualTo(-25), "FIONBIO");
        Assert.That(guest.Try(39, node, Arguments(0x40086602), 16), Is.EqualTo(-Invalid), "no flags to set");
    }

    // Linux before 5.13 does not ask whose file it is.
    [Test]
    public void Ioctl_ThatSetsFlags_IsForTheOwnerAndRoot()
    {
        RequireRoot();
        const uint noDump = 0x40;
        File.WriteAllText(In("file"), "");
        HostCommand.Run("chown", "1000:1000", In("file"));
        Serve();
        FuseGuest old = Keep(new FuseGuest(SocketPath, FuseGuest.AllFlags & ~(ulong)FuseFlags.SetXattrExtension));
        ulong node = old.Node("file"), handle = (ulong)old.Open(node, flags: 0);
        int Set(FuseGuest guest, uint user, uint flags)
        {
            guest.Fuse.Caller = (user, user);
            return guest.Try(39, node, [.. Bytes(handle), .. Bytes(0U, 0x40086602U), .. Bytes(0UL), .. Bytes(8U, 0U), .. Bytes((ulong)flags)], 16);
        }
        if (Set(old, 0, noDump) != 0)
            Assert.Ignore("this file system has no such flags");
        Assert.That(Set(old, 1001, 0), Is.EqualTo(-Eperm), "another user");
        Assert.That(Set(old, 1000, 0), Is.Zero, "the owner");
        // A newer one has asked, and knows who may besides.
        old.Fuse.Caller = (0, 0);
        old.Begin(FuseGuest.AllFlags);
        (node, handle) = (old.Node("file"), (ulong)old.Open(old.Node("file"), flags: 0));
        Assert.That(Set(old, 1001, noDump), Is.Zero);
    }

    [Test]
    public void FsyncDirectory_OfAClosedOne_IsAnError()
    {
        FuseGuest guest = Begin();
        ulong directory = guest.MakeDirectory(FuseGuest.Root, "directory");
        ulong handle = U64(guest.Demand(27, directory, Bytes(0U, 0U), 16), 0);
        int Synchronize(ulong node, uint flags) => guest.Try(30, node, [.. Bytes(handle), .. Bytes(flags, 0U)]);
        Assert.That((Synchronize(directory, 0), Synchronize(directory, 1)), Is.EqualTo((0, 0)), "fsync and fdatasync");
        Assert.That(Synchronize(FuseGuest.Root, 0), Is.EqualTo(-Ebadf), "a handle of another directory");
        guest.Demand(29, directory, [.. Bytes(handle), .. Bytes(0U, 0U), .. Bytes(0UL)]);
        Assert.That(Synchronize(directory, 0), Is.EqualTo(-Ebadf));
        Assert.That(guest.Try(30, directory, Bytes(handle)), Is.EqualTo(-Invalid), "too short");
    }

    private static byte[] SetAttributes(
        uint valid, ulong size = 0, uint mode = 0, ulong accessed = 0, ulong modified = 0, uint user = 0) =>
        [.. Bytes(valid, 0U), .. Bytes(0UL, size, 0UL, accessed, modified, 0UL), .. Bytes(0U, 0U, 0U, mode, 0U, user, 0U, 0U)];
}
