using System.Net;
using System.Net.Sockets;
using NUnit.Framework;

namespace Vmm.Tests.Integration.Linux;

/// <content>Networks of guests.</content>
public partial class ExecTests
{
    [Test]
    public void Exec_OnTheHostsNetwork_ReachesTheHostAndIsReached()
    {
        if (!File.Exists("/usr/bin/passt"))
            Assert.Ignore("passt is not installed: scripts/setup test");
        using var server = new TcpListener(IPAddress.Loopback, 0);
        server.Start();
        int port = ((IPEndPoint)server.LocalEndpoint).Port, inward = FreePort();

        VmmProcess process = Start(["--net", "user,host=on", "--port", $"{inward}:8080"], "bash", "-c", $"""
            cat /etc/resolv.conf
            test $(( $(cat /sys/class/net/eth0/flags) & 0x1000 )) = 4096 && echo multicast
            busybox nc -ll -p 8080 -e cat &
            until cat /proc/net/tcp /proc/net/tcp6 2> /dev/null | grep -q ':1F90 .* 0A '; do sleep 0.1; done
            exec 3<>/dev/tcp/10.0.2.2/{port}; echo from the guest >&3; cat <&3
            """);
        using (TcpClient client = AcceptFrom(server, process))
        {
            using var reader = new StreamReader(client.GetStream());
            Assert.That(reader.ReadLine(), Is.EqualTo("from the guest"));
            for (int i = 0; i < 2; i++)
                EchoThrough(inward, connections: 3);
            client.GetStream().Write("from the host\n"u8);
        }
        VmmResult result = process.WaitForEnd();

        Assert.That(result, Is.EqualTo(new VmmResult(0, "nameserver 10.0.2.3\nmulticast\nfrom the host\n", "")));
    }

    // A root whose resolver's file is a link into /run of this machine has none either.
    [TestCase(true)]
    [TestCase(false)]
    public void Exec_OnTheHostsNetworkWithItsDirectories_WritesNothingIntoThemAndSaysSo(bool isEtc)
    {
        Require("passt", "passt");
        string root = Directory.CreateDirectory(Path.Combine(Scratch, "root")).FullName, etc = Directory.CreateDirectory(Path.Combine(root, "etc")).FullName;
        string bound = Directory.CreateDirectory(Path.Combine(Scratch, "bound")).FullName, place = isEtc ? "/etc" : "/run";
        File.Copy("/bin/busybox", Path.Combine(root, "busybox"));
        File.CreateSymbolicLink(Path.Combine(etc, "resolv.conf"), "../run/resolv.conf");
        string[] options = ["--root", root, "--workdir", "/", "--net", "user", "--bind", $"{bound}:{place}"], command = ["/busybox", "ls", place];
        string told = $"vmm: the guest resolves no names: {place} is a directory of this machine (--bind) without a file for /etc/resolv.conf: make an empty one there\n";

        Assert.That(Exec("", options, command), Is.EqualTo(new VmmResult(0, "", told.Replace(" /run ", " /etc/../run ", StringComparison.Ordinal))));
        Assert.That(Exec("", [.. options, "--quiet"], command), Is.EqualTo(new VmmResult(0, "", "")));
        Assert.That(Directory.GetFileSystemEntries(bound), Is.Empty);

        File.WriteAllText(Path.Combine(bound, "resolv.conf"), "");
        Assert.That(Exec("", options, "/busybox", "cat", "/etc/resolv.conf"), Is.EqualTo(new VmmResult(0, "nameserver 10.0.2.3\n", "")));
        Assert.That(File.ReadAllText(Path.Combine(bound, "resolv.conf")), Is.Empty);
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }

    // Several at the same time, each with what is its own.
    private static void EchoThrough(int port, int connections)
    {
        List<TcpClient> clients = [];
        try
        {
            for (int i = 0; i < connections; i++)
                clients.Add(new TcpClient("127.0.0.1", port) { ReceiveTimeout = 60_000 });
            byte[] sent = new byte[100_000];
            for (int i = 0; i < connections; i++)
            {
                Array.Fill(sent, (byte)('a' + i));
                clients[i].GetStream().Write(sent);
            }
            for (int i = 0; i < connections; i++)
            {
                byte[] received = new byte[sent.Length];
                clients[i].GetStream().ReadExactly(received);
                Assert.That(received, Is.All.EqualTo((byte)('a' + i)));
            }
        }
        finally
        {
            clients.ForEach(client => client.Dispose());
        }
    }

    private static TcpClient AcceptFrom(TcpListener server, VmmProcess process)
    {
        // The first guest of an emulated host may take a minute to boot.
        for (int i = 0; i < 1200 && !server.Pending() && !process.EndsWithin(TimeSpan.Zero); i++)
            Thread.Sleep(100);
        return server.Pending() ? server.AcceptTcpClient() : throw new AssertionException(process.WaitForEnd().Summary);
    }
}
