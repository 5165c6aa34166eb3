using NUnit.Framework;
using Vmm.Tests.Integration.Linux;
using Vmm.Tests.Integration.Linux.Devices;

namespace Vmm.Tests.Integration.Peers;

/// <summary>QEMU, in software emulation and with Debian's kernel, as a front-end of our file system back-end.</summary>
public class QemuFileSystemTests : PeerTest
{
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(6);
    private static readonly TimeSpan s_suiteLimit = TimeSpan.FromMinutes(40);

    [Test]
    [CancelAfter(900_000)]
    public void Guest_SharedDirectory_IsAWholeFileSystem()
    {
        string shared = Share();
        string[] run = new LinuxGuest
        {
            Interactive = true,
            HasTools = true,
            Script =
                $"""
                stty -echo
                modprobe -a virtio_pci virtiofs overlay
                mkdir /share /merged
                mount -t virtiofs work /share || exit 1
                mkdir /share/posix /share/files
                fstest posix /share/posix || exit 1
                fstest files /share/files 100 || exit 1
                fstest random /share/random 10 42 || exit 1
                {FileSystemSuite.Overlay("/share")}
                umount /share
                mount -t virtiofs work /share && echo "again=$(ls /share | wc -l)"
                umount /share
                """,
        }.Prepare(Scratch);
        PeerProcess guest = StartGuest(run);
        Assert.That(guest.WaitForEnd(s_limit), Is.Zero, guest.Text);
        Assert.That(guest.Output, Does.Contain("posix=ok").And.Contain("operations=").And.Contain("again=6").And.Contain("tmpfile=linked").And.Contain("xattr=kept"), guest.Text);
        Assert.That(guest.Output, Does.Not.Contain("fstest:"), guest.Text);
        FileSystemSuite.AssertOverlay(guest.Output, shared);
    }

    // As FileSystemSuiteTests.
    [TestCase("python DIR root", 1500, "test.test_os.UtimeTests.test_utime_current", "test.test_os.UtimeTests.test_utime_current_old", "test.test_shutil.TestCopy.test_copyxattr_symlinks")]
    [TestCase("python DIR games", 1500, "test.test_os.UtimeTests.test_utime_current", "test.test_os.UtimeTests.test_utime_current_old", "test.test_shutil.TestCopy.test_copyxattr_symlinks")]
    [TestCase("stress DIR 3", 45, "lockf")]
    [TestCase("sqlite DIR", 4)]
    [TestCase("git DIR 10000", 12)]
    [TestCase("fio DIR 16", 9)]
    [Category("Full")]
    [CancelAfter(3_000_000)]
    public void Guest_WhatOthersTestFileSystemsWith_IsAsOnALocalFileSystem(string suite, int atLeast, params string[] differences)
    {
        (_, string output) = RunInATree(
            $"""
            mkdir /tree/var/tmp/work
            {FileSystemSuite.InBothPlaces(suite, "chroot /tree /mnt/suite", "/var/tmp/work", "/mnt/work")}
            """);
        FileSystemSuite.AssertSame(output, atLeast, differences);
    }

    // A Debian tree on the share: it comes from the guest's disk first.
    [Test]
    [Category("Full")]
    [CancelAfter(3_000_000)]
    public void Guest_PackagesInATreeOnTheShare_AreInstalledAndWork()
    {
        (string shared, string output) = RunInATree(
            $$"""
            ip link set lo up
            tree=/tree/mnt/work
            chroot /tree /bin/sh -c 'tar --one-file-system --xattrs -cf - . | tar --xattrs -C /mnt/work -xf -' || exit 1
            mkdir -p $tree/packages $tree/dev $tree/proc
            cp /tree/mnt/packages/*.deb $tree/packages
            mount -t proc proc $tree/proc
            mount -t devtmpfs dev $tree/dev
            cat > $tree/install << 'END'
            {{FileSystemSuite.InstallPackages(isRoot: true)}}
            END
            chroot $tree /bin/sh /install || exit 1
            """);
        foreach (string expected in FileSystemSuite.PackageResults)
            Assert.That(output, Does.Contain(expected));
        Assert.That(File.Exists(Path.Combine(shared, "work", "usr", "bin", "ping")), Is.True);
    }

    // With Debian's tree in /tree, the share in /tree/mnt, and a directory work in that.
    private (string Shared, string Output) RunInATree(string script)
    {
        if (!File.Exists(LinuxGuest.Artifact("guest", "suite.img")))
            Assert.Ignore("the tests of others are missing: run firmware/guest/build suite");
        string shared = Share();
        HostCommand.Run("cp", "-r", RepositoryRoot.Combine("firmware", "guest", "suite"), LinuxGuest.Artifact("guest", "packages"), shared);
        string[] run = new LinuxGuest
        {
            Interactive = true,
            Script =
                $$"""
                stty -echo
                modprobe -a virtio_pci virtio_blk virtiofs
                modprobe -aq ext4   # built into some kernels
                mkdir /tree
                mount /dev/vda /tree && mount -t virtiofs work /tree/mnt || exit 1
                mount -t proc proc /tree/proc
                mount -t devtmpfs dev /tree/dev
                mount -t tmpfs shm /tree/dev/shm
                mkdir /tree/mnt/work
                end() { echo "errors:"; cat /tree/tmp/errors; echo "status=$1"; exit "$1"; }
                trap 'end $?' EXIT
                exec 2> /tree/tmp/errors
                {{script}}
                """,
        }.Prepare(Scratch);
        PeerProcess guest = StartGuest(run, "-drive", $"file={LinuxGuest.Artifact("guest", "suite.img")},format=raw,if=virtio,snapshot=on");
        Assert.That(guest.WaitForEnd(s_suiteLimit), Is.Zero, guest.Text);
        TestContext.Out.WriteLine(guest.Text);
        string output = guest.Output.Replace("\r", "", StringComparison.Ordinal);
        Assert.That(output, Does.Contain("\nstatus=0\n"), guest.Text);
        return (shared, output[..(output.IndexOf("\nerrors:\n", StringComparison.Ordinal) + 1)]);
    }

    // The directory of a back-end that was started.
    private string Share()
    {
        Require("qemu-system-x86_64", "qemu-system-x86");
        if (LinuxGuest.WhyMissing() is string reason)
            Assert.Ignore(reason);
        if (!Environment.IsPrivilegedProcess)
            Assert.Ignore("the guest's users are others than this process's: run as root");
        string shared = Directory.CreateDirectory(Path.Combine(Scratch, "shared")).FullName;
        StartBackend("fs", "--shared-dir", shared, "--queues", "2");
        return shared;
    }

    private PeerProcess StartGuest(string[] run, params string[] options) => StartPeer(
        Require("qemu-system-x86_64", "qemu-system-x86"),
        [
            "-accel", "tcg", "-machine", "q35,memory-backend=mem", "-object", "memory-backend-memfd,id=mem,size=1G,share=on", "-m", "1G",
            "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
            "-kernel", run[2], "-initrd", run[4], "-append", "console=ttyS0 quiet panic=-1 no_timer_check",
            "-chardev", $"socket,id=fs,path={SocketPath}", "-device", "vhost-user-fs-pci,chardev=fs,tag=work,num-request-queues=2", .. options,
        ]);
}
