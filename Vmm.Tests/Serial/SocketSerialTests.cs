using System.Globalization;
using System.Net.Sockets;
using System.Text;
using NUnit.Framework;
using Vmm.Serial;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Serial;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class SocketSerialTests : IDisposable
{
    private readonly string _path = Path.Combine(Path.GetTempPath(), Path.GetRandomFileName());
    private readonly SocketSerial _serial;
    private readonly SerialGuest _guest;

    public SocketSerialTests()
    {
        _serial = new SocketSerial(_path, "--serial socket");
        _guest = new SerialGuest(_serial);
    }

    public void Dispose()
    {
        _guest.Dispose();
        _serial.Dispose();
    }

    private Socket Connect()
    {
        var client = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = 30_000 };
        client.Connect(new UnixDomainSocketEndPoint(_path));
        return client;
    }

    private void SendAll(string text)
    {
        _guest.Send(text);
        Eventually.True(() => _guest.Driver.AllSent, () => "held up");
    }

    private static string Read(Socket client, int count)
    {
        byte[] buffer = new byte[count];
        int read = 0;
        for (int got = 1; read < count && got > 0; read += got)
            got = client.Receive(buffer, read, count - read, SocketFlags.None);
        return Encoding.Latin1.GetString(buffer, 0, read);
    }

    [Test]
    public void Client_Connected_GetsOutputAndSendsInput()
    {
        using Socket client = Connect();
        SendAll("login: ");
        Assert.That(Read(client, 7), Is.EqualTo("login: "));
        client.Send("root\u0001x\n"u8);
        Assert.That(_guest.WaitForInput("\n"), Is.EqualTo("root\u0001x\n"));
    }

    [Test]
    [NonParallelizable]     // the limit is the process's
    public void Client_NoDescriptorIsLeft_WaitsAndTheThreadDoesNotSpin()
    {
        // Code that is loaded for the first time needs descriptors.
        using (Socket first = Connect())
        {
            SendAll("first");
            Assert.That(Read(first, 5), Is.EqualTo("first"));
        }
        Assert.That(() => FileDescriptor.Open("/nonexistent", OpenMode.ReadOnly), Throws.TypeOf<ErrnoException>());
        string thread = Directory.GetDirectories("/proc/self/task").Last(task => File.ReadAllText($"{task}/comm") == "serial socket\n");
        using var times = RegularFile.OpenRead($"{thread}/stat");
        using var client = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = 30_000 };
        var address = new UnixDomainSocketEndPoint(_path);
        long used;
        using (var limit = new DescriptorLimit(left: 0))
        {
            client.Connect(address);
            long before = TimeOf(times);
            Thread.Sleep(1000);
            used = TimeOf(times) - before;
        }
        Assert.That(used, Is.LessThan(5), "ticks of 10 ms");
        SendAll("served");
        Assert.That(Read(client, 6), Is.EqualTo("served"));
    }

    // utime and stime of proc_pid_stat(5).
    private static long TimeOf(RegularFile stat)
    {
        byte[] text = new byte[1024];
        string[] fields = Encoding.ASCII.GetString(text, 0, stat.Read(text, 0)).Split(") ")[1].Split(' ');
        return long.Parse(fields[11], CultureInfo.InvariantCulture) + long.Parse(fields[12], CultureInfo.InvariantCulture);
    }

    [Test]
    public void Client_ComesLate_GetsTheLatest64KiB()
    {
        SendAll("lost" + new string('.', OutputRing.Capacity - 4) + "kept");
        using Socket client = Connect();
        string replay = Read(client, OutputRing.Capacity);
        Assert.That(replay, Does.StartWith("....").And.EndWith("kept"));
        SendAll("live");
        Assert.That(Read(client, 4), Is.EqualTo("live"));
    }

    [Test]
    public void Clients_OneAfterAnother_TheNextIsServedWhenTheFirstLeaves()
    {
        using (Socket first = Connect())
        {
            SendAll("one");
            Assert.That(Read(first, 3), Is.EqualTo("one"));
            using Socket second = Connect();
            second.Send("from the second"u8);
            first.Send("from the first"u8);
            _guest.WaitForInput("from the first");
            first.Dispose();
            _guest.WaitForInput("from the second");
            SendAll("two");
            Assert.That(Read(second, 3), Is.EqualTo("two"));
        }
    }

    [Test]
    public void Client_SlowWithOneMebibyte_GetsEveryByte()
    {
        using Socket client = Connect();
        client.Send("!"u8);
        _guest.WaitForInput("!");   // it is being served: from now on the guest waits for it
        byte[] sent = new byte[1 << 20];
        new Random(3).NextBytes(sent);
        _guest.Driver.Send(sent);
        string got = Read(client, sent.Length);
        Assert.That(got, Is.EqualTo(Encoding.Latin1.GetString(sent)));
    }

    [Test]
    public void Client_SendsALotAndLeaves_ArrivesWhole()
    {
        byte[] typed = new byte[100_000];
        new Random(3).NextBytes(typed);
        using (Socket client = Connect())
        {
            client.Send(typed);
        }
        Eventually.True(() => _guest.Received().Length == typed.Length, () => $"{_guest.Received().Length} bytes");
        Assert.That(_guest.Received(), Is.EqualTo(Encoding.Latin1.GetString(typed)));
    }

    [Test]
    public void Client_SendsALotAndLeavesWhileOutputWaits_ArrivesWhole()
    {
        SendAll(new string('o', 50_000));
        byte[] typed = new byte[30_000];
        new Random(4).NextBytes(typed);
        using (Socket client = Connect())
        {
            client.Send(typed);
        }
        Eventually.True(() => _guest.Received().Length == typed.Length, () => $"{_guest.Received().Length} bytes");
        Assert.That(_guest.Received(), Is.EqualTo(Encoding.Latin1.GetString(typed)));
    }

    [Test]
    public void Client_LeavesWithoutReading_TheGuestGoesOn()
    {
        Socket client = Connect();
        client.Send("!"u8);
        _guest.WaitForInput("!");
        _guest.Driver.Send(new byte[1 << 20]);
        client.Dispose();
        Eventually.True(() => _guest.Driver.AllSent, () => "held up");
    }

    [Test]
    public void Client_ShutsItsSendingSide_StillGetsOutput()
    {
        using Socket client = Connect();
        client.Send("done"u8);
        client.Shutdown(SocketShutdown.Send);
        _guest.WaitForInput("done");
        SendAll("answer");
        Assert.That(Read(client, 6), Is.EqualTo("answer"));
    }

    [Test]
    public void Dispose_ClientConnected_SendsTheRestAndRemovesTheFile()
    {
        using Socket client = Connect();
        client.Send("!"u8);
        _guest.WaitForInput("!");
        SendAll("last words");
        _serial.Dispose();
        Assert.That(Read(client, 100), Is.EqualTo("last words"));
        Assert.That(Path.Exists(_path), Is.False);
    }

    [Test]
    public void Dispose_ClientTakesNothing_GivesUp()
    {
        using Socket client = Connect();
        client.Send("!"u8);
        _guest.WaitForInput("!");
        _guest.Driver.Send(new byte[1 << 20]);
        var ending = new Thread(_serial.Dispose) { IsBackground = true };
        ending.Start();
        Assert.That(ending.Join(TimeSpan.FromSeconds(30)), "it waits for ever");
        Eventually.True(() => _guest.Driver.AllSent, () => "held up");
    }

    [Test]
    public void Listen_SomebodyListens_IsRefused()
    {
        VmmException error = Assert.Throws<VmmException>(() => new SocketSerial(_path, "--serial socket=X").Dispose())!;
        Assert.That(error.Message, Is.EqualTo(
            $"--serial socket=X: cannot listen on {_path}: Address already in use (errno 98): another process listens there; give another path or stop it"));
        using Socket client = Connect();   // and was not disturbed
    }

    [Test]
    public void Listen_StaleFile_IsReplaced()
    {
        string path = _path + "-stale";
        using (var dead = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified))
        {
            dead.Bind(new UnixDomainSocketEndPoint(path));
            File.Move(path, path + "-2");   // so that closing it leaves the file behind
        }
        File.Move(path + "-2", path);
        using (new SocketSerial(path, "--serial socket"))
            Assert.That(Path.Exists(path));
        Assert.That(Path.Exists(path), Is.False);
    }
}
