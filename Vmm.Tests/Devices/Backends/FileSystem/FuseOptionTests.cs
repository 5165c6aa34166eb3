using System.Globalization;
using System.Runtime.Versioning;
using NUnit.Framework;
using Vmm.Devices.Backends.FileSystem;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;
using Vmm.Vhost.Native.FileSystem;
using static Vmm.Tests.Conformance.FuseClient;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>What a guest gets by options of <c>vmm backend fs</c>.</summary>
[SupportedOSPlatform("linux")]
public class FuseOptionTests : FileSystemTest
{
    private const int EntrySeconds = 16, AttributesSeconds = 24, EntryFlags = 124, AttributesFlags = 84;   // of struct fuse_entry_out and fuse_attr
    private const int EntryBlockSize = 120, AttributesBlockSize = 80, StatxBlockSize = 36;
    private const uint DaxFlag = 2;     // FUSE_ATTR_DAX
    private const uint WriteOnly = 1, ReadWrite = 2, AppendFlag = 0x400;    // O_* of asm-generic/fcntl.h
    private const ulong AllFlags = FuseGuest.AllFlags | (ulong)FuseFlags.DirectIoAllowMmap;

    [TestCase(true)]
    [TestCase(false)]
    public void Lookup_DirectoryWhereSomethingIsMounted_IsMarkedUnlessTurnedOff(bool isAnnounced)
    {
        RequireRoot();
        Directory.CreateDirectory(In("plain"));
        string mounted = Directory.CreateDirectory(In("mounted")).FullName;
        (int status, string output) = HostCommand.TryRun("mount", "-t", "tmpfs", "none", mounted);
        if (status != 0)
            Assert.Ignore($"nothing can be mounted here: {output}");
        try
        {
            File.WriteAllText(Path.Combine(mounted, "inside"), "");
            FuseGuest guest = Begin(isAnnounced ? [] : ["--no-announce-submounts"]);
            uint Flags(ulong parent, string name) => U32(guest.Demand(1, parent, Name(name), FuseGuest.EntrySize), EntryFlags);

            Assert.Multiple(() =>
            {
                Assert.That(Flags(FuseGuest.Root, "mounted"), Is.EqualTo(isAnnounced ? 1U : 0U), "FUSE_ATTR_SUBMOUNT");
                Assert.That(Flags(FuseGuest.Root, "plain"), Is.Zero);
                Assert.That(Flags(guest.Node("mounted"), "inside"), Is.Zero, "a file of it");
            });
        }
        finally
        {
            HostCommand.Run("umount", "--lazy", mounted);
        }
    }

    // FOPEN_KEEP_CACHE and FOPEN_CACHE_DIR, as virtiofsd has them.
    [TestCase(0U)]
    [TestCase(0U, "--cache=never")]
    [TestCase(10U, "--cache=metadata")]
    [TestCase(10U, "--cache=always")]
    public void OpenDirectory_Cache_IsWhetherTheGuestKeepsEntries(uint expected, params string[] options)
    {
        byte[] reply = Begin(options).Demand(27, FuseGuest.Root, Bytes(0U, 0U), 16);
        Assert.That(U32(reply, 8), Is.EqualTo(expected));
    }

    [TestCase(true, "--allow-mmap", "--cache=never")]
    [TestCase(false, "--cache=never")]
    public void Init_AllowMmap_IsOfferedIfAskedFor(bool expected, params string[] options)
    {
        Serve(options);
        FuseGuest guest = Keep(new FuseGuest(SocketPath, AllFlags));
        Assert.That((guest.Flags & (ulong)FuseFlags.DirectIoAllowMmap) != 0, Is.EqualTo(expected));
    }

    [TestCase(true)]
    [TestCase(true, "--xattrmap", ":map:security.selinux:user.virtiofs.:")]
    [TestCase(false, "--xattrmap", ":map::user.virtiofs.:")]
    [TestCase(false, "--xattrmap", ":prefix:all:system.:user.:/ok/all///")]
    [TestCase(false, "--xattrmap", ":bad:client:system.posix_acl_default::/ok/all///")]
    public void Init_XattrMap_HasAclsOnlyWhereTheirNamesStay(bool expected, params string[] options)
    {
        FuseGuest guest = Begin(options);
        const ulong acls = (ulong)(FuseFlags.PosixAcl | FuseFlags.DontMask);
        Assert.That(guest.Flags & acls, Is.EqualTo(expected ? acls : 0));
    }

    [TestCase(1UL)]
    [TestCase(7UL, "--timeout", "7")]
    [TestCase(0UL, "-o", "cache=always,timeout=0")]
    public void Lookup_Timeout_IsHowLongTheGuestKeepsAnEntry(ulong expected, params string[] options)
    {
        File.WriteAllText(In("file"), "");
        FuseGuest guest = Begin(options);
        byte[] entry = guest.Demand(1, FuseGuest.Root, Name("file"), FuseGuest.EntrySize);
        Assert.That((U64(entry, EntrySeconds), U64(entry, AttributesSeconds)), Is.EqualTo((expected, expected)));
    }

    [Test]
    public void Lookup_TimeoutWithAPartOfASecond_IsThat()
    {
        FuseGuest guest = Begin("-o", "timeout=2.5");
        byte[] entry = guest.Demand(9, FuseGuest.Root, [.. Bytes(0x1EDU, 0U), .. Name("directory")], FuseGuest.EntrySize);
        byte[] attributes = guest.Demand(3, FuseGuest.Root, Bytes(0UL, 0UL), FuseGuest.AttributesSize);
        byte[] statx = guest.Demand(52, FuseGuest.Root, [.. Bytes(0U, 0U), .. Bytes(0UL), .. Bytes(0U, 0xFFFU)], 288);
        (ulong, uint) expected = (2, 500_000_000);
        Assert.That((U64(entry, EntrySeconds), U32(entry, 32)), Is.EqualTo(expected));
        Assert.That((U64(entry, AttributesSeconds), U32(entry, 36)), Is.EqualTo(expected));
        Assert.That(((U64(attributes, 0), U32(attributes, 8)), (U64(statx, 0), U32(statx, 8))), Is.EqualTo((expected, expected)));
    }

    // A guest that has a file mapped writes to it without a word to this side, which could take the bits away (FUSE_HANDLE_KILLPRIV_V2).
    [TestCase(true)]
    [TestCase(false, "--no-killpriv-v2")]
    [TestCase(false, "--dax-window", "2M")]
    public void Init_SetIdBits_AreTheHostsToTakeAwayUnlessFilesAreMapped(bool expected, params string[] options) =>
        Assert.That((Begin(options).Flags & (ulong)FuseFlags.HandleKillPrivileges2) != 0, Is.EqualTo(expected));

    // Also where the guest has forgotten what it wrote there.
    [TestCase(false)]
    [TestCase(true)]
    public void SyncFs_WithoutSubmounts_ReachesWhatIsMounted(bool isForgotten)
    {
        RequireRoot();
        string image = Path.Combine(Scratch, "image"), mounted = Directory.CreateDirectory(In("mounted")).FullName;
        using (FileStream file = File.Create(image))
            file.SetLength(32 << 20);
        (int status, string output) = HostCommand.TryRun("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image);
        if (status == 0)
            (status, output) = HostCommand.TryRun("mount", "-o", "loop,commit=300", image, mounted);
        if (status != 0)
            Assert.Ignore($"no ext4 can be mounted here: {output}");
        try
        {
            HostCommand.Run("sync", "--file-system", mounted);
            string device = Path.GetFileName(HostCommand.Run("findmnt", "-n", "-o", "SOURCE", mounted).Trim());
            long Sectors() => long.Parse(File.ReadAllText($"/sys/block/{device}/stat").Split(' ', StringSplitOptions.RemoveEmptyEntries)[6], CultureInfo.InvariantCulture);
            FuseGuest guest = Begin("--no-announce-submounts");
            ulong directory = guest.Node("mounted");
            (ulong node, ulong handle) = guest.Create(directory, "file");
            byte[] data = new byte[256 << 10];
            Array.Fill(data, (byte)'x');
            guest.Fuse.Write(node, handle, 0, data);
            if (isForgotten)
            {
                guest.Fuse.Release(node, handle);
                guest.Fuse.Forget(node, 1);
                guest.Fuse.Forget(directory, 1);
            }
            long before = Sectors();
            guest.Demand(50, FuseGuest.Root, Bytes(0UL));
            Assert.That(Sectors() - before, Is.GreaterThanOrEqualTo(data.Length / 512));
        }
        finally
        {
            HostCommand.Run("umount", "--lazy", mounted);
        }
    }

    // 1073741816 is what systemd makes of LimitNOFILE=infinity.
    [TestCase(0UL, 64)]
    [TestCase(400UL, 108)]
    [TestCase(1_048_576UL, 786_240)]
    [TestCase(1_073_741_816UL, 805_306_170)]
    [TestCase(ulong.MaxValue, int.MaxValue)]
    public void DescriptorsForFiles_Limit_AreAPartOfIt(ulong limit, int expected) => Assert.That(FuseServer.DescriptorsForFiles(limit), Is.EqualTo(expected));

    [TestCase("always", true)]
    [TestCase("inode", false)]
    [TestCase("never", false)]
    public void Lookup_DaxPolicy_SaysWhichFilesAreMapped(string policy, bool expected)
    {
        File.WriteAllText(In("file"), "");
        FuseGuest guest = Begin("--dax-window", "2M", "--dax", policy);
        Assert.That(IsForDax(guest, "file"), Is.EqualTo(expected));
        Assert.That(U32(guest.Attributes(guest.Node("file")), AttributesFlags), Is.EqualTo(expected ? DaxFlag : 0), "the same later");
    }

    [Test]
    public void Lookup_FileThatTheHostHasMarked_IsMapped()
    {
        File.WriteAllText(In("file"), "");
        (int status, string output) = HostCommand.TryRun("chattr", "+x", In("file"));
        if (status != 0)
            Assert.Ignore($"this file system has no such mark: {output}");
        FuseGuest guest = Begin("--dax-window", "2M", "--dax", "inode");
        Assert.That(IsForDax(guest, "file"));
    }

    [TestCase(false)]
    [TestCase(true)]
    public void Start_SocketGroup_MayConnect(bool isOfAnotherDevice)
    {
        RequireRoot();
        if (isOfAnotherDevice)
            StartBackend("rng", "--socket-group", "4242");
        else
            Serve("--socket-group", "4242");
        string seen = "";
        Eventually.True(() => (seen = HostCommand.Run("stat", "-c", "%g %a %u", SocketPath).Trim()) == "4242 660 0", () => $"the socket has {seen}");
    }

    // virtiofsd needs the first for file handles.
    [Test]
    public void Start_CapabilitiesOfNoUse_AreLeftOutWithOneWarning()
    {
        VmmProcess process = Serve("--modcaps=+dac_read_search:+sys_admin:-chown", "--inode-file-handles=mandatory");
        process.WaitForErrors("--modcaps: +dac_read_search, +sys_admin: this process has no use for that, and gives it up");
        using var guest = new FuseGuest(SocketPath);
        Assert.That(guest.Create(FuseGuest.Root, "file").Node, Is.Positive);
        Assert.That(process.Errors.Split("--modcaps"), Has.Length.EqualTo(2));
    }

    // Its directory may be another user's.
    [Test]
    public void ShareWith_LinkInThePlaceOfTheSocket_ChangesNothing()
    {
        File.WriteAllText(In("secret"), "");
        File.SetUnixFileMode(In("secret"), UnixFileMode.UserRead);
        File.CreateSymbolicLink(In("socket"), In("secret"));

        Assert.That(() => SocketFile.ShareWith(In("socket"), FileOwner.Group), Throws.InstanceOf<IOException>().With.Message.Contains("another program has replaced it"));
        Assert.That(() => SocketFile.ShareWith(In("secret"), FileOwner.Group), Throws.InstanceOf<IOException>());
        Assert.That(File.GetUnixFileMode(In("secret")), Is.EqualTo(UnixFileMode.UserRead));
    }

    [TestCase("0")]
    [TestCase("300")]
    public void Start_DescriptorLimit_IsTheProcesss(string limit) =>
        Assert.That(DescriptorLimits(Serve("--rlimit-nofile", limit).Id).Soft, Is.EqualTo(limit == "0" ? DescriptorLimits(Environment.ProcessId).Soft : limit));

    [Test]
    public void Start_DescriptorLimitAboveTheHardOne_IsRootsToRaise()
    {
        RequireRoot();
        if (HostCommand.TryRun("/bin/sh", "-c", "ulimit -n 1000; ulimit -n 2000").Status != 0)
            Assert.Ignore("this root may not raise a hard limit: it has no CAP_SYS_RESOURCE");
        HostDaemon daemon = Keep(new HostDaemon([SocketPath], "/bin/sh",
            ["-c", "ulimit -n 1000; exec \"$@\"", "sh", .. VmmProcess.Command, "backend", "fs", "--socket-path", SocketPath, "--shared-dir", Shared, "--rlimit-nofile", "2000"]));
        Assert.That(DescriptorLimits(daemon.Id), Is.EqualTo(("2000", "2000")));
    }

    [Test]
    public void KeptCapabilities_SomeGivenUp_AreTheOthers()
    {
        RequireRoot();
        using var all = new FuseServer(new FileSystemOptions { Directory = Shared });
        using var fewer = new FuseServer(new FileSystemOptions { Directory = Shared, GivenUpCapabilities = ThreadPrivileges.Mknod });
        Assert.That((all.KeptCapabilities & ThreadPrivileges.Mknod, fewer.KeptCapabilities), Is.EqualTo((ThreadPrivileges.Mknod, all.KeptCapabilities & ~ThreadPrivileges.Mknod)));
    }

    // Linux can write mapped files back only where their blocks are pages.
    [TestCase(1024U)]
    [TestCase(4096U, "--dax-window", "2M")]
    public void Attributes_OfAFileSystemWithSmallBlocks_HavePagesWhereFilesAreMapped(uint expected, params string[] options)
    {
        RequireRoot();
        string image = Path.Combine(Scratch, "image");
        using (FileStream file = File.Create(image))
            file.SetLength(8 << 20);
        (int status, string output) = HostCommand.TryRun("mkfs.ext4", "-q", "-F", "-b", "1024", image);
        if (status == 0)
            (status, output) = HostCommand.TryRun("mount", "-o", "loop", image, Shared);
        if (status != 0)
            Assert.Ignore($"no ext4 can be mounted here: {output}");
        try
        {
            File.WriteAllText(In("file"), "");
            FuseGuest guest = Begin(options);
            byte[] entry = guest.Demand(1, FuseGuest.Root, Name("file"), FuseGuest.EntrySize);
            byte[] statx = guest.Demand(52, U64(entry, 0), [.. Bytes(0U, 0U), .. Bytes(0UL), .. Bytes(0U, 0xFFFU)], 288);
            Assert.That((U32(entry, EntryBlockSize), U32(guest.Attributes(U64(entry, 0)), AttributesBlockSize), U32(statx, StatxBlockSize)), Is.EqualTo((expected, expected, expected)));
        }
        finally
        {
            HostCommand.Run("umount", "--lazy", Shared);
        }
    }

    // FOPEN_DIRECT_IO is 1, FOPEN_KEEP_CACHE 2, FOPEN_CACHE_DIR 8 of linux/fuse.h. A kernel that has agreed on FUSE_AUTO_INVAL_DATA drops what it keeps of a file that it finds changed.
    [TestCase("auto", true, 0U, 0U, 1UL)]
    [TestCase("always", false, 2U, 2U | 8U, 86400UL)]
    [TestCase("metadata", false, 1U, 2U | 8U, 86400UL)]
    [TestCase("never", false, 1U, 0U, 0UL)]
    public void Cache_EachMode_IsWhatTheGuestIsTold(string mode, bool dropsChanged, uint ofFiles, uint ofDirectories, ulong seconds)
    {
        File.WriteAllText(In("file"), "");
        FuseGuest guest = Begin("--cache", mode);
        ulong node = guest.Node("file");
        byte[] opened = guest.Demand(14, node, Bytes(2U, 0U), 16);
        byte[] created = guest.Demand(35, FuseGuest.Root, [.. Bytes(0x42U, 0x81A4U, 0U, 0U), .. Name("new")], FuseGuest.EntrySize + 16);
        byte[] directory = guest.Demand(27, FuseGuest.Root, Bytes(0U, 0U), 16);
        byte[] attributes = guest.Demand(3, node, Bytes(0UL, 0UL), FuseGuest.AttributesSize);
        Assert.Multiple(() =>
        {
            Assert.That((guest.Flags & (ulong)FuseFlags.AutoInvalidateData) != 0, Is.EqualTo(dropsChanged));
            Assert.That((U32(opened, 8), U32(created, FuseGuest.EntrySize + 8)), Is.EqualTo((ofFiles, ofFiles)), "of a file");
            Assert.That(U32(directory, 8), Is.EqualTo(ofDirectories), "of a directory");
            Assert.That((U64(created, EntrySeconds), U64(created, AttributesSeconds), U64(attributes, 0)), Is.EqualTo((seconds, seconds, seconds)));
        });
    }

    [TestCase(true)]
    [TestCase(false, "--no-readdirplus")]
    public void Init_ReadDirectoryPlus_IsOfferedUnlessTurnedOff(bool expected, params string[] options)
    {
        FuseGuest guest = Begin(options);
        const ulong plus = (ulong)(FuseFlags.ReadDirectoryPlus | FuseFlags.ReadDirectoryPlusAuto);
        Assert.That(guest.Flags & plus, Is.EqualTo(expected ? plus : 0));
    }

    // A cache that is written back reads what it does not have of a page, also where the program can only write.
    [TestCase(false)]
    [TestCase(true, "--writeback")]
    public void Open_ForWriting_CanBeReadWithACacheThatIsWrittenBack(bool expected, params string[] options)
    {
        File.WriteAllText(In("file"), "text");
        FuseGuest guest = Begin(options);
        ulong node = guest.Node("file"), handle = (ulong)guest.Open(node, WriteOnly);
        int error = guest.Fuse.Try(15, node, [.. Bytes(handle, 0UL), .. Bytes(4096U, 0U), .. Bytes(0UL), .. Bytes(0U, 0U)], 4096, out byte[] data);
        Assert.That((guest.Flags & (ulong)FuseFlags.WritebackCache) != 0, Is.EqualTo(expected));
        Assert.That((error, data), Is.EqualTo(expected ? (0, "text"u8.ToArray()) : (-9, [])), "EBADF");
        // Where the cache knows best where the file ends, a write is where it says.
        ulong appending = (ulong)guest.Open(node, WriteOnly | AppendFlag);
        guest.Demand(16, node, [.. Bytes(appending, 0UL), .. Bytes(1U, 0U), .. Bytes(0UL), .. Bytes(WriteOnly | AppendFlag, 0U)], 8, "T"u8.ToArray());
        Assert.That(File.ReadAllText(In("file")), Is.EqualTo(expected ? "Text" : "textT"));
    }

    [TestCase(false)]
    [TestCase(true, "--allow-direct-io")]
    public void Open_DirectIo_ReachesTheHostsFileIfAllowed(bool expected, params string[] options)
    {
        const uint direct = 0x4000;     // O_DIRECT of asm-generic/fcntl.h
        File.WriteAllBytes(In("file"), new byte[4096]);
        VmmProcess process = Serve(options);
        FuseGuest guest = Keep(new FuseGuest(SocketPath));
        ulong node = guest.Node("file");
        long handle = guest.Open(node, ReadWrite | direct);
        if (handle == -22)
            Assert.Ignore("this file system has no O_DIRECT");
        Assert.That(handle, Is.Not.Negative);
        Assert.That(FlagsOfFiles(process.Id, "/file").Select(flags => (flags & direct) != 0), Is.EqualTo(new[] { expected }));
    }

    [TestCase(true)]
    [TestCase(false, "--preserve-noatime")]
    [TestCase(false, "--preserve-noatime", "--readonly")]
    public void Read_WithoutAccessTime_LeavesItIfKept(bool changes, params string[] options)
    {
        const uint noAccessTime = 0x40000;      // O_NOATIME
        DateTime old = DateTime.UnixEpoch.AddDays(1);
        File.WriteAllText(In("file"), "text");
        // Of another user's file, root's daemon may leave it as the file's owner may.
        if (Environment.IsPrivilegedProcess)
            HostCommand.Run("chown", "1234:1234", In("file"));
        File.SetLastAccessTimeUtc(In("file"), old);
        HostCommand.Run("cat", In("file"));
        if (File.GetLastAccessTimeUtc(In("file")) == old)
            Assert.Ignore("this file system keeps no access times");
        File.SetLastAccessTimeUtc(In("file"), old);
        FuseGuest guest = Begin(options);
        ulong node = guest.Node("file");
        long handle = guest.Open(node, noAccessTime);
        Assert.That(handle, Is.Not.Negative);
        Assert.That(guest.Fuse.Read(node, (ulong)handle, 0, 100), Is.EqualTo("text"u8.ToArray()));
        Assert.That(File.GetLastAccessTimeUtc(In("file")) != old, Is.EqualTo(changes));
    }

    // The flags of what a process has open by a path with this end, but for what is no more than a path (O_PATH).
    private static uint[] FlagsOfFiles(int process, string end)
    {
        const uint pathOnly = 0x200000;
        return
        [
            .. Directory.GetFiles($"/proc/{process}/fd").Where(file => new FileInfo(file).LinkTarget?.EndsWith(end, StringComparison.Ordinal) == true)
                .Select(file => File.ReadLines($"/proc/{process}/fdinfo/{Path.GetFileName(file)}").Single(line => line.StartsWith("flags:", StringComparison.Ordinal)))
                .Select(line => Convert.ToUInt32(line["flags:".Length..].Trim(), 8)).Where(flags => (flags & pathOnly) == 0),
        ];
    }

    private static (string Soft, string Hard) DescriptorLimits(int process)
    {
        string line = File.ReadLines($"/proc/{process}/limits").Single(text => text.StartsWith("Max open files", StringComparison.Ordinal));
        string[] words = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        return (words[3], words[4]);
    }

    private static bool IsForDax(FuseGuest guest, string name) => (U32(guest.Demand(1, FuseGuest.Root, Name(name), FuseGuest.EntrySize), EntryFlags) & DaxFlag) != 0;
}
