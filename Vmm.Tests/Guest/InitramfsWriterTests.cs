using System.Diagnostics;
using System.Text;
using NUnit.Framework;
using Vmm.Guest;

namespace Vmm.Tests.Guest;

[System.Runtime.Versioning.SupportedOSPlatform("linux")]
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class InitramfsWriterTests : IDisposable
{
    private readonly HostTree _host = new();

    public void Dispose() => _host.Dispose();

    [Test]
    public void Write_OneFile_IsTheDocumentedFormat()
    {
        byte[] archive = Write(writer => writer.AddFile("/init", "hello"u8, 0x1ED));

        string expected =
            "070701" + "00000001" + "000081ED" + "00000000" + "00000000" + "00000001" + "00000000" + "00000005" + "00000000" + "00000000" + "00000000"
            + "00000000" + "00000005" + "00000000" + "init\0" + "\0" + "hello" + "\0\0\0"
            + "070701" + "00000000" + "00000000" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" + "00000000" + "00000000" + "00000000"
            + "00000000" + "0000000B" + "00000000" + "TRAILER!!!\0" + "\0\0\0";
        Assert.That(Encoding.ASCII.GetString(archive), Is.EqualTo(expected));
    }

    [Test]
    public void Write_Files_AreWhatCpioUnpacks()
    {
        byte[] content = new byte[70_001];
        new Random(3).NextBytes(content);
        byte[] archive = Write(writer =>
        {
            writer.AddFile("/lib/modules/a/b.ko", content);
            writer.AddFile("/lib/empty", []);
            writer.AddFile("/ä b", "x"u8);
        });

        Unpack(archive, "cpio -idm --quiet --no-absolute-filenames");

        Assert.That(File.ReadAllBytes(_host.In("lib/modules/a/b.ko")), Is.EqualTo(content));
        Assert.That((int)File.GetUnixFileMode(_host.In("lib/modules/a/b.ko")), Is.EqualTo(0x1A4));
        Assert.That((int)File.GetUnixFileMode(_host.In("lib/modules")), Is.EqualTo(0x1ED));
        Assert.That(File.ReadAllText(_host.In("ä b")), Is.EqualTo("x"));
        Assert.That(new FileInfo(_host.In("lib/empty")).Length, Is.Zero);
    }

    [Test]
    public void Write_Device_IsWhatCpioLists()
    {
        byte[] archive = Write(writer => writer.AddCharacterDevice("/dev/console", 5, 1));

        string list = Unpack(archive, "cpio -tvn --quiet");

        Assert.That(list, Does.Match(@"(?m)^drwxr-xr-x +2 0 +0 +0 .* dev$"));
        Assert.That(list, Does.Match(@"(?m)^crw------- +1 0 +0 +5, +1 .* dev/console$"));
    }

    [Test]
    public void Write_SameContentTwice_MakesTheSameBytes()
    {
        byte[] first = Write(Fill);
        Thread.Sleep(1100);     // times are in seconds

        Assert.That(Write(Fill), Is.EqualTo(first));
    }

    [Test]
    public void Add_NameOfADirectoryThatAFileHasMade_IsRefused() =>
        Assert.That(() => Write(writer =>
        {
            writer.AddFile("/a/b", []);
            writer.AddFile("/a", []);
        }), Throws.ArgumentException);

    [TestCase("init")]
    [TestCase("/")]
    [TestCase("")]
    [TestCase("/a//b")]
    [TestCase("/a/")]
    [TestCase("/a/../b")]
    [TestCase("/./a")]
    [TestCase("/a\0b")]
    [TestCase("/TRAILER!!!")]
    public void Add_PathThatIsNone_IsRefused(string path) =>
        Assert.That(() => Write(writer => writer.AddFile(path, [])), Throws.ArgumentException);

    [Test]
    public void Add_PathOfMoreThanLinuxTakes_IsRefused()
    {
        Assert.That(() => Write(writer => writer.AddFile("/" + new string('a', 4095), [])), Throws.ArgumentException);
        Assert.That(() => Write(writer => writer.AddFile("/" + new string('a', 4094), [])), Throws.Nothing);
    }

    private static void Fill(InitramfsWriter writer)
    {
        writer.AddFile("/x/y", "1"u8);
        writer.AddCharacterDevice("/dev/null", 1, 3);
    }

    private static byte[] Write(Action<InitramfsWriter> fill)
    {
        using var stream = new MemoryStream();
        var writer = new InitramfsWriter(stream);
        fill(writer);
        writer.End();
        Assert.That(stream.Length % 4, Is.Zero);
        return stream.ToArray();
    }

    private string Unpack(byte[] archive, string command)
    {
        string path = _host.Add("../" + Path.GetFileName(_host.Root) + ".cpio", archive);
        try
        {
            var info = new ProcessStartInfo("/bin/sh", ["-c", $"umask 0; exec {command} < \"$0\"", path])
            {
                WorkingDirectory = _host.Root,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            };
            using Process process = Process.Start(info)!;
            string output = process.StandardOutput.ReadToEnd();
            process.WaitForExit();
            if (process.ExitCode == 127)
                Assert.Ignore("cpio is not installed");
            Assert.That(process.ExitCode, Is.Zero, () => process.StandardError.ReadToEnd());
            return output;
        }
        finally
        {
            File.Delete(path);
        }
    }
}
