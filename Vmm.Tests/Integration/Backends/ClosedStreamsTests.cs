using System.Diagnostics;
using NUnit.Framework;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Integration.Backends;

/// <summary>A program that is started without standard streams.</summary>
public class ClosedStreamsTests : BackendTest
{
    [Test]
    public void Start_WithoutStandardStreams_GivesTheirNumbersToNothingElse()
    {
        if (!VmmProcess.IsNative)
            Assert.Ignore("the runtime of an assembly opens files before: set VMM_BINARY");
        using Process process = Process.Start("sh", ["-c", "exec \"$@\" <&- >&- 2>&-", "sh", .. VmmProcess.Command, "backend", "rng", "--socket-path", SocketPath]);
        try
        {
            Eventually.True(() => File.Exists(SocketPath), () => "there is no socket");
            for (int number = 0; number <= 2; number++)
                Assert.That(new FileInfo($"/proc/{process.Id}/fd/{number}").LinkTarget, Is.EqualTo("/dev/null"), $"{number}");
        }
        finally
        {
            process.Kill();
            process.WaitForExit();
        }
    }
}
