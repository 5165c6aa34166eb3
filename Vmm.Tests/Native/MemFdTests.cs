using NUnit.Framework;
using Tmds.Linux;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Native;

public class MemFdTests
{
    [Test]
    public void Create_KernelThatKnowsIt_CanNeverBeExecuted()
    {
        const int noExec = 0x20;   // F_SEAL_EXEC
        if (Environment.OSVersion.Version < new Version(6, 3))
            Assert.Ignore("this kernel has no MFD_NOEXEC_SEAL: Linux 6.3");
        using FileDescriptor file = MemFd.Create("test", 4096);

        int seals = LibC.fcntl(file.Number, LibC.F_GET_SEALS);

        Assert.That(seals, Is.EqualTo(noExec | LibC.F_SEAL_SHRINK | LibC.F_SEAL_GROW | LibC.F_SEAL_SEAL));
    }
}
