using NUnit.Framework;
using Vmm.Serial;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Serial;

public class SerialBackendsTests
{
    private static string TemporaryPath() => Path.Combine(Path.GetTempPath(), Path.GetRandomFileName());

    [Test]
    public void Create_Off_IsNull() => Assert.That(SerialBackends.Create(new SerialConfig(SerialKind.Off), () => { }), Is.Null);

    [Test]
    public void Create_Null_DropsOutput()
    {
        using ISerialBackend serial = SerialBackends.Create(new SerialConfig(SerialKind.Null), () => { })!;
        using var guest = new SerialGuest(serial);
        guest.Driver.Send(new byte[100_000]);
        Eventually.True(() => guest.Driver.AllSent, () => "held up");
    }

    [TestCase(false, "something longer that was there beforenew")]
    [TestCase(true, "new")]
    public void Create_File_AddsToItsContentOrReplacesIt(bool truncate, string expected)
    {
        string path = TemporaryPath();
        try
        {
            File.WriteAllText(path, "something longer that was there before");
            using (ISerialBackend serial = SerialBackends.Create(new SerialConfig(SerialKind.File, path, truncate), () => { })!)
            {
                using var guest = new SerialGuest(serial);
                guest.Send("new");
                Eventually.True(() => guest.Driver.AllSent, () => "held up");
            }
            Assert.That(File.ReadAllText(path), Is.EqualTo(expected));
        }
        finally
        {
            File.Delete(path);
        }
    }

    [Test]
    public void Create_FileThatCannotBe_NamesOptionAndReason()
    {
        VmmException error = Assert.Throws<VmmException>(
            () => SerialBackends.Create(new SerialConfig(SerialKind.File, "/nonexistent/console"), () => { }))!;
        Assert.That(error.Message, Does.StartWith("--serial file=/nonexistent/console: ").And.Contain("No such file"));
    }

    [Test]
    public void Create_FullDevice_DropsOutputAndGoesOn()
    {
        using ISerialBackend serial = SerialBackends.Create(new SerialConfig(SerialKind.File, "/dev/full"), () => { })!;
        using var guest = new SerialGuest(serial);
        guest.Driver.Send(new byte[100_000]);
        Eventually.True(() => guest.Driver.AllSent, () => "held up");
    }

    [TestCase(108)]
    [TestCase(0)]
    public void Create_SocketPathOfBadLength_IsWrongUsage(int length)
    {
        UsageException error = Assert.Throws<UsageException>(
            () => SerialBackends.Create(new SerialConfig(SerialKind.Socket, new string('s', length)), () => { }))!;
        Assert.That(error.Message, Does.StartWith("--serial socket=").And.EndWith($"1 to 107 bytes long, this one {length}"));
    }

    [Test]
    public void Create_SocketWhereAFileIs_LeavesItAlone()
    {
        string path = TemporaryPath();
        File.WriteAllText(path, "precious");
        try
        {
            VmmException error = Assert.Throws<VmmException>(
                () => SerialBackends.Create(new SerialConfig(SerialKind.Socket, path), () => { }))!;
            Assert.That(error.Message, Does.Contain("something else"));
            Assert.That(File.ReadAllText(path), Is.EqualTo("precious"));
        }
        finally
        {
            File.Delete(path);
        }
    }
}
