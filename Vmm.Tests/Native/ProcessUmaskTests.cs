using System.Diagnostics;
using NUnit.Framework;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Native;

public sealed class ProcessUmaskTests
{
    [TestCase("Name:\tx\nUmask:\t0077\nState:\tR\n", 0x3F)]
    [TestCase("Name:\tx\nUmask:\t0000\nState:\tR\n", 0)]
    [TestCase("Name:\tx\nUmask:\t7777\nState:\tR\n", 0x1FF)]
    [TestCase("Name:\tUmask:\t0077\nState:\tR\n", 0x12)]     // a kernel before 4.7 does not tell
    [TestCase("", 0x12)]
    public void Parse_Status_IsTheMask(string status, int expected) => Assert.That((int)ProcessUmask.Parse(status), Is.EqualTo(expected));

    [Test]
    public void Read_ThisProcess_IsWhatItsChildrenGetAndStays()
    {
        UnixFileMode mask = ProcessUmask.Read();
        using Process child = Process.Start(new ProcessStartInfo("sh", ["-c", "umask"]) { RedirectStandardOutput = true })!;
        string output = child.StandardOutput.ReadToEnd();
        child.WaitForExit();

        Assert.That(Convert.ToInt32(output.Trim(), 8), Is.EqualTo((int)mask));
    }
}
