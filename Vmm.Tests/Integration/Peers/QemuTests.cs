using System.Net.Sockets;
using System.Security.Cryptography;
using NUnit.Framework;
using Tmds.Linux;
using Vmm.Tests.Integration.Linux;
using Vmm.Tests.Integration.Linux.Devices;

namespace Vmm.Tests.Integration.Peers;

/// <summary>QEMU, in software emulation and with Debian's kernel, as a front-end of our back-ends.</summary>
public class QemuTests : PeerTest
{
    private const int TapNumber = 90;
    private const int Cid = 33;
    private const int TransferSize = 16 << 20;
    private const int DiskSize = 256 << 20;
    private const int DiskQueueSize = 64;          // which Linux's indirect tables are not limited to
    private const int ScatteredPieces = 128;

    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(6);

    private string Disk => Path.Combine(Scratch, "disk.img");

    [Test]
    [CancelAfter(900_000)]
    public void Guest_DiskEntropyNetworkAndSockets_AllWorkAndTheDiskSurvivesItsBackEnd()
    {
        string qemu = Require("qemu-system-x86_64", "qemu-system-x86");
        if (LinuxGuest.WhyMissing() is string reason)
            Assert.Ignore(reason);
        if (!Environment.IsPrivilegedProcess)
            Assert.Ignore("taps are root's: run as root");

        using (FileStream image = File.Create(Disk))
            image.SetLength(DiskSize / 2);
        using var tap = new HostTap(TapNumber);
        using var transfer = new TransferServer(tap.Address, TransferSize);
        byte[] data = RandomNumberGenerator.GetBytes(TransferSize);
        string vsock = Path.Combine(Scratch, "vsock");
        VmmProcess disk = StartDevice("blk", "--path", Disk);
        StartDevice("rng");
        StartDevice("net", "--tap", tap.Name);
        StartDevice("vsock", "--uds-path", vsock, "--guest-cid", $"{Cid}");
        using var sockets = new SocketProgram(vsock, 5002);

        PeerProcess guest = StartPeer(qemu, Arguments(
            $$"""
            stty -echo
            modprobe -a virtio_pci virtio_blk virtio-rng virtio_net vmw_vsock_virtio_transport
            echo rng=$(cat /sys/class/misc/hw_random/rng_current) $(head -c 65536 /dev/hwrng | wc -c)
            ip addr add {{tap.GuestAddress}}/24 dev eth0
            ip link set eth0 up
            echo announce=$(cut -c 22 /sys/class/net/eth0/device/features) mtu=$(cat /sys/class/net/eth0/mtu)
            ping -q -c 2 -A -W 5 {{tap.Address}} > /dev/null
            echo loss=$(ping -q -c 50 -A -W 5 {{tap.Address}} | grep loss)
            nc {{tap.Address}} {{transfer.SourcePort}} > /tmp/data < /dev/null
            echo net=$(sha256sum < /tmp/data)
            nc {{tap.Address}} {{transfer.SinkPort}} < /tmp/data > /dev/null
            vsock echo 5000 &
            vsock receive 5001 > /tmp/data2
            echo vsock=$(sha256sum < /tmp/data2)
            vsock send 2 5002 < /tmp/data2 && echo "vsock is sent"
            rm /tmp/data2
            disktest scattered /dev/vda {{ScatteredPieces}} || exit 1
            echo "growing"
            until [ $(cat /sys/block/vda/size) = {{DiskSize / 512}} ]; do sleep 0.2; done
            echo "grown"
            mkfs.ext4 -q /dev/vda && echo "made"
            mkdir /tmp/disk
            mount -t ext4 /dev/vda /tmp/disk
            echo "writing"
            for i in 1 2 3 4; do
                cat /tmp/data > /tmp/disk/file$i
                sync
                echo "written $i"
            done
            umount /tmp/disk
            echo 3 > /proc/sys/vm/drop_caches
            mount -t ext4 -o ro /dev/vda /tmp/disk
            for i in 1 2 3 4; do echo file$i=$(sha256sum < /tmp/disk/file$i); done
            umount /tmp/disk
            e2fsck -f -n /dev/vda > /dev/null 2>&1
            echo fsck=$?
            dmesg | grep -i -E "i/o error|blk_update_request" | head
            """));

        guest.WaitForOutput("net=", s_limit);
        Assert.That(new HostSocket(vsock).Connect(200), Is.EqualTo(200), "connections in a row");
        new HostSocket(vsock).Send(5001, data);
        guest.WaitForOutput("vsock is sent", s_limit);

        guest.WaitForOutput("growing", s_limit);
        using (var image = new FileStream(Disk, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
            image.SetLength(DiskSize);
        guest.WaitForOutput("grown", s_limit);

        guest.WaitForOutput("writing", s_limit);
        for (int i = 0; i < 3; i++)
        {
            Thread.Sleep(TimeSpan.FromSeconds(0.2));
            if (i == 0)
                Assert.That(guest.Output, Does.Not.Contain("written 4"), "it was to be killed while the guest writes");
            disk.Signal(LibC.SIGKILL);
            disk.WaitForEnd();
            disk = StartDevice("blk", "--path", Disk);
        }
        guest.WaitForOutput("fsck=", s_limit);
        Assert.That(guest.WaitForEnd(s_limit), Is.Zero, guest.Text);

        string output = guest.Output;
        Assert.That(output, Does.Contain("rng=virtio_rng.0 65536"));
        Assert.That(output, Does.Contain($"scattered={ScatteredPieces}"), "one request with more pieces than the queue has descriptors");
        Assert.That(output, Does.Contain("announce=1 mtu=1450"), "VIRTIO_NET_F_GUEST_ANNOUNCE, and the MTU of QEMU's host_mtu");
        Assert.That(output, Does.Contain("50 packets received, 0% packet loss"));
        Assert.That(output, Does.Contain($"net={transfer.Hash}"), "what the guest received by the network");
        Assert.That(transfer.TakenHash, Is.EqualTo(transfer.Hash), "what it sent");
        string hash = Convert.ToHexStringLower(SHA256.HashData(data));
        Assert.That(output, Does.Contain($"vsock={hash}"), "what the guest received by sockets");
        Assert.That(sockets.TakenHash, Is.EqualTo(hash), "what it sent");
        for (int i = 1; i <= 4; i++)
            Assert.That(output, Does.Contain($"file{i}={transfer.Hash}"), "what is on the disk");
        Assert.That(output, Does.Contain("fsck=0"));
        Assert.That(output, Does.Not.Contain("error").IgnoreCase, guest.Text);
    }

    private string PathOf(string device) => Path.Combine(Scratch, device + ".sock");

    private VmmProcess StartDevice(string device, params string[] options)
    {
        VmmProcess process = StartVmm(["backend", device, "--socket-path", PathOf(device), .. options]);
        Fakes.Eventually.True(
            () => File.Exists(PathOf(device)) || process.EndsWithin(TimeSpan.Zero), () => $"{device} does not listen");
        Assert.That(process.EndsWithin(TimeSpan.Zero), Is.False, device);
        return process;
    }

    private string[] Arguments(string script)
    {
        string[] run = new LinuxGuest { Interactive = true, HasTools = true, Script = script }.Prepare(Scratch);
        return
        [
            "-accel", "tcg", "-machine", "q35,memory-backend=mem", "-object", "memory-backend-memfd,id=mem,size=512M,share=on", "-m", "512M",
            "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
            "-kernel", run[2], "-initrd", run[4], "-append", "console=ttyS0 quiet panic=-1 no_timer_check",
            "-chardev", $"socket,id=blk,path={PathOf("blk")},reconnect=1", "-device", $"vhost-user-blk-pci,chardev=blk,queue-size={DiskQueueSize}",
            "-chardev", $"socket,id=rng,path={PathOf("rng")}", "-device", "vhost-user-rng-pci,chardev=rng",
            // With MSI-X this version crashes in emulation.
            "-chardev", $"socket,id=net,path={PathOf("net")}", "-netdev", "vhost-user,id=n,chardev=net", "-device", "virtio-net-pci,netdev=n,vectors=0,host_mtu=1450",
            "-chardev", $"socket,id=vsock,path={PathOf("vsock")}", "-device", "vhost-user-vsock-pci,chardev=vsock",
        ];
    }

    /// <summary>Programs of the host's that connect to the guest.</summary>
    private sealed class HostSocket(string path)
    {
        /// <summary>Makes <paramref name="count"/> connections to the guest's echo, one after another.</summary>
        /// <returns>How many worked.</returns>
        public int Connect(int count)
        {
            for (int i = 0; i < count; i++)
            {
                using Socket socket = Open(5000);
                byte[] line = System.Text.Encoding.ASCII.GetBytes($"connection {i}\n"), echo = new byte[line.Length];
                socket.Send(line);
                for (int done = 0; done < echo.Length;)
                {
                    int read = socket.Receive(echo.AsSpan(done));
                    if (read == 0)
                        return i;
                    done += read;
                }
                if (!echo.AsSpan().SequenceEqual(line))
                    return i;
            }
            return count;
        }

        public void Send(int port, byte[] data)
        {
            using Socket socket = Open(port);
            for (int done = 0; done < data.Length;)
                done += socket.Send(data.AsSpan(done));
            socket.Shutdown(SocketShutdown.Send);
            Assert.That(socket.Receive(new byte[1]), Is.Zero);
        }

        // The guest may not listen yet.
        private Socket Open(int port)
        {
            Socket? open = null;
            Fakes.Eventually.True(
                () =>
                {
                    var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = 30_000 };
                    socket.Connect(new UnixDomainSocketEndPoint(path));
                    socket.Send(System.Text.Encoding.ASCII.GetBytes($"CONNECT {port}\n"));
                    byte[] answer = new byte[1];
                    string line = "";
                    while (!line.EndsWith('\n') && socket.Receive(answer) == 1)
                        line += (char)answer[0];
                    if (line.StartsWith("OK ", StringComparison.Ordinal))
                        open = socket;
                    else
                        socket.Dispose();
                    return open is not null;
                },
                () => $"the guest does not listen on port {port}");
            return open!;
        }
    }

    /// <summary>A program that listens where a port of the host's is, and hashes what one connection brings.</summary>
    private sealed class SocketProgram : IDisposable
    {
        private readonly Socket _listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        private readonly Task<string> _taking;

        public SocketProgram(string path, int port)
        {
            _listener.Bind(new UnixDomainSocketEndPoint($"{path}_{port}"));
            _listener.Listen(4);
            _taking = Task.Run(() =>
            {
                using Socket socket = _listener.Accept();
                using var stream = new NetworkStream(socket);
                return Convert.ToHexStringLower(SHA256.HashData(stream));
            });
        }

        public string TakenHash => _taking.Wait(VmmProcess.Deadline) ? _taking.Result : "nothing was sent, or not to its end";

        public void Dispose() => _listener.Dispose();
    }
}
