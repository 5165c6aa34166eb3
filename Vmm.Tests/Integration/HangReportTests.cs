using System.Diagnostics;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Integration;

public class HangReportTests
{
    [Test]
    public void Of_ThreadThatWaits_TellsWhereAndWhatWasSignalled()
    {
        using var end = new EventFd();
        using var signalled = new EventFd();
        for (int i = 0; i < 0x4e5; i++)
            signalled.Signal();
        var thread = new Thread(() => Poll.Wait([new PollEntry(end, PollEvents.Readable)], -1)) { Name = "waits in vain" };
        thread.Start();
        try
        {
            string report = "";
            // Its name is the kernel's before it waits.
            Eventually.True(
                () => (report = HangReport.Of(Environment.ProcessId)).Split('\n').Any(line =>
                    line.Contains(" waits in vain, State: S (sleeping)", StringComparison.Ordinal) && line.Contains("syscall 7 0x", StringComparison.Ordinal)),
                () => report);
            Assert.That(report, Does.Contain("eventfd-count: 4e5"));
        }
        finally
        {
            end.Signal();
            thread.Join();
        }
    }

    [Test]
    public void OfAllStarted_ProcessesOfATest_AreThereWithTheirChildren()
    {
        using Process process = Process.Start(new ProcessStartInfo("/bin/sh", ["-c", "sleep 611 & wait"]))!;
        try
        {
            Eventually.True(
                () => HangReport.OfAllStarted() is var report && report.Contains("/bin/sh -c sleep 611", StringComparison.Ordinal) && report.Contains(": sleep 611", StringComparison.Ordinal),
                HangReport.OfAllStarted);
        }
        finally
        {
            process.Kill(entireProcessTree: true);
            process.WaitForExit();
        }
    }

    [Test]
    public void Of_ProcessThatHasEnded_IsEmpty()
    {
        using Process process = Process.Start("/bin/true");
        process.WaitForExit();
        Assert.That(HangReport.Of(process.Id), Is.EqualTo($"== process {process.Id}: \n"));
    }
}
