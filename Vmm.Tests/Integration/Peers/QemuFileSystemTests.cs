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
                mkdir /share/lower /share/upper /share/workdir
                echo below > /share/lower/file
                mkdir /share/lower/directory
                mount -t overlay -o lowerdir=/share/lower,upperdir=/share/upper,workdir=/share/workdir overlay /merged || exit 1
                echo above > /merged/file
                rm -r /merged/directory
                mkdir /merged/directory
                echo "overlay=$(cat /merged/file)"
                umount /merged
                umount /share
                mount -t virtiofs work /share && echo "again=$(ls /share | wc -l)"
                umount /share
                """,
        }.Prepare(Scratch);
        PeerProcess guest = StartPeer(
            qemu,
            "-accel", "tcg", "-machine", "q35,memory-backend=mem", "-object", "memory-backend-memfd,id=mem,size=512M,share=on", "-m", "512M",
            "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
            "-kernel", run[2], "-initrd", run[4], "-append", "console=ttyS0 quiet panic=-1",
            "-chardev", $"socket,id=fs,path={SocketPath}", "-device", "vhost-user-fs-pci,chardev=fs,tag=work,num-request-queues=2");
        Assert.That(guest.WaitForEnd(s_limit), Is.Zero, guest.Text);
        Assert.That(guest.Output, Does.Contain("posix=ok").And.Contain("operations=").And.Contain("again=6").And.Contain("overlay=above").And.Contain("tmpfile=linked")
            .And.Contain("xattr=kept"), guest.Text);
        Assert.That(guest.Output, Does.Not.Contain("fstest:"), guest.Text);
        Assert.That(File.ReadAllText(Path.Combine(shared, "upper", "file")), Is.EqualTo("above\n"));
        Assert.That(File.ReadAllText(Path.Combine(shared, "lower", "file")), Is.EqualTo("below\n"));
    }
}
