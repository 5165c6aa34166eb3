using NUnit.Framework;

namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>Disks: qemu-storage-daemon's vhost-user-blk.</summary>
public class DiskTests : DeviceTest
{
    private const long DiskSize = 512 << 20;
    private const string Wait = "until [ -b /dev/vda ]; do sleep 0.1; done\n";

    private static readonly TimeSpan s_deadline = TimeSpan.FromMinutes(4);

    private string Socket => Path.Combine(Scratch, "disk.sock");

    private string Image => Path.Combine(Scratch, "disk.img");

    [Test]
    public void Disk_FormattedAndFilled_IsCleanAndUsesTwoQueues()
    {
        int size = IsFull ? 256 : 64;
        using HostDaemon daemon = HostDaemon.Disk(Socket, Image, DiskSize);
        VmmResult result = Boot(GuestWith(
            Wait + $$"""
            for queue in 0 1; do echo queue$queue=$(cat /sys/block/vda/mq/$queue/cpu_list); done
            mkfs.ext4 -q /dev/vda
            mkdir /disk
            mount /dev/vda /disk
            disktest fill /disk/data {{size}} || exit 1
            taskset 1 disktest fill /disk/first 4 > /dev/null || exit 1
            taskset 2 disktest fill /disk/second 4 > /dev/null || exit 1
            umount /disk
            echo LNRO0005:00 > /sys/bus/platform/drivers/virtio-mmio/unbind
            echo LNRO0005:00 > /sys/bus/platform/drivers/virtio-mmio/bind
            until [ -b /dev/vda ]; do sleep 0.1; done
            e2fsck -f -n /dev/vda && echo "check=clean"
            mount /dev/vda /disk
            echo files=$(ls /disk | tr '\n' ' ')
            umount /disk
            """,
            "--disk", $"socket={Socket},queues=2") with
        { Cpus = 2, HasTools = true, Memory = "512M" }).WaitForEnd(s_deadline);
        TestContext.Out.WriteLine(result.Output);

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain("verified="), result.Summary);
        Assert.That(ValueOf(result, "queue0"), Is.EqualTo("0"), result.Summary);
        Assert.That(ValueOf(result, "queue1"), Is.EqualTo("1"), result.Summary);
        Assert.That(ValueOf(result, "check"), Is.EqualTo("clean"), result.Summary);
        Assert.That(ValueOf(result, "files"), Is.EqualTo("data first lost+found second"), result.Summary);
        Assert.That(result.Errors, Is.Empty);
    }

    [Test]
    public void Daemon_KilledAndRestarted_LosesNothing()
    {
        int kills = IsFull ? 20 : 4;
        using HostDaemon daemon = HostDaemon.Disk(Socket, Image, 16 << 20);
        VmmProcess process = Boot(GuestWith(
            Wait + "disktest stamps /dev/vda 16 || exit 1\n", "--disk", $"socket={Socket}",
            "--log-level", "debug"));   // ends that follow each other within a second are soon told of at that level only
        process.WaitForOutput("progress=", 2);
        for (int kill = 1; kill <= kills; kill++)
        {
            daemon.Kill();
            daemon.Start();
            process.WaitForOutput("progress=", Count(process) + 2);
        }
        process.Send("end\n"u8);
        VmmResult result = process.WaitForEnd(s_deadline);
        TestContext.Out.WriteLine($"slowest={ValueOf(result, "slowest")} writes={ValueOf(result, "writes")}");

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain(LinuxGuest.Ended(0)), result.Summary);
        Assert.That(result.Errors.Split('\n').Count(line => line.EndsWith("the back-end is back", StringComparison.Ordinal)), Is.EqualTo(kills), result.Summary);

        static int Count(VmmProcess process) => process.Output.Split("progress=").Length - 1;
    }

    [Test]
    public void Daemon_KilledWithoutReconnect_IsGoneAndTheVmmGoesOn()
    {
        using HostDaemon daemon = HostDaemon.Disk(Socket, Image, 16 << 20);
        VmmProcess process = Boot(GuestWith(
            Wait + """
            echo ro=$(cat /sys/block/vda/ro)
            echo "ready"
            read -r go
            echo "still here"
            """,
            "--disk", $"socket={Socket},reconnect=off,readonly=on"));
        process.WaitForOutput("ready");
        daemon.Kill();
        process.WaitForErrors("it stands still until its driver resets it");
        process.Send("go\n"u8);
        VmmResult result = process.WaitForEnd();
        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain("still here"));
        Assert.That(ValueOf(result, "ro"), Is.EqualTo("1"));
    }
}
