using System.Text;
using NUnit.Framework;
using Vmm.Serial;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Serial;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class TtySerialPipeTests : IDisposable
{
    private readonly Pipe _in = new(), _out = new();
    private readonly TtySerial _serial;
    private readonly SerialGuest _guest;
    private int _quits;

    public TtySerialPipeTests()
    {
        _serial = new TtySerial(_in.Reader, _out.Writer, () => _quits++);
        _guest = new SerialGuest(_serial);
    }

    public void Dispose()
    {
        _guest.Dispose();
        _serial.Dispose();
        _in.Dispose();
        _out.Dispose();
    }

    private static byte[] Random(int count)
    {
        byte[] bytes = new byte[count];
        new Random(5).NextBytes(bytes);
        return bytes;
    }

    private static byte[] ReadAll(FileDescriptor fd, int pauseEvery = int.MaxValue)
    {
        var all = new List<byte>();
        byte[] chunk = new byte[3000];
        for (int reads = 1, count; (count = fd.TryRead(chunk)) > 0; reads++)
        {
            all.AddRange(chunk.AsSpan(0, count));
            if (reads % pauseEvery == 0)
                Thread.Sleep(1);
        }
        return [.. all];
    }

    [Test]
    public void Output_SlowReaderOfOneMebibyte_GetsEveryByte()
    {
        byte[] sent = Random(1 << 20);
        byte[] got = [];
        var reader = new Thread(() => got = ReadAll(_out.Reader, pauseEvery: 8));
        reader.Start();
        _guest.Driver.Send(sent);
        Eventually.True(() => _guest.Driver.AllSent, () => "the guest still waits for room");
        _serial.Dispose();
        _out.Writer.Dispose();
        reader.Join();
        Assert.That(got.AsSpan().SequenceEqual(sent), $"{got.Length} bytes");
    }

    [Test]
    public void Dispose_OutputQueued_WritesItOutFirst()
    {
        _guest.Send("last words");
        Eventually.True(() => _guest.Driver.AllSent, () => "not sent");
        _serial.Dispose();
        _out.Writer.Dispose();
        Assert.That(ReadAll(_out.Reader), Is.EqualTo("last words"u8.ToArray()));
    }

    [Test]
    public void Dispose_NobodyReads_GivesUp()
    {
        _guest.Driver.Send(Random(1 << 18));   // more than pipe and queue hold
        var ending = new Thread(_serial.Dispose) { IsBackground = true };
        ending.Start();
        Assert.That(ending.Join(TimeSpan.FromSeconds(30)), "it waits for ever");
        Eventually.True(() => _guest.Driver.AllSent, () => "the guest is still held up");
    }

    [Test]
    public void Output_ReaderLeaves_IsDroppedAndTheGuestGoesOn()
    {
        _out.Reader.Dispose();
        _guest.Driver.Send(Random(1 << 18));
        Eventually.True(() => _guest.Driver.AllSent, () => "the guest is held up");
    }

    [Test]
    public void Input_Pipe_ArrivesAsItIsWithoutEscapes()
    {
        _in.Writer.TryWrite("\u0001x\u0001h\u0003end"u8);
        Assert.That(_guest.WaitForInput("end"), Is.EqualTo("\u0001x\u0001h\u0003end"));
        Assert.That(_quits, Is.Zero);
    }

    [Test]
    public void Input_FasterThanTheGuest_LosesNothing()
    {
        byte[] typed = Random(200_000);
        var writer = new Thread(() =>
        {
            for (int sent = 0; sent < typed.Length;)
                sent += _in.Writer.TryWrite(typed.AsSpan(sent));
            _in.Writer.Dispose();
        });
        writer.Start();
        Eventually.True(() => _guest.Received().Length == typed.Length, () => $"{_guest.Received().Length} bytes");
        writer.Join();
        Assert.That(_guest.Received(), Is.EqualTo(Encoding.Latin1.GetString(typed)));
    }

    [Test]
    public void Input_End_StopsReadingAndOutputGoesOn()
    {
        _in.Writer.TryWrite("bye"u8);
        _in.Writer.Dispose();
        _guest.WaitForInput("bye");
        int wakes = _serial.InputWakes;
        for (int i = 0; i < 20; i++)
        {
            _guest.Send("x");
            Assert.That(_out.Reader.TryRead(new byte[16]), Is.Positive);
        }
        Assert.That(_serial.InputWakes, Is.LessThan(wakes + 10), "a thread that spins at the end wakes all the time");
        Assert.That(_quits, Is.Zero);
    }

    [Test]
    public void Reset_OutputOnItsWay_IsKeptAndInputWorksAfterwards()
    {
        _guest.Send("before");
        Eventually.True(() => _guest.Driver.AllSent, () => "not sent");
        _guest.Uart.Reset();
        _in.Writer.TryWrite("typed while nobody listens"u8);
        Assert.That(_guest.Driver.Autoconfigure(), Is.EqualTo("16550A"));
        _guest.Driver.Open();
        _guest.WaitForInput("typed while nobody listens");
        _guest.Send("after");
        Eventually.True(() => _guest.Driver.AllSent, () => "not sent");
        _serial.Dispose();
        _out.Writer.Dispose();
        Assert.That(Encoding.ASCII.GetString(ReadAll(_out.Reader)), Is.EqualTo("beforeafter"));
    }

    [Test]
    public void Construct_NoStreams_DropsOutput()
    {
        using var serial = new TtySerial(null, null, () => { });
        using var guest = new SerialGuest(serial);
        guest.Driver.Send(Random(100_000));
        Eventually.True(() => guest.Driver.AllSent, () => "held up");
    }

    [Test]
    public void Input_DevNull_EndsAtOnce()
    {
        using var nothing = FileDescriptor.Open("/dev/null", OpenMode.ReadOnly);
        using var serial = new TtySerial(nothing, null, () => { });
        using var guest = new SerialGuest(serial);
        serial.Dispose();
        Assert.That(serial.InputWakes, Is.LessThan(4));
    }
}
