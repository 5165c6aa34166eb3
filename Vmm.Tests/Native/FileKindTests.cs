using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Native;

public sealed class FileKindTests
{
    [TestCase("/", true, false)]
    [TestCase("/etc/passwd", false, true)]
    [TestCase("/dev/null", false, true)]
    [TestCase("/proc/self/cwd", true, false)]
    [TestCase("/no/such", false, false)]
    [TestCase("", false, false)]
    [TestCase(null, false, false)]
    public void IsDirectoryAndIsFile_Path_AreWhatIsThere(string? path, bool isDirectory, bool isFile) =>
        Assert.That((FileKind.IsDirectory(path), FileKind.IsFile(path)), Is.EqualTo((isDirectory, isFile)));

    [Test]
    public void IsSame_TwoDescriptors_AreOfTheSameFileHoweverTheyWereOpened()
    {
        using FileDescriptor one = FileDescriptor.Open("/dev/null", OpenMode.ReadOnly), again = FileDescriptor.Open("/dev/null", OpenMode.ReadWrite), zero = FileDescriptor.Open("/dev/zero", OpenMode.ReadOnly);
        using Pipe pipe = new(), other = new();

        Assert.That(FileKind.IsSame(one, again), Is.True);
        Assert.That(FileKind.IsSame(one, zero), Is.False);
        Assert.That(FileKind.IsSame(pipe.Reader, pipe.Writer), Is.True, "both ends are of the pipe");
        Assert.That(FileKind.IsSame(pipe.Writer, other.Writer), Is.False);
    }
}
