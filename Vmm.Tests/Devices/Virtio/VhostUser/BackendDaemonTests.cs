using System.Diagnostics;
using NLog;
using NUnit.Framework;
using Vmm.Devices.Backends.Net;
using Vmm.Devices.Virtio.VhostUser;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Devices.Virtio.VhostUser;

public sealed class BackendDaemonTests
{
    [TestCase("Failed to bind port 1 (Permission denied)", "x ended with status 1: Failed to bind port 1 (Permission denied): somebody has that port, or this user may not: give another port of the host")]
    [TestCase("vmm: --user: there is no passt", "x ended with status 1: vmm: --user: there is no passt")]
    public void Failure_ProgramHasEnded_SaysWhyAndWhatToDo(string line, string expected)
    {
        using var events = new EventLoop();
        using var daemon = new BackendDaemon(
            "--net user", new DaemonProgram("x", "/bin/sh", _ => ["-c", $"echo '{line}' >&2; exit 1"]) { Advice = PasstProgram.Advice }, events);
        daemon.Start();

        Eventually.True(() => daemon.Failure is not null, () => "it lives");
        Assert.That(daemon.Failure, Is.EqualTo(expected));
    }

    [Test]
    public void Dispose_ProgramThatWritesWithoutEnd_EndsIt()
    {
        var events = new EventLoop();
        // Each line takes its time: the program writes faster than it is read, whatever else the machine does.
        var program = new DaemonProgram("yes", "/bin/sh", _ => ["-c", "exec yes $(printf %01000d 1)"])
        {
            LevelOf = _ =>
            {
                Thread.Sleep(1);
                return LogLevel.Debug;
            },
        };
        var daemon = new BackendDaemon("--fs tag=x", program, events);
        daemon.Start();
        int id = daemon.ProcessId;
        Thread.Sleep(200);      // it writes, and is read
        Task end = Task.Run(() =>
        {
            daemon.ExpectEnd();
            daemon.Dispose();
            events.Dispose();
        });
        bool hasEnded = end.Wait(TimeSpan.FromSeconds(30));
        if (!hasEnded)
            Process.GetProcessById(id).Kill();      // or it writes for ever
        Assert.That(hasEnded, "the lock is held while it writes");
        Assert.That(Directory.Exists($"/proc/{id}"), Is.False);
    }
}
