using NUnit.Framework;
using Vmm.Machine;

namespace Vmm.Tests.Machine;

public class ShutdownTimerTests
{
    [TestCase(2, true)]
    [TestCase(15, true)]
    [TestCase(1, false)]
    [TestCase(3, false)]
    public void TryBegin_Signal_BeginsByThoseThatAskToEnd(int signal, bool begins)
    {
        using var end = new ShutdownTimer(TimeSpan.FromHours(1), _ => { });

        Assert.That(end.TryBegin(signal), Is.EqualTo(begins));
        Assert.That(end.Begun, Is.EqualTo(begins ? new MachineEnd(MachineEndKind.Signal, signal) : null));
        Assert.That(end.TryBegin(15), Is.EqualTo(!begins), "once only");
    }

    [Test]
    public void TryBegin_NoTime_DoesNotBegin()
    {
        using var end = new ShutdownTimer(TimeSpan.Zero, _ => { });

        Assert.That(end.TryBegin(15), Is.False);
    }

    [Test]
    public void TryBegin_TimeIsOver_Stops()
    {
        using var stopped = new ManualResetEventSlim();
        MachineEnd? how = null;
        using var end = new ShutdownTimer(TimeSpan.FromMilliseconds(1), e =>
        {
            how = e;
            stopped.Set();
        });

        end.TryBegin(2);

        Assert.That(stopped.Wait(TimeSpan.FromMinutes(2)), Is.True);
        Assert.That(how, Is.EqualTo(new MachineEnd(MachineEndKind.Signal, 2)));
    }
}
