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
