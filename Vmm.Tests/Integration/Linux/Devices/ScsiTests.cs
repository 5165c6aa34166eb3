using NUnit.Framework;

namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>SCSI devices: vhost-scsi with a target of the kernel's.</summary>
public class ScsiTests : DeviceTest
{
    private const long DiskSize = 128 << 20;

    private static readonly TimeSpan s_deadline = TimeSpan.FromMinutes(2);

    [Test]
    public void Disk_PartitionedAndWritten_IsTheRootAfterARestart()
    {
        LioTarget target = Keep(new LioTarget(1, Path.Combine(Scratch, "disk"), DiskSize));
        LinuxGuest guest = GuestWith("", "--scsi", $"wwpn={target.Wwpn},queues=2") with { HasTools = true };
        const string wait = "until [ -b /dev/sda ]; do sleep 0.1; done\n";
        VmmResult first = Boot(guest with
        {
            Script = guest.Script + wait + """
                echo 'start=2048, type=83' | sfdisk -q /dev/sda
                mkfs.ext4 -q /dev/sda1
                mkdir /disk
                mount /dev/sda1 /disk
                mkdir /disk/dev /disk/proc /disk/sbin
                cp -a /bin /disk/
                cat > /disk/sbin/init << 'INIT'
                #!/bin/sh
                export PATH=/bin
                mount -t devtmpfs dev /dev
                mount -t proc proc /proc
                stty -echo
                echo root=$(awk '$2 == "/" { print $1, $3 }' /proc/mounts | tail -n 1)
                echo data=$(sha256sum < /data)
                echo "one disk"
                until [ -b /dev/sdb ]; do sleep 0.1; done
                echo "two disks"
                mount -o remount,ro /
                stty -opost   # waits until all of the output is out
                poweroff -f
                INIT
                chmod +x /disk/sbin/init
                head -c $((32 << 20)) /dev/urandom > /disk/data
                echo sum=$(sha256sum < /disk/data)
                umount /disk
                e2fsck -f -n /dev/sda1 && echo "check=clean"
                mount /dev/sda1 /disk
                echo again=$(sha256sum < /disk/data)
                umount /disk
                """,
        }).WaitForEnd(s_deadline);
        Assert.That(first.ExitCode, Is.Zero, first.Summary);
        Assert.That(ValueOf(first, "check"), Is.EqualTo("clean"), first.Summary);
        Assert.That(ValueOf(first, "sum"), Does.Not.StartWith(HashOfNothing));
        Assert.That(ValueOf(first, "again"), Is.EqualTo(ValueOf(first, "sum")));

        // The next guest's root is that disk, its init and programs too: the script is the init of an initramfs that only gets there.
        VmmProcess process = Boot(guest with
        {
            CommandLine = "rdinit=/job/command",
            Script = """
                #!/bin/busybox sh
                export PATH=/bin
                mount -t devtmpfs dev /dev
                mount -t proc proc /proc
                modprobe -a virtio_mmio virtio_scsi sd_mod
                modprobe -q ext4   # built into some kernels
                until [ -b /dev/sda1 ]; do sleep 0.1; done
                mkdir /disk
                mount -t ext4 /dev/sda1 /disk
                umount /dev /proc
                exec switch_root /disk /sbin/init
                """,
        });
        process.WaitForOutput("one disk");
        target.AddDisk(Path.Combine(Scratch, "second"), DiskSize);
        VmmResult second = process.WaitForEnd(s_deadline);
        Assert.That(second.ExitCode, Is.Zero, second.Summary);
        Assert.That(second.Output, Does.Contain("two disks"), second.Summary);
        Assert.That(ValueOf(second, "root"), Is.EqualTo("/dev/sda1 ext4"), second.Summary);
        Assert.That(ValueOf(second, "data"), Is.EqualTo(ValueOf(first, "sum")));
    }

    [Test]
    public void Target_NotThere_FailsBeforeTheGuestBoots()
    {
        VmmResult result = Boot(GuestWith("", "--scsi", "wwpn=naa.5001405deadbeef0")).WaitForEnd();
        Assert.That(result.ExitCode, Is.EqualTo(1));
        Assert.That(result.Output, Is.Empty);
        Assert.That(result.Errors, Does.StartWith("vmm: --scsi wwpn=naa.5001405deadbeef0: /dev/vhost-scsi: ioctl(VHOST_SCSI_SET_ENDPOINT):")
            .And.EndsWith("see docs/scsi.md\n"));
    }
}
