using NUnit.Framework;

namespace Vmm.Tests.Integration.Linux;

/// <summary><c>vmm check</c> where Linux guests run.</summary>
public class CheckTests : LinuxTest
{
    [Test]
    public void Check_HostRunsLinux_Exits0()
    {
        VmmResult result = StartVmm("check").WaitForEnd();

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.EndWith("Linux guests can run on this host.\n"), result.Summary);
    }
}
