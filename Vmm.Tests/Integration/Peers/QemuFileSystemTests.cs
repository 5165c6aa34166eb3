using NUnit.Framework;
using Vmm.Tests.Integration.Linux;

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
                """
                stty -echo
                modprobe -a virtio_pci virtiofs overlay
                mkdir /share /merged
                mount -t virtiofs work /share || exit 1
                mkdir /share/posix /share/files
                fstest posix /share/posix || exit 1
                fstest files /share/files 100 || exit 1
                fstest random /share/random 10 42 || exit 1
                mkdir /share/lower /share/lower/kept /share/lower/replaced /share/upper /share/workdir
                cd /share/lower
                echo below | tee changed removed moved kept/file replaced/file > /dev/null
                over() { mount -t overlay -o lowerdir=/share/lower,upperdir=/share/upper,workdir=/share/workdir overlay /merged; }
                over || exit 1
                cd /merged
                echo above >> changed && rm removed && mv moved elsewhere && rm -r replaced && mkdir replaced && echo new > replaced/new && chmod 600 kept/file || exit 1
                cd / && umount /merged && over || exit 1
                cd /merged
                echo "names=$(echo $(find . -type f | sort))"
                echo "overlay=$(echo $(cat changed)), $(stat -c %a kept/file)"
                cd / && umount /merged
                umount /share
                mount -t virtiofs work /share && echo "again=$(ls /share | wc -l)"
                umount /share
                """,
        }.Prepare(Scratch);
        PeerProcess guest = StartGuest(run);
        Assert.That(guest.WaitForEnd(s_limit), Is.Zero, guest.Text);
        Assert.That(guest.Output, Does.Contain("posix=ok").And.Contain("operations=").And.Contain("again=6").And.Contain("overlay=below above, 600").And.Contain("names=./changed ./elsewhere ./kept/file ./replaced/new").And.Contain("tmpfile=linked")
            .And.Contain("xattr=kept"), guest.Text);
        Assert.That(guest.Output, Does.Not.Contain("fstest:"), guest.Text);
        Assert.That(File.ReadAllText(Path.Combine(shared, "upper", "changed")), Is.EqualTo("below\nabove\n"));
        Assert.That(File.ReadAllText(Path.Combine(shared, "lower", "changed")), Is.EqualTo("below\n"));
    }

    // As FileSystemSuiteTests, under this front-end, and without an ext4 to compare with: nothing may fail.
    [TestCase("sqlite DIR", 4)]
    [TestCase("git DIR 300", 12)]
    [TestCase("fio DIR 4", 9)]
    [Category("Full")]
    [CancelAfter(3_000_000)]
    public void Guest_WhatOthersTestFileSystemsWith_Passes(string suite, int atLeast)
    {
        if (!File.Exists(LinuxGuest.Artifact("guest", "suite.img")))
            Assert.Ignore("the tests of others are missing: run firmware/guest/build suite");
        string shared = Share();
        File.Copy(RepositoryRoot.Combine("firmware", "guest", "suite"), Path.Combine(shared, "suite"));
        string[] run = new LinuxGuest
        {
            Interactive = true,
            Script =
                $"""
                stty -echo
                modprobe -a virtio_pci virtio_blk virtiofs
                modprobe -aq ext4   # built into some kernels
                mkdir /tree
                mount /dev/vda /tree && mount -t virtiofs work /tree/mnt || exit 1
                mount -t proc proc /tree/proc
                mount -t devtmpfs dev /tree/dev
                mount -t tmpfs shm /tree/dev/shm
                mkdir /tree/mnt/work
                chroot /tree /mnt/suite {suite.Replace("DIR", "/mnt/work", StringComparison.Ordinal)}
                """,
        }.Prepare(Scratch);
        PeerProcess guest = StartGuest(run, "-drive", $"file={LinuxGuest.Artifact("guest", "suite.img")},format=raw,if=virtio,snapshot=on");
        Assert.That(guest.WaitForEnd(s_suiteLimit), Is.Zero, guest.Text);
        TestContext.Out.WriteLine(guest.Text);
        string[] lines = guest.Output.Split('\n', '\r');
        Assert.That(lines, Does.Contain("end"), $"the suite has not ended by itself\n{guest.Text}");
        Assert.That(lines.Where(line => line.Contains(": failed", StringComparison.Ordinal)), Is.Empty);
        Assert.That(lines.Count(line => line.EndsWith(": ok", StringComparison.Ordinal)), Is.GreaterThanOrEqualTo(atLeast));
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
            "-accel", "tcg", "-machine", "q35,memory-backend=mem", "-object", "memory-backend-memfd,id=mem,size=512M,share=on", "-m", "512M",
            "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
            "-kernel", run[2], "-initrd", run[4], "-append", "console=ttyS0 quiet panic=-1 no_timer_check",
            "-chardev", $"socket,id=fs,path={SocketPath}", "-device", "vhost-user-fs-pci,chardev=fs,tag=work,num-request-queues=2", .. options,
        ]);
}
