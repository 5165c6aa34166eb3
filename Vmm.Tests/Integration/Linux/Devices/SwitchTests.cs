using NUnit.Framework;

namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>Network devices whose packets go to another process: dpdk-testpmd, which passes on between two ports, queue by queue: both
/// guests must use as many.</summary>
public class SwitchTests : DeviceTest
{
    private static readonly TimeSpan s_deadline = TimeSpan.FromMinutes(4);

    [Test]
    public void Guests_TwoAtASwitch_ReachEachOther()
    {
        string[] sockets = [Path.Combine(Scratch, "port0"), Path.Combine(Scratch, "port1")];
        // The switch polls. The emulated host has one processor: the guests have it as soon as they want it.
        using var daemon = new HostDaemon(
            sockets, "chrt", "--idle", "0", "dpdk-testpmd", "--no-huge", "-m", "256", "--no-pci", "--file-prefix=vmm", "--lcores", "0@0,1@0",
            "--vdev", $"net_vhost0,iface={sockets[0]},queues=2", "--vdev", $"net_vhost1,iface={sockets[1]},queues=2",
            "--", "--total-num-mbufs=8192", "--rxq=2", "--txq=2", "--forward-mode=io", "--auto-start");
        // One server for each: iperf3 does not listen for a moment after a test.
        VmmProcess server = Boot(Guest(0, "iperf3 -s > /dev/null &\niperf3 -s -p 5202 > /dev/null &\necho \"serving\"\nread -r end\n"));
        server.WaitForOutput("serving");
        // ping sends more than 50 where a reply takes longer than a second, on a busy machine.
        VmmProcess client = Boot(Guest(1,
            """
            echo loss=$(ping -q -c 50 -A -W 5 10.7.0.1 | grep loss)
            iperf3 -f m -c 10.7.0.1 -t 5 > /tmp/iperf && echo forward=$(grep receiver /tmp/iperf)
            iperf3 -f m -c 10.7.0.1 -p 5202 -t 5 -R > /tmp/iperf && echo reverse=$(grep receiver /tmp/iperf)
            for cpu in 1 2; do taskset $cpu ping -q -c 10 -A -W 5 10.7.0.1 > /dev/null; done
            ethtool -S eth0 > /tmp/counters
            echo tx=$(awk '/tx_queue_[01]_packets/ { print $2 }' /tmp/counters | tr '\n' ' ')
            """));
        VmmResult result = client.WaitForEnd(s_deadline);
        TestContext.Out.WriteLine(result.Output);
        server.Send("end\n"u8);
        VmmResult other = server.WaitForEnd();

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(other.ExitCode, Is.Zero, other.Summary);
        Assert.That(ValueOf(result, "loss"), Does.Match("50 packets received, [0-9]% packet loss"));
        Assert.That(ValueOf(result, "forward"), Does.Contain("bits/sec"));
        Assert.That(ValueOf(result, "reverse"), Does.Contain("bits/sec"));
        Assert.That(ValueOf(result, "tx").Split(' ', StringSplitOptions.RemoveEmptyEntries), Has.Length.EqualTo(2).And.None.EqualTo("0"), "packets sent, queue by queue");
        Assert.That(result.Errors, Is.Empty);

        LinuxGuest Guest(int port, string script) => GuestWith(
            $"""
            ip addr add 10.7.0.{port + 1}/24 dev eth0
            ip link set eth0 up
            echo mac=$(cat /sys/class/net/eth0/address)
            {script}
            """,
            "--net", $"socket={sockets[port]},mac=02:00:00:00:07:0{port},queues=2") with
        { HasTools = true, Cpus = 2 };
    }
}
