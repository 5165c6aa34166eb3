using System.Text;
using NUnit.Framework;
using Vmm.Devices.Spawning;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Devices.Spawning;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class OutputLinesTests
{
    private readonly List<string> _said = [];

    [Test]
    public void Read_LinesInPieces_AreWholeWithTheirNames()
    {
        using var pipe = new Pipe();
        pipe.Reader.SetNonBlocking();
        var lines = new OutputLines(1024);
        byte[] text = [.. Encoding.UTF8.GetBytes("vmm: cannot open n\u00f6.img\nodd "), 0xFF, .. "\nend"u8];
        foreach (byte value in text)
        {
            pipe.Writer.WriteAll([value], "the pipe");
            Assert.That(lines.Read(pipe.Reader, _said.Add), Is.EqualTo(-Errnos.Eagain));
        }
        Assert.That(_said, Is.EqualTo(new[] { "vmm: cannot open n\u00f6.img", "odd \udcff" }));
        pipe.Writer.Dispose();
        Assert.That(lines.Read(pipe.Reader, _said.Add), Is.Zero);
        lines.End(_said.Add);
        lines.End(_said.Add);
        Assert.That(_said.Skip(2), Is.EqualTo(new[] { "end" }));
    }

    [Test]
    public void Read_LineThatIsTooLong_IsCut()
    {
        using var pipe = new Pipe();
        pipe.Reader.SetNonBlocking();
        pipe.Writer.WriteAll("123456789\n12\n"u8, "the pipe");
        new OutputLines(4).Read(pipe.Reader, _said.Add);
        Assert.That(_said, Is.EqualTo(new[] { "1234", "12" }));
    }

    // What writes faster than it is read must not hold the reader up: it has a lock, and others wait for its thread.
    [Test]
    public void Read_OutputWithoutEnd_ReturnsToBeCalledAgain()
    {
        using FileDescriptor endless = FileDescriptor.Open("/dev/zero", OpenMode.ReadOnly);
        Task<int> read = Task.Run(() => new OutputLines(4).Read(endless, _said.Add));
        Assert.That(read.Wait(TimeSpan.FromSeconds(30)), "it reads on and on");
        Assert.That(read.Result, Is.EqualTo(-Errnos.Eagain));
    }

    [Test]
    public void Read_FullPipeOfAProgramThatHasEnded_IsReadToItsEnd()
    {
        using var pipe = new Pipe();
        pipe.Reader.SetNonBlocking();
        byte[] all = new byte[64 * 1024];
        all.AsSpan().Fill((byte)'\n');
        all[^1] = (byte)'x';
        pipe.Writer.WriteAll(all, "the pipe");
        pipe.Writer.Dispose();
        var lines = new OutputLines(4);
        Assert.That(lines.Read(pipe.Reader, _said.Add), Is.Zero);
        lines.End(_said.Add);
        Assert.That(_said[^1], Is.EqualTo("x"));
    }
}
