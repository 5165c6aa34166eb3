using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text.RegularExpressions;
using NUnit.Framework;
using Tmds.Linux;
using Vmm.Devices.Backends.Net;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>Network devices: taps and vhost-net.</summary>
public partial class NetworkTests : DeviceTest
{
    private static readonly int s_transferSize = (IsFull ? 64 : 16) << 20;

    private static readonly int s_reboots = IsFull ? 100 : 3;   // each takes 4 s in the emulated host

    private const int EnoughPackets = 1000;     // more than it takes to set a connection up

    // How long a guest's traffic is looked at for system calls.
    private static readonly TimeSpan s_traced = TimeSpan.FromSeconds(IsFull ? 30 : 3);

    // A transfer and three reinitialisations, in the emulated host.
    private static readonly TimeSpan s_deadline = TimeSpan.FromMinutes(6);

    [Test]
    public void Traffic_OneQueue_ArrivesUnchangedAndSurvivesRebinding()
    {
        HostTap tap = Keep(new HostTap(0));
        HostTap jumbo = Keep(new HostTap(1));
        TransferServer transfer = Keep(new TransferServer(tap.Address, s_transferSize));
        VmmProcess process = Boot(GuestWith(
            $"""
            ip link set lo up
            up() (
                ip addr add {tap.GuestAddress}/24 dev eth0
                ip link set eth0 up
                ping -q -c 2 -A -W 2 {tap.Address} > /dev/null
            )
            up
            ip addr add {jumbo.GuestAddress}/24 dev eth1
            ip link set eth1 mtu 9000
            ip link set eth1 up
            echo mac=$(cat /sys/class/net/eth0/address)
            echo loss=$(ping -q -c 100 -A -W 5 {tap.Address} | grep loss)
            echo jumbo=$(ping -q -c 5 -A -W 5 -s 8972 {jumbo.Address} | grep loss)
            echo mtu=$(cat /sys/class/net/eth1/mtu)
            nc {tap.Address} {transfer.SourcePort} > /tmp/data < /dev/null
            echo data=$(sha256sum < /tmp/data)
            nc {tap.Address} {transfer.SinkPort} < /tmp/data > /dev/null
            rm /tmp/data
            ip link set eth0 down
            ip link set eth0 up
            echo again=$(ping -q -c 5 -A -W 5 {tap.Address} | grep loss)
            echo LNRO0005:00 > /sys/bus/platform/drivers/virtio-mmio/unbind
            echo unbound=$(ls /sys/class/net | tr '\n' ' ')
            echo LNRO0005:00 > /sys/bus/platform/drivers/virtio-mmio/bind
            until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done
            up
            echo rebound=$(ping -q -c 5 -A -W 5 {tap.Address} | grep loss)
            """,
            "--net", $"tap={tap.Name},mac=02:00:00:00:00:77", "--net", $"tap={jumbo.Name},mtu=9000") with
        { Memory = "512M" });
        VmmResult result = process.WaitForEnd(s_deadline);

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(ValueOf(result, "mac"), Is.EqualTo("02:00:00:00:00:77"));
        Assert.That(ValueOf(result, "loss"), Does.Contain("100 packets received, 0% packet loss"));
        Assert.That(ValueOf(result, "mtu"), Is.EqualTo("9000"));
        Assert.That(ValueOf(result, "jumbo"), Does.Contain(" 0% packet loss"));
        Assert.That(ValueOf(result, "data"), Does.StartWith(transfer.Hash), "what the guest received");
        Assert.That(transfer.TakenHash, Is.EqualTo(transfer.Hash), "what the guest sent");
        Assert.That(ValueOf(result, "again"), Does.Contain(" 0% packet loss"));
        Assert.That(ValueOf(result, "unbound"), Does.Not.Contain("eth0"));
        Assert.That(ValueOf(result, "rebound"), Does.Contain(" 0% packet loss"));
    }

    [Test]
    public void Reboot_WithNetwork_WorksAgain()
    {
        HostTap tap = Keep(new HostTap(2));
        LinuxGuest guest = GuestWith(
            $"""
            ip addr add {tap.GuestAddress}/24 dev eth0
            ip link set eth0 up
            echo loss=$(ping -q -c 5 -A -W 5 {tap.Address} | grep loss)
            read -r what
            [ "$what" != reboot ] || reboot -f
            """,
            "--net", $"tap={tap.Name}");
        VmmProcess process = Boot(guest with { Options = ["--net", $"tap={tap.Name}"] });
        for (int boot = 1; boot <= 2; boot++)
        {
            process.WaitForOutput(" 0% packet loss", boot);
            process.Send(boot == 1 ? "reboot\n"u8 : "end\n"u8);
        }
        VmmResult result = process.WaitForEnd();
        Assert.That(result.ExitCode, Is.Zero, result.Summary);
    }

    // By a stream of frames, and by vhost-user, which takes a passt that Debian 12 does not have: only with VMM_TESTS=full, because a test that boots Linux and is skipped fails the whole run in CI.
    [TestCase("off")]
    [TestCase("on", Category = "Full")]
    public void User_PasstIsKilledAndTheGuestReboots_WorksAgain(string vhostUser)
    {
        string passt = Require("passt", "passt");
        if (vhostUser == "on" && !PasstProgram.KnowsVhostUser(passt))
            Assert.Ignore("this passt does not know --vhost-user (that of Debian 13 does)");
        using var server = new TcpListener(IPAddress.Loopback, 0);
        server.Start();
        // passt of Debian 12 can lose a connection whose client closes its side at once, so the client's input stays open. Nothing ends nc when passt dies under it but its time.
        LinuxGuest guest = GuestWith(
            $"""
            ip addr add 10.0.2.15/24 dev eth0
            ip link set eth0 up
            mkfifo /tmp/open
            exec 3<>/tmp/open
            echo mtu=$(cat /sys/class/net/eth0/mtu)
            while read -r what; do
                case $what in
                    reboot) reboot -f ;;
                    end) break ;;
                    *) until timeout 20 nc -w 5 10.0.2.2 {((IPEndPoint)server.LocalEndpoint).Port} <&3 | grep -q hello; do sleep 0.2; done; echo reached=$what ;;
                esac
            done
            """);
        VmmProcess process = Boot(guest with { Options = ["--net", $"user,host=on,vhost_user={vhostUser}"] });
        using var stop = new CancellationTokenSource();
        Task greeting = Task.Run(async () =>
        {
            while (true)
            {
                using Socket client = await server.AcceptSocketAsync(stop.Token);
                client.Send("hello\n"u8);
            }
        });
        process.WaitForOutput("mtu=65520");
        Ask("first");
        Process first = Passt();
        Assert.That(File.ReadAllText($"/proc/{first.Id}/cmdline").Contains("--vhost-user", StringComparison.Ordinal), Is.EqualTo(vhostUser == "on"));
        first.Kill();
        Ask("killed");
        Process second = Passt();
        process.Send("reboot\n"u8);
        process.WaitForOutput("mtu=65520", 2);
        Ask("rebooted");
        Assert.That(Passt().Id, Is.EqualTo(second.Id), "it outlives the guest's reboot");
        process.Send("end\n"u8);
        VmmResult result = process.WaitForEnd();
        stop.Cancel();

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(second.WaitForExit(10_000), "it ends with its VMM");
        Assert.That(() => greeting.Wait(10_000), Throws.InstanceOf<AggregateException>());

        void Ask(string what)
        {
            process.Send(System.Text.Encoding.ASCII.GetBytes($"{what}\n"));
            process.WaitForOutput($"reached={what}");
        }

        static Process Passt() => Process.GetProcesses().Single(other =>
        {
            try
            {
                return File.ReadAllText($"/proc/{other.Id}/cmdline").Contains("--dns-forward", StringComparison.Ordinal);
            }
            catch (IOException)
            {
                return false;
            }
        });
    }

    [Test]
    public void Reboot_ManyTimes_LeavesNothingBehind()
    {
        const int warmUp = 2;
        HostTap tap = Keep(new HostTap(7));
        VmmProcess process = Boot(GuestWith(
            $"""
            ip addr add {tap.GuestAddress}/24 dev eth0
            ip link set eth0 up
            echo loss=$(ping -q -c 1 -W 5 {tap.Address} | grep loss)
            read -r what
            [ "$what" = end ] || reboot -f
            """) with
        { Options = ["--net", $"tap={tap.Name}", "--vsock", "cid=51"] });
        Reboot(0, warmUp);
        (int Descriptors, long Memory) before = Use(process.Id);
        string[] mappings = ProcFs.GuestMappings(process.Id);
        Reboot(warmUp, warmUp + s_reboots);
        (int Descriptors, long Memory) after = Use(process.Id);
        TestContext.Out.WriteLine($"{s_reboots} reboots: {before} before, {after} after");
        Assert.That(ProcFs.GuestMappings(process.Id), Is.EqualTo(mappings));
        process.Send("end\n"u8);
        VmmResult result = process.WaitForEnd();

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(after.Descriptors, Is.EqualTo(before.Descriptors));
        Assert.That(after.Memory - before.Memory, Is.LessThan(4 << 20), "bytes of the VMM's own");

        // Lets a guest that has rebooted `from` times do so until it has `to` times, and is up.
        void Reboot(int from, int to)
        {
            for (int boot = from; ; boot++)
            {
                process.WaitForOutput(" 0% packet loss", boot + 1);
                if (boot == to)
                    return;
                process.Send("reboot\n"u8);
            }
        }
    }

    [Test]
    public void Multiqueue_FourPairs_AreAllUsed()
    {
        HostTap tap = Keep(new HostTap(3, multiQueue: true));
        using Process server = HostCommand.Start("iperf3", "-s", "-B", tap.Address);
        try
        {
            VmmProcess process = Boot(GuestWith(
                $"""
                ip addr add {tap.GuestAddress}/24 dev eth0
                ip link set eth0 up
                until [ "$(cat /sys/class/net/eth0/carrier)" = 1 ]; do sleep 0.1; done
                echo before=$(ethtool -l eth0 | grep Combined | tr '\n\t' '  ')
                ethtool -L eth0 combined 4
                echo after=$(ethtool -l eth0 | grep Combined | tr '\n\t' '  ')
                for cpu in 0 1 2 3; do
                    taskset $((1 << cpu)) ping -q -c 20 -A -W 5 {tap.Address} > /dev/null
                done
                iperf3 -c {tap.Address} -P 8 -t 3 -R > /dev/null && echo "reverse=done"
                ethtool -S eth0 > /tmp/counters
                echo tx=$(awk '/tx_queue_[0-3]_packets/ {"{ print $2 }"}' /tmp/counters | tr '\n' ' ')
                echo rx=$(awk '/rx_queue_[0-3]_packets/ {"{ print $2 }"}' /tmp/counters | tr '\n' ' ')
                grep -c '[1-9].*virtio' /proc/interrupts
                """,
                "--net", $"tap={tap.Name},queues=4") with
            { Cpus = 4, HasTools = true, Memory = "512M" });
            VmmResult result = process.WaitForEnd(s_deadline);

            Assert.That(result.ExitCode, Is.Zero, result.Summary);
            Assert.That(ValueOf(result, "after"), Does.Match(@"Combined: +4 +Combined: +4"), result.Summary);
            Assert.That(ValueOf(result, "reverse"), Is.EqualTo("done"));
            Assert.That(Numbers(ValueOf(result, "tx")), Has.Length.EqualTo(4).And.All.GreaterThan(0), "packets sent, queue by queue");
            Assert.That(Numbers(ValueOf(result, "rx")), Has.Length.EqualTo(4).And.All.GreaterThan(0), "packets received, queue by queue");
        }
        finally
        {
            server.Kill();
        }
    }

    [Test]
    public void Traffic_Iperf3_CostsTheVmmNoSystemCallAPacket()
    {
        HostTap tap = Keep(new HostTap(4));
        // One server for each direction: iperf3 does not listen for a moment after a test.
        using Process server = HostCommand.Start("iperf3", "-s", "-B", tap.Address);
        using Process reverse = HostCommand.Start("iperf3", "-s", "-B", tap.Address, "-p", "5202");
        try
        {
            VmmProcess process = Boot(GuestWith(
                $"""
                ip addr add {tap.GuestAddress}/24 dev eth0
                ip link set eth0 up
                ping -q -c 2 -A -W 2 {tap.Address} > /dev/null
                echo "ready"
                read -r go
                iperf3 -c {tap.Address} -t {(int)s_traced.TotalSeconds + 5} > /dev/null && echo "forward=done"
                iperf3 -c {tap.Address} -p 5202 -t 2 -R > /dev/null && echo "reverse=done"
                """,
                "--net", $"tap={tap.Name}") with
            { HasTools = true });
            process.WaitForOutput("ready");
            long before = tap.Packets;
            process.Send("go\n"u8);
            Eventually.True(() => tap.Packets - before > EnoughPackets, () => "iperf3 has not begun");

            string summary = Path.Combine(Scratch, "strace");
            long packets = tap.Packets;
            using (Process strace = HostCommand.Start("strace", "-f", "-c", "-o", summary, "-p", $"{process.Id}"))
            {
                Thread.Sleep(s_traced);
                Eventually.True(() => tap.Packets - packets > EnoughPackets, () => "hardly any traffic");   // a busy machine needs longer
                Assert.That(LibC.kill(strace.Id, LibC.SIGINT), Is.Zero);
                Assert.That(strace.WaitForExit(VmmProcess.Deadline));
            }
            packets = tap.Packets - packets;
            VmmResult result = process.WaitForEnd(s_deadline);

            string calls = File.ReadAllText(summary);
            TestContext.Out.WriteLine($"{packets} packets\n{calls}");
            Assert.That(result.ExitCode, Is.Zero, result.Summary);
            Assert.That(ValueOf(result, "forward"), Is.EqualTo("done"));
            Assert.That(ValueOf(result, "reverse"), Is.EqualTo("done"));
            Assert.That(packets, Is.GreaterThan(EnoughPackets));
            Match total = Total().Match(calls);
            int count = total.Success ? int.Parse(total.Groups[1].Value, CultureInfo.InvariantCulture) : 0;
            Assert.That(count, Is.LessThan(packets / 50), calls);
        }
        finally
        {
            server.Kill();
            reverse.Kill();
        }
    }

    [Test]
    public void Link_TapSetDownAndUp_IsSeenByTheGuest()
    {
        HostTap tap = Keep(new HostTap(5));
        VmmProcess process = Boot(GuestWith(
            """
            ip link set eth0 up
            carrier() { until [ "$(cat /sys/class/net/eth0/carrier)" = $1 ]; do sleep 0.1; done; }
            carrier 1
            echo "up 1"
            carrier 0
            echo "down"
            carrier 1
            echo "up 2"
            """,
            "--net", $"tap={tap.Name}"));
        process.WaitForOutput("up 1");
        HostCommand.Run("ip", "link", "set", tap.Name, "down");
        process.WaitForOutput("down");
        HostCommand.Run("ip", "link", "set", tap.Name, "up");
        process.WaitForOutput("up 2");
        VmmResult result = process.WaitForEnd();
        Assert.That(result.ExitCode, Is.Zero, result.Summary);
    }

    [Test]
    public void Rebind_HundredTimes_LeavesNothingBehind()
    {
        HostTap tap = Keep(new HostTap(6));
        VmmProcess process = Boot(GuestWith(
            """
            rebind() {
                for i in $(seq $1); do
                    echo LNRO0005:00 > /sys/bus/platform/drivers/virtio-mmio/unbind
                    echo LNRO0005:00 > /sys/bus/platform/drivers/virtio-mmio/bind
                    ip link set eth0 up
                done
            }
            rebind 3
            echo "warm"
            read -r go
            rebind 100
            echo "done"
            read -r go
            """,
            "--net", $"tap={tap.Name}"));
        process.WaitForOutput("warm");
        (int Descriptors, long Memory) before = Use(process.Id);
        process.Send("go\n"u8);
        process.WaitForOutput("done");
        (int Descriptors, long Memory) after = Use(process.Id);
        process.Send("go\n"u8);
        VmmResult result = process.WaitForEnd();

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(after.Descriptors, Is.EqualTo(before.Descriptors));
        Assert.That(after.Memory - before.Memory, Is.LessThan(4 << 20), "bytes of the VMM's own");
    }

    // What is open, and the memory that is no file's and not shared (guest memory is).
    private static (int Descriptors, long Memory) Use(int id) => (Directory.GetFiles($"/proc/{id}/fd").Length, ProcFs.OwnMemory(id));

    private static long[] Numbers(string text) =>
        [.. text.Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(number => long.Parse(number, CultureInfo.InvariantCulture))];

    [GeneratedRegex(@"^\s*100\.00\s+\S+\s+\S*\s+(\d+)\s.*total", RegexOptions.Multiline)]
    private static partial Regex Total();
}
