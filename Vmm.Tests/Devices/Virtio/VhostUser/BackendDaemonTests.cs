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
}
