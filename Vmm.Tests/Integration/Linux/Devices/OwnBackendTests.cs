using System.Net.Sockets;
using System.Text;
using NUnit.Framework;

namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>Devices whose back-ends are ours, most in a process that the VMM starts.</summary>
public class OwnBackendTests : DeviceTest
{
    private const int DiskSize = 64 << 20;

    // A boot of systemd takes most of a minute in the emulated host.
    private static readonly TimeSpan s_deadline = TimeSpan.FromMinutes(4);

    [Test]
    public void Debian_OnADiskImage_BootsAndIsUsed()
    {
        string image = Path.Combine(Scratch, "debian.img");
        HostCommand.Run("cp", "--sparse=always", LinuxGuest.Artifact("guest", "debian.img"), image);
        VmmProcess process = Boot(new LinuxGuest
        {
            Cpus = 2,
            Memory = "512M",
            CommandLine = "root=/dev/vda systemd.show_status=0",
            Options = ["--disk", $"path={image},queues=2", "--on-reboot", "exit"],
        });
        process.WaitForOutput("login:", deadline: s_deadline);
        process.Send("root\n"u8);
        process.WaitForOutput("~#", deadline: s_deadline);
        process.Send("echo version=$(cat /etc/debian_version) root=$(findmnt -n -o SOURCE,FSTYPE /); echo kept > /root/kept; systemctl poweroff\n"u8);
        VmmResult result = process.WaitForEnd(s_deadline);

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Match(@"version=12\.\d+ root=/dev/vda ext4"), result.Summary);
        HostCommand.Run("e2fsck", "-f", "-n", image);
        Assert.That(HostCommand.Run("debugfs", "-R", "cat /root/kept", image), Does.StartWith("kept\n"));
    }

    [Test]
    public void Guest_WithEveryBackend_UsesThemAll()
    {
        string disk = Path.Combine(Scratch, "disk.img"), console = Path.Combine(Scratch, "console"), socket = Path.Combine(Scratch, "vsock");
        using (FileStream file = File.Create(disk))
            file.SetLength(DiskSize);
        string network = Path.Combine(Scratch, "net.sock");
        HostTap tap = Keep(new HostTap(8));
        string[] vmm = [.. VmmProcess.Command];
        HostDaemon backend = Keep(new HostDaemon([network], vmm[0], [.. vmm[1..], "backend", "net", "--socket-path", network, "--tap", tap.Name]));
        using var host = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        host.Bind(new UnixDomainSocketEndPoint(socket + "_5000"));
        host.Listen();
        VmmProcess process = Boot(GuestWith(
            $"""
            modprobe -a virtio_rng virtio_console
            ip addr add {tap.GuestAddress}/24 dev eth0
            ip link set eth0 up
            echo loss=$(ping -q -c 100 -A -W 5 {tap.Address} | grep loss)
            echo rng=$(cat /sys/class/misc/hw_random/rng_current) $(head -c 4096 /dev/hwrng | wc -c)
            until [ -c /dev/hvc0 ]; do sleep 0.1; done
            echo "by the console" > /dev/hvc0
            until [ -b /dev/vda ]; do sleep 0.1; done
            mkfs.ext4 -q /dev/vda
            mkdir /disk
            mount /dev/vda /disk
            disktest fill /disk/data 16 || exit 1
            umount /disk
            e2fsck -f -n /dev/vda && echo "check=clean"
            echo "by the socket" | vsock send 2 5000
            vsock echo 5001 &
            echo "listening"
            read -r end
            """,
            "--disk", $"path={disk}", "--rng", "src=/dev/urandom", "--console", $"file={console}", "--vsock", $"cid=7,socket={socket}",
            "--net", $"socket={network}") with
        { HasTools = true });
        using (Socket connection = host.Accept())
            Assert.That(ReadToEnd(connection), Is.EqualTo("by the socket\n"));
        process.WaitForOutput("listening", deadline: s_deadline);
        Assert.That(Eventually(() => Exchange(socket, 5001)), Is.EqualTo("ping\n"));
        process.Send("end\n"u8);
        VmmResult result = process.WaitForEnd(s_deadline);

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(ValueOf(result, "rng"), Does.Match(@"^virtio_rng\.\d+ 4096"), result.Summary);
        Assert.That(ValueOf(result, "loss"), Does.Contain(" 0% packet loss"), result.Summary);
        Assert.That(ValueOf(result, "check"), Is.EqualTo("clean"), result.Summary);
        Assert.That(File.ReadAllText(console), Does.Contain("by the console"));
        Assert.That(result.Errors, Is.Empty);
    }

    [Test]
    public void Disk_BackendKilledWith32RequestsInFlight_LosesAndDoublesNothing()
    {
        int kills = IsFull ? 20 : 4;
        string image = Path.Combine(Scratch, "disk.img"), socket = Path.Combine(Scratch, "disk.sock");
        using (FileStream file = File.Create(image))
            file.SetLength(DiskSize);
        string[] vmm = [.. VmmProcess.Command];
        HostDaemon backend = Keep(new HostDaemon([socket], vmm[0], [.. vmm[1..], "backend", "blk", "--socket-path", socket, "--path", image, "--queues", "2"]));
        VmmProcess process = Boot(GuestWith(
            "until [ -b /dev/vda ]; do sleep 0.1; done\ndisktest stamps /dev/vda 64 32 || exit 1\n", "--disk", $"socket={socket},queues=2") with
        { Cpus = 2 });
        process.WaitForOutput("progress=");
        for (int kill = 1; kill <= kills; kill++)
        {
            int before = Count(process);
            backend.Kill();
            backend.Start();
            process.WaitForOutput("progress=", before + 1, s_deadline);
        }
        process.Send("end\n"u8);
        VmmResult result = process.WaitForEnd(s_deadline);

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain(LinuxGuest.Ended(0)), result.Summary);
        Assert.That(result.Errors, Does.Not.Contain("out of order"), "there is a record of what is in flight");

        static int Count(VmmProcess process) => process.Output.Split("progress=").Length - 1;
    }

    // The guest's listener may not be there yet.
    private static string Eventually(Func<string?> attempt)
    {
        for (int i = 0; ; i++)
        {
            if (attempt() is string text)
                return text;
            Assert.That(i, Is.LessThan(100), "nobody answers");
            Thread.Sleep(100);
        }
    }

    private static string? Exchange(string socket, int port)
    {
        using var connection = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        connection.Connect(new UnixDomainSocketEndPoint(socket));
        connection.Send(Encoding.ASCII.GetBytes($"CONNECT {port}\n"));
        if (!ReadLine(connection).StartsWith("OK ", StringComparison.Ordinal))
            return null;
        connection.Send("ping\n"u8);
        return ReadLine(connection) + "\n";
    }

    private static string ReadLine(Socket socket)
    {
        var line = new StringBuilder();
        byte[] one = new byte[1];
        while (socket.Receive(one) == 1 && one[0] != '\n')
            line.Append((char)one[0]);
        return line.ToString();
    }

    private static string ReadToEnd(Socket socket)
    {
        using var stream = new NetworkStream(socket);
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd();
    }
}
