using NUnit.Framework;
using Vmm.Tests.Integration.Linux;

namespace Vmm.Tests.Integration.Peers;

/// <summary>QEMU, in software emulation and with Debian's kernel, as a front-end of our file system back-end.</summary>
public class QemuFileSystemTests : PeerTest
{
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(6);

    [Test]
    [CancelAfter(900_000)]
    public void Guest_SharedDirectory_IsAWholeFileSystem()
    {
        string qemu = Require("qemu-system-x86_64", "qemu-system-x86");
        if (LinuxGuest.WhyMissing() is string reason)
            Assert.Ignore(reason);
        if (!Environment.IsPrivilegedProcess)
            Assert.Ignore("the guest's users are others than this process's: run as root");
        string shared = Directory.CreateDirectory(Path.Combine(Scratch, "shared")).FullName;
        StartBackend("fs", "--shared-dir", shared, "--queues", "2");
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
        PeerProcess guest = StartPeer(
            qemu,
            "-accel", "tcg", "-machine", "q35,memory-backend=mem", "-object", "memory-backend-memfd,id=mem,size=512M,share=on", "-m", "512M",
            "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
            "-kernel", run[2], "-initrd", run[4], "-append", "console=ttyS0 quiet panic=-1 no_timer_check",
            "-chardev", $"socket,id=fs,path={SocketPath}", "-device", "vhost-user-fs-pci,chardev=fs,tag=work,num-request-queues=2");
        Assert.That(guest.WaitForEnd(s_limit), Is.Zero, guest.Text);
        Assert.That(guest.Output, Does.Contain("posix=ok").And.Contain("operations=").And.Contain("again=6").And.Contain("overlay=below above, 600").And.Contain("names=./changed ./elsewhere ./kept/file ./replaced/new").And.Contain("tmpfile=linked")
            .And.Contain("xattr=kept"), guest.Text);
        Assert.That(guest.Output, Does.Not.Contain("fstest:"), guest.Text);
        Assert.That(File.ReadAllText(Path.Combine(shared, "upper", "changed")), Is.EqualTo("below\nabove\n"));
        Assert.That(File.ReadAllText(Path.Combine(shared, "lower", "changed")), Is.EqualTo("below\n"));
    }
}
