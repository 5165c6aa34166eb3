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
}
