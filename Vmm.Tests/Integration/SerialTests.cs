using System.Net.Sockets;
using System.Text;
using NUnit.Framework;
using Tmds.Linux;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Integration;

/// <summary>The serial port's way to the host: pipes, files, sockets, or nothing.</summary>
public class SerialTests : KvmTest
{
    private const int FloodLines = 0x2000;

    private static readonly TimeSpan s_soon = TimeSpan.FromSeconds(10);

    [TestCase("interrupts")]
    [TestCase("poll")]
    public void Tty_InputFromAPipe_ReachesTheGuest(string way)
    {
        string text = string.Concat(Enumerable.Range(0, 2000).Select(i => $"line {i}\n"));
        VmmProcess process = Start("echo", "--cmdline", way);
        process.Send(Encoding.ASCII.GetBytes(text + "\x04"));
        process.EndInput();

        Assert.That(process.WaitForEnd(), Is.EqualTo(new VmmResult(0, $"ready\n{text}\nbytes: 0x{text.Length:x}\n", "")));
    }

    [Test]
    public void Tty_InputAtItsEnd_LeavesTheGuestRunningAndTheHostIdle()
    {
        VmmProcess process = Start("echo");
        process.EndInput();
        process.WaitForOutput("ready\n");
        Thread.Sleep(TimeSpan.FromSeconds(1));   // for the runtime's own start-up
        TimeSpan before = ProcFs.ProcessorTime(process.Id);

        Assert.That(process.EndsWithin(TimeSpan.FromSeconds(2)), Is.False, "the end of input must not end the guest");

        TimeSpan used = ProcFs.ProcessorTime(process.Id) - before;
        Assert.That(used, Is.LessThan(TimeSpan.FromMilliseconds(300)), "processor time in 2 s");
        process.Signal(LibC.SIGTERM);
        Assert.That(process.WaitForEnd().ExitCode, Is.EqualTo(128 + LibC.SIGTERM));
    }

    [Test]
    public void Tty_ReaderIsSlow_NothingIsLost()
    {
        VmmProcess process = StartUnread("flood");
        WaitUntilFull(process);
        process.StartReading();

        VmmResult result = process.WaitForEnd();

        Assert.That(result.ExitCode, Is.Zero, result.Errors);
        Assert.That(result.Output, Is.EqualTo(Flood()));
    }

    [Test]
    public void Tty_NobodyReads_ASignalStillEndsIt()
    {
        VmmProcess process = StartUnread("flood");
        WaitUntilFull(process);

        process.Signal(LibC.SIGTERM);

        Assert.That(process.EndsWithin(s_soon), Is.True, "vmm waits for its reader");
        process.StartReading();
        Assert.That(process.WaitForEnd().ExitCode, Is.EqualTo(128 + LibC.SIGTERM));
    }

    [Test]
    public void Tty_ReaderLeaves_TheGuestGoesOn()
    {
        VmmProcess process = StartUnread("flood");
        process.CloseOutput();

        Assert.That(process.EndsWithin(VmmProcess.Deadline), Is.True, "vmm waits for its reader");
        Assert.That(process.WaitForEnd().ExitCode, Is.Zero);
    }

    [Test]
    public void File_Output_IsInIt()
    {
        string path = Path.Combine(Scratch, "serial, out");
        File.WriteAllText(path, new string('x', 1 << 20));   // from before, and longer

        Assert.That(Run("flood", "--serial", $"file=\"{path}\",truncate=on"), Is.EqualTo(new VmmResult(0, "", "")));
        Assert.That(File.ReadAllText(path), Is.EqualTo(Flood()));

        Assert.That(Run("hello", "--serial", $"file=\"{path}\""), Is.EqualTo(new VmmResult(0, "", "")));
        Assert.That(File.ReadAllText(path), Is.EqualTo(Flood() + "hello from the guest\n"));
    }

    [Test]
    public void File_MachineThatCannotBeHad_IsLeftAsItIs()
    {
        string path = Path.Combine(Scratch, "serial");
        File.WriteAllText(path, "before");

        VmmResult result = Run("hello", "--serial", $"file={path},truncate=on", "--disk", "path=/nowhere/disk");

        Assert.That((result.ExitCode, File.ReadAllText(path)), Is.EqualTo((1, "before")), result.Summary);
    }

    [Test]
    public void File_CannotBeOpened_IsAOneLineError()
    {
        VmmResult result = Run("hello", "--serial", "file=/nowhere/serial");

        Assert.That(result.ExitCode, Is.EqualTo(1));
        Assert.That(result.Output, Is.Empty);
        Assert.That(result.Errors.TrimEnd().Split('\n'), Has.Length.EqualTo(1));
        Assert.That(result.Errors, Does.Contain("/nowhere/serial").And.Contain("--serial"));
    }

    [TestCase("null")]
    [TestCase("off")]
    public void NullAndOff_Output_GoesNowhere(string serial) =>
        Assert.That(Run("hello", "--serial", serial), Is.EqualTo(new VmmResult(0, "", "")));

    [Test]
    public void Socket_Client_TalksToTheGuest()
    {
        string path = Path.Combine(Scratch, "serial.sock");
        VmmProcess process = Start("echo", "--serial", $"socket={path}");

        // Whoever comes first gets what was written before; the next one goes on where that one left.
        using (Socket first = Connect(path))
        {
            Receive(first, "ready\n");
            first.Send("one"u8);
            Receive(first, "one");
        }
        using Socket second = Connect(path);
        second.Send("two\x04"u8);
        Receive(second, "two\nbytes: 0x6\n");
        VmmResult result = process.WaitForEnd();

        Assert.That(result, Is.EqualTo(new VmmResult(0, "", "")));
        Assert.That(File.Exists(path), Is.False, "the socket is left behind");
    }

    [Test]
    public void Socket_SignalWithoutAClient_RemovesTheSocket()
    {
        string path = Path.Combine(Scratch, "serial.sock");
        VmmProcess process = Start("spin", "--serial", $"socket={path}");
        Connect(path).Dispose();

        process.Signal(LibC.SIGTERM);

        Assert.That(process.WaitForEnd(), Is.EqualTo(new VmmResult(128 + LibC.SIGTERM, "", "")));
        Assert.That(File.Exists(path), Is.False, "the socket is left behind");
    }

    private static void WaitUntilFull(VmmProcess process) => Eventually.True(() => process.IsOutputFull, () => $"the pipe is not full\n{process.Errors}");

    private static string Flood() => string.Concat(Enumerable.Range(0, FloodLines).Select(i => $"line 0x{i:x}\n"));

    private static Socket Connect(string path)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified)
        {
            ReceiveTimeout = (int)VmmProcess.Deadline.TotalMilliseconds,
        };
        long deadline = Environment.TickCount64 + (long)VmmProcess.Deadline.TotalMilliseconds;
        while (true)
        {
            try
            {
                socket.Connect(new UnixDomainSocketEndPoint(path));
                return socket;
            }
            catch (SocketException) when (Environment.TickCount64 < deadline)
            {
                Thread.Sleep(10);   // vmm is not there yet
            }
        }
    }

    private static void Receive(Socket socket, string wanted)
    {
        byte[] buffer = new byte[wanted.Length];
        int count = 0;
        while (count < buffer.Length)
        {
            int more = socket.Receive(buffer.AsSpan(count));
            if (more == 0)
                break;
            count += more;
        }
        Assert.That(Encoding.ASCII.GetString(buffer, 0, count), Is.EqualTo(wanted));
    }
}
