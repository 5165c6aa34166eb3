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
    private const uint DaxFlag = 2;     // FUSE_ATTR_DAX
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

    [Test]
    public void Start_SocketGroup_MayConnect()
    {
        RequireRoot();
        Serve("--socket-group", "4242");
        string seen = "";
        Eventually.True(() => (seen = HostCommand.Run("stat", "-c", "%g %a %u", SocketPath).Trim()) == "4242 660 0", () => $"the socket has {seen}");
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

    private static (string Soft, string Hard) DescriptorLimits(int process)
    {
        string line = File.ReadLines($"/proc/{process}/limits").Single(text => text.StartsWith("Max open files", StringComparison.Ordinal));
        string[] words = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        return (words[3], words[4]);
    }

    private static bool IsForDax(FuseGuest guest, string name) => (U32(guest.Demand(1, FuseGuest.Root, Name(name), FuseGuest.EntrySize), EntryFlags) & DaxFlag) != 0;
}
