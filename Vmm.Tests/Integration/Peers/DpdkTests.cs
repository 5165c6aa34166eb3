using System.Buffers.Binary;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using NUnit.Framework;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Integration.Peers;

/// <summary>DPDK's virtio-user as a front-end of our network back-end: what comes by UDP goes to testpmd, which sends it back.</summary>
public class DpdkTests : PeerTest
{
    private const int Frames = 100_000;
    private const int Window = 64;              // frames underway: no buffer on the way is smaller
    private const int SmallestFrame = 60;

    private static readonly byte[] s_addresses = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];

    private static readonly TimeSpan s_start = TimeSpan.FromSeconds(40);
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(4);

    [TestCase(false, false, 1)]
    [TestCase(true, false, 1)]
    [TestCase(false, true, 1)]
    [TestCase(true, true, 2)]
    [TestCase(false, false, 2)]
    [CancelAfter(600_000)]
    public void Net_HundredThousandFrames_NoneIsLostOrChanged(bool packed, bool dpdkListens, int pairs)
    {
        string testpmd = Require("dpdk-testpmd", "dpdk-dev");
        int port = Random.Shared.Next(20000, 60000);
        string[] device =
        [
            "net", "--socket-udp", $"local=127.0.0.1:{port},remote=127.0.0.1:{port + pairs}", "--queues", $"{pairs}",
        ];
        if (dpdkListens)
            StartVmm(["backend", .. device, "--client", "--socket-path", SocketPath, "--log-level", "error"]);
        else
            StartBackend(device[0], device[1..]);
        // On one processor each, if there are so many: it polls.
        PeerProcess peer = StartPeer(
            testpmd, "--no-huge", "-m", "256", "--no-pci", $"--file-prefix=vmm{port}", "--lcores", "0@0,1@0",
            "--vdev", $"net_virtio_user0,path={SocketPath},queues={pairs},queue_size=256{(packed ? ",packed_vq=1" : "")}{(dpdkListens ? ",server=1" : "")}",
            "--", "-i", "--total-num-mbufs=8192", $"--rxq={pairs}", $"--txq={pairs}", "--forward-mode=io");
        peer.WaitForOutput("testpmd> ", s_start);
        peer.Send("start\n");

        Socket[] wires = [.. Enumerable.Range(0, pairs).Select(pair => Wire(port + pairs + pair, port + pair))];
        try
        {
            long start = Stopwatch.GetTimestamp();
            WarmUp(wires);
            for (int pair = 0; pair < pairs; pair++)
                SendAndReceive(wires[pair], Frames / pairs, start, peer);
            TestContext.Out.WriteLine($"{Frames} frames in {Stopwatch.GetElapsedTime(start).TotalSeconds:0.0} s");
        }
        finally
        {
            foreach (Socket wire in wires)
                wire.Dispose();
        }
        peer.Send("stop\nquit\n");
        peer.WaitForEnd(s_start);
        Assert.That(peer.Output, Does.Contain("TX-dropped: 0"), peer.Text);
    }

    // Until the forwarding has begun, frames are lost.
    private static void WarmUp(Socket[] wires)
    {
        byte[] buffer = new byte[2048];
        foreach (Socket wire in wires)
        {
            wire.ReceiveTimeout = 200;
            Eventually.True(
                () =>
                {
                    wire.Send(Frame(-1));
                    try
                    {
                        return wire.Receive(buffer) > 0;
                    }
                    catch (SocketException)
                    {
                        return false;
                    }
                },
                () => "nothing comes back");
            // What is left of them.
            try
            {
                while (wire.Receive(buffer) > 0)
                {
                }
            }
            catch (SocketException)
            {
            }
            wire.ReceiveTimeout = 20_000;
        }
    }

    private static void SendAndReceive(Socket wire, int count, long start, PeerProcess peer)
    {
        byte[] buffer = new byte[2048];
        int sent = 0;
        for (int received = 0; received < count; received++)
        {
            for (; sent < count && sent - received < Window; sent++)
                wire.Send(Frame(sent));
            int length;
            try
            {
                length = wire.Receive(buffer);
            }
            catch (SocketException)
            {
                throw new AssertionException($"frame {received} of {count} did not come back, {sent} were sent\n{peer.Text}");
            }
            if (!buffer.AsSpan(0, length).SequenceEqual(Frame(received)))
                Assert.Fail($"frame {received} came back as {Convert.ToHexString(buffer, 0, Math.Min(length, 64))}");
            if (received % 1000 == 0)
                Assert.That(Stopwatch.GetElapsedTime(start), Is.LessThan(s_limit));
        }
    }

    private static byte[] Frame(int number)
    {
        byte[] frame = new byte[SmallestFrame + (number & 0x3FF)];
        for (int i = 0; i < frame.Length; i++)
            frame[i] = (byte)(number * 7 + i);
        s_addresses.CopyTo(frame, 0);
        BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(12), 0x88B5);    // for experiments (IEEE 802)
        BinaryPrimitives.WriteInt32LittleEndian(frame.AsSpan(14), number);
        return frame;
    }

    private static Socket Wire(int local, int remote)
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp) { ReceiveBufferSize = 4 << 20 };
        socket.Bind(new IPEndPoint(IPAddress.Loopback, local));
        socket.Connect(new IPEndPoint(IPAddress.Loopback, remote));
        return socket;
    }
}
