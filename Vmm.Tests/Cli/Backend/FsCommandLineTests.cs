using NUnit.Framework;
using Vmm.Cli;
using Vmm.Cli.Backend;
using Vmm.Devices.Backends.FileSystem;

namespace Vmm.Tests.Cli.Backend;

/// <summary>Command lines of virtiofsd's users, as <c>vmm backend fs</c> reads them.</summary>
public class FsCommandLineTests
{
    private static readonly string[] s_switches =
    [
        "--readonly", "--xattr", "--no-xattr", "--posix-acl", "--no-posix-acl", "--security-label", "--killpriv-v2", "--no-killpriv-v2", "--writeback", "--allow-direct-io",
        "--no-readdirplus", "--announce-submounts", "--no-announce-submounts", "--no-host-locks", "--no-posix-lock", "--no-flock",
    ];

    [TestCase("-f", "")]
    [TestCase("-d", "--log-level debug")]
    [TestCase("--debug", "--log-level debug")]
    [TestCase("-d --log-level=warn", "--log-level warn")]
    [TestCase("-V", "--version")]
    [TestCase("--socket=/s", "--socket-path /s")]
    [TestCase("--socket /s", "--socket-path /s")]
    [TestCase("--cache=none", "--cache never")]
    [TestCase("--cache always --cache auto", "--cache auto")]
    [TestCase("--readonly --readonly", "--readonly")]
    [TestCase("--readonly=off", "--readonly=off")]
    [TestCase("--xattr --no-xattr", "--no-xattr")]
    [TestCase("--no-killpriv-v2 --killpriv-v2", "--killpriv-v2")]
    [TestCase("--announce-submounts --no-announce-submounts", "--no-announce-submounts")]
    [TestCase("--posix-acl=always", "--posix-acl")]
    [TestCase("--posix-acl=never", "--no-posix-acl")]
    [TestCase("--no-posix-acl --posix-acl=auto", "")]
    [TestCase("--security-label=always", "--security-label")]
    [TestCase("--security-label --security-label=never", "")]
    [TestCase("--announce-submounts=never", "--no-announce-submounts")]
    [TestCase("--translate-uid map:0:1:1 --translate-uid map:1:2:1", "--translate-uid map:0:1:1 --translate-uid map:1:2:1")]
    [TestCase("--uid-map :0:1:1: --uid-map=:1:2:1:", "--uid-map :0:1:1: --uid-map :1:2:1:")]
    [TestCase("--unknown word extra", "--unknown word extra")]
    [TestCase("--shared-dir", "--shared-dir")]
    [TestCase("-o source=/d,cache=none,xattr,writeback,posix_acl", "--shared-dir /d --cache never --xattr --writeback --posix-acl")]
    [TestCase("-osource=/d -o xattr -o no_xattr", "--shared-dir /d --no-xattr")]
    [TestCase("-o source=/a\\,b,sandbox=chroot,timeout=2.5", "--shared-dir /a,b --sandbox chroot --timeout 2.5")]
    [TestCase("--writeback --no-readdirplus -o no_writeback,readdirplus", "")]
    [TestCase("-o no_readdirplus,no_announce_submounts,no_killpriv_v2,allow_direct_io", "--no-readdirplus --no-announce-submounts --no-killpriv-v2 --allow-direct-io")]
    [TestCase("-o security_label,no_security_label,no_posix_acl,no_allow_direct_io", "--no-posix-acl")]
    [TestCase("-o log_level=err", "--log-level error")]
    [TestCase("-o allow_root", "")]
    [TestCase("-o loglevel=info,debug", "--log-level debug")]
    [TestCase("-o modcaps=+chown:-mknod,xattrmap=:map::user.virtiofs.:,max_idle_threads=5", "--modcaps +chown:-mknod --xattrmap :map::user.virtiofs.:")]
    [TestCase("-o flock,posix_lock", "")]
    [TestCase("-o no_flock,no_posix_lock", "--no-flock --no-posix-lock")]
    [TestCase("-o no_posix_lock", "--no-posix-lock")]
    [TestCase("-o source=/d,xattr,no_posix_lock,flock", "--shared-dir /d --xattr --no-posix-lock")]
    [TestCase("--no-host-locks", "--no-posix-lock --no-flock")]
    [TestCase("--no-host-locks -o flock", "--no-posix-lock")]
    [TestCase("-o flock,posix_lock --no-host-locks", "--no-posix-lock --no-flock")]
    [TestCase("-o no_flock --no-host-locks -o posix_lock", "--no-flock")]
    public void Expand_OtherWords_AreOurOptions(string given, string expected) =>
        Assert.That(string.Join(' ', FsCommandLine.Expand(["fs", .. given.Split(' ')], s_switches)), Is.EqualTo($"fs {expected}".TrimEnd()));

    [TestCase("-o", "-o: its value is missing (see vmm backend fs --help)")]
    [TestCase("-o sauce=/d", "-o: 'sauce=/d' is no option (see vmm backend fs --help)")]
    [TestCase("--daemonize -f", "--daemonize: is not possible: it runs in the foreground; leave it out, and have a service manager start it, or a shell with & behind it")]
    [TestCase("-o xattr,no_source", "-o: 'no_source' is no option (see vmm backend fs --help)")]
    [TestCase("--posix-acl=maybe", "--posix-acl: 'maybe' is not allowed: choose one of auto, always, never")]
    [TestCase("--security-label=auto", "--security-label: 'auto' is not allowed: choose one of always, never")]
    public void Expand_Wrong_IsRefused(string given, string expected) =>
        Assert.That(() => FsCommandLine.Expand(["fs", .. given.Split(' ')], s_switches), Throws.TypeOf<UsageException>().With.Message.EqualTo(expected));

    // What libvirt, Kata Containers and the manuals of both daemons write.
    [TestCase("--fd=3 -o source=/d,cache=always,sandbox=namespace,xattr,flock,posix_lock --thread-pool-size=64 -d")]
    [TestCase("--fd=3 --shared-dir /d --cache auto --xattr --sandbox chroot --announce-submounts --rlimit-nofile=0")]
    [TestCase("--syslog --cache=auto --shared-dir=/d --fd=3 --announce-submounts --thread-pool-size=1")]
    [TestCase("--socket-path=/s -o source=/d -o cache=none -f")]
    [TestCase("--socket-path=/s -o source=/d,allow_root,timeout=86400.0 --debug")]
    [TestCase("--socket-path=/s --socket-group=0 --shared-dir /d --seccomp none --modcaps=-mknod:+chown --thread-pool-size 1000")]
    [TestCase("--socket-path=/s --shared-dir /d --inode-file-handles=fallback --migration-mode find-paths --migration-on-error guest-error --allow-mmap --timeout 5")]
    [TestCase("--fd=3 -o source=/d,cache=auto,xattr,posix_acl,allow_root,no_posix_lock,flock")]
    [TestCase("--fd=3 --shared-dir=/d --inode-file-handles=mandatory --modcaps=+dac_read_search")]
    [TestCase("--fd=3 -o source=/d,modcaps=+sys_admin:-chown")]
    public void Read_CommandLineOfOthers_IsTaken(string given)
    {
        FsBackendOptions options = Parse(given);
        Assert.Multiple(() =>
        {
            Assert.That(() => options.Read(), Throws.Nothing);
            Assert.That(() => (options.ReadSandbox(), options.ReadSystemCalls(), options.ReadSocketGroup()), Throws.Nothing);
            Assert.That(options.SharedDir, Is.EqualTo("/d"));
        });
    }

    [TestCase("--inode-file-handles=always", "--inode-file-handles: 'always' is not allowed: choose one of never, prefer, fallback, mandatory")]
    [TestCase("--migration-mode=file-handles", "--migration-mode: 'file-handles' is not possible: there are no file handles here")]
    [TestCase("--migration-on-error=abort", "--migration-on-error: 'abort' is not possible")]
    [TestCase("--migration-verify-handles", "--migration-verify-handles: is not possible")]
    [TestCase("--migration-confirm-paths", "--migration-confirm-paths: is not possible")]
    [TestCase("--rlimit-nofile=100", "--rlimit-nofile: '100' is too few: the process takes up to 256")]
    [TestCase("--timeout=-1", "--timeout: '-1' is not a number of seconds from 0 to 4294967295, such as 1 or 0.5")]
    [TestCase("--timeout=4294967296", "--timeout: '4294967296' is not a number of seconds")]
    [TestCase("--timeout=1s", "--timeout: '1s' is not a number of seconds")]
    [TestCase("--modcaps=+sys_admim", "--modcaps: '+sys_admim' has '+sys_admim' in it: write + or -")]
    [TestCase("--translate-uid map:0:1000:10 --translate-uid guest:9:1:1",
        "--translate-uid: 'map:0:1000:10' and 'guest:9:1:1' overlap: a number of the guest's can have one rule only")]
    [TestCase("--translate-gid map:0:1000:10 --translate-gid map:10:2000:1 --translate-gid squash-host:1005:7:4294966291",
        "--translate-gid: 'map:0:1000:10' and 'squash-host:1005:7:4294966291' overlap: a number of the host's can have one rule only")]
    [TestCase("--translate-uid forbid-guest:5:4294967291 --translate-uid squash-guest:4294967295:0:1",
        "--translate-uid: 'forbid-guest:5:4294967291' and 'squash-guest:4294967295:0:1' overlap: a number of the guest's")]
    [TestCase("--modcaps=-chown:mknod", "--modcaps: '-chown:mknod' has 'mknod' in it: write + or -")]
    [TestCase("--uid-map=:0:7:65536:", "--uid-map: ':0:7:65536:' needs a user namespace")]
    [TestCase("--gid-map=0:7", "--gid-map: '0:7' is no map: write :GUEST:HOST:COUNT:")]
    [TestCase("--uid-map=:0:7:1: --translate-uid map:0:7:1", "--uid-map: cannot stand beside --translate-uid")]
    [TestCase("--posix-acl --xattrmap :map::user.virtiofs.:", "--posix-acl: cannot stand beside an --xattrmap that gives system.posix_acl_* other names")]
    [TestCase("--dax always", "--dax: 'always' has no effect without --dax-window")]
    [TestCase("--sandbox none --modcaps=-mknod", "--modcaps: has no effect with --sandbox none")]
    public void Read_WhatCannotBe_SaysWhy(string given, string expected) =>
        Assert.That(() => Parse($"--shared-dir /d {given}").Read(), Throws.TypeOf<UsageException>().With.Message.StartsWith(expected));

    [TestCase("--seccomp log", "--seccomp: 'log' is not possible")]
    [TestCase("--seccomp some", "--seccomp: 'some' is not allowed: choose one of kill, none")]
    [TestCase("--socket-group no-such-group", "--socket-group: 'no-such-group' is no group of this host")]
    [TestCase("--socket-group root --fd 3", "--socket-group: cannot stand beside --fd: the socket is another's")]
    public void Read_ProcessOptionThatCannotBe_SaysWhy(string given, string expected)
    {
        FsBackendOptions options = Parse($"--shared-dir /d {given}");
        Assert.That(() => (options.ReadSystemCalls(), options.ReadSocketGroup()), Throws.TypeOf<UsageException>().With.Message.StartsWith(expected));
    }

    [TestCase("root", 0U)]
    [TestCase("4242", 4242U)]
    public void ReadSocketGroup_NameOrNumber_IsItsNumber(string group, uint expected) =>
        Assert.That(Parse($"--shared-dir /d --socket-group {group}").ReadSocketGroup(), Is.EqualTo(expected));

    [TestCase("-chown:-MKNOD", 0x0800_0001UL)]
    [TestCase("-setfcap:+setfcap:-sys_admin", 0x20_0000UL)]
    public void ParseGivenUp_List_IsWhatWasTakenLast(string text, ulong expected) =>
        Assert.That(CapabilityListOption.ParseGivenUp(new OptionValue("--modcaps", null, text), out _), Is.EqualTo(expected));

    [Test]
    public void ParseGivenUp_CapabilitiesOfNoUse_AreLeftOut()
    {
        ulong givenUp = CapabilityListOption.ParseGivenUp(new OptionValue("--modcaps", null, "+SYS_ADMIN:-chown:+dac_read_search:+mknod"), out IReadOnlyList<string> useless);
        Assert.That((givenUp, string.Join(' ', useless)), Is.EqualTo((1UL, "+SYS_ADMIN +dac_read_search")));
    }

    // The two directions are apart.
    [Test]
    public void IdMap_RulesSideBySide_AreTaken() => Assert.That(
        () => Parse("--shared-dir /d --translate-uid map:0:1000:10 --translate-uid guest:10:1000:1 --translate-uid host:1010:0:1 --translate-uid forbid-guest:11:5").Read(), Throws.Nothing);

    // devpts has none. It has no files either, but it is everywhere.
    [Test]
    public void Read_MandatoryFileHandlesWhereThereAreNone_SaysSo() => Assert.That(
        () => Parse("--shared-dir /dev/pts --inode-file-handles mandatory").Read()(), Throws.TypeOf<UsageException>().With.Message.EqualTo(
            "--inode-file-handles: 'mandatory' is not possible: devpts, the file system of /dev/pts, has no file handles; write prefer"));

    [Test]
    public void Read_MandatoryFileHandlesWhereThereAreSome_Serves()
    {
        string shared = Directory.CreateTempSubdirectory("vmm-test-").FullName;
        using var device = (IDisposable)Parse($"--shared-dir {shared} --inode-file-handles mandatory").Read()().Device;
        Directory.Delete(shared);
    }

    [Test]
    public void NamespaceMap_OwnNumber_IsARule()
    {
        var map = new IdMap([.. NamespaceMapOption.Parse("--uid-map", "--translate-uid", ":0:1000:1:", own: 1000)]);
        Assert.That((map.ToGuest(1000), map.TryToHost(0, out uint host), host), Is.EqualTo((0U, true, 1000U)));
        Assert.That(
            () => NamespaceMapOption.Parse("--uid-map", "--translate-uid", ":0:1000:1:", own: null).ToArray(),
            Throws.TypeOf<UsageException>().With.Message.Contains("write --translate-uid map:0:1000:1"));
    }

    private static FsBackendOptions Parse(string given) => (FsBackendOptions)Verbs.Parse(["backend", "fs", .. given.Split(' ')]);
}
