using NUnit.Framework;
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
}
