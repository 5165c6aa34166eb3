using NUnit.Framework;
using Vmm.Devices.Spawning;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Devices.Spawning;

public class SocketDirectoryTests
{
    private string _place = "";

    [SetUp]
    public void SetUp() => _place = Directory.CreateTempSubdirectory("vmm-test-").FullName;

    [TearDown]
    public void TearDown() => Directory.Delete(_place, recursive: true);

    [Test]
    public void Create_RuntimeDirectory_IsTaken() => Assert.That(Path.GetDirectoryName(Create(_place, "/nowhere")), Is.EqualTo(_place));

    [TestCase(null)]
    [TestCase("")]
    [TestCase("relative")]
    [TestCase("/nowhere/at/all")]
    [TestCase("/proc/sys", Description = "nobody can make a directory there")]
    public void Create_NoSuchRuntimeDirectory_TakesTheNextPlace(string? runtime) =>
        Assert.That(Path.GetDirectoryName(Create(runtime, _place)), Is.EqualTo(_place));

    [Test]
    public void Create_RuntimeDirectoryOfAnotherUser_TakesTheNextPlace()
    {
        if (Environment.UserName != "root")
            Assert.Ignore("only root can give a directory away");
        string other = Directory.CreateDirectory(Path.Combine(_place, "other")).FullName;
        using (var chown = System.Diagnostics.Process.Start("chown", ["12345", other]))
            chown.WaitForExit();

        Assert.That(Path.GetDirectoryName(Create(other, _place)), Is.EqualTo(_place));
    }

    [Test]
    public void Create_PathTooLongForASocket_TakesTheNextPlace()
    {
        string deep = Directory.CreateDirectory(Path.Combine(_place, new string('d', 90))).FullName;
        string directory = Create(deep, deep, _place);

        Assert.That(Path.GetDirectoryName(directory), Is.EqualTo(_place));
        using UnixListener listener = UnixListener.Listen(Path.Combine(directory, "socket"));
    }

    [Test]
    public void Create_NoPlace_Throws() => Assert.That(() => Create("/nowhere", "/nowhere/else"), Throws.TypeOf<ErrnoException>());

    private static string Create(params ReadOnlySpan<string?> places) => SocketDirectory.Create("socket", places);
}
