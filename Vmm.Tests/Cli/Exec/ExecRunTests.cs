using NUnit.Framework;
using Vmm.Cli.Exec;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Cli.Exec;

public sealed class ExecRunTests
{
    // A vCPU's thread takes the signal off by which it is interrupted, and so one from outside, which is for the command.
    [Test]
    public void Forwarded_SignalByWhichThreadsAreInterrupted_IsNone() => Assert.That(ExecRun.Forwarded, Does.Not.Contain(ThreadSignal.Number));
}
