using NUnit.Framework;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Native;

public class TimerFdTests
{
    [Test]
    public void Set_ZeroOrMore_RunsOutOnce()
    {
        using var timer = new TimerFd();
        Assert.That(IsReadable(timer, 0), Is.False, "it does not run yet");
        foreach (TimeSpan delay in (TimeSpan[])[TimeSpan.Zero, TimeSpan.FromMilliseconds(2)])
        {
            timer.Set(delay);
            Assert.That(IsReadable(timer, 10_000));
            timer.Drain();
            Assert.That(IsReadable(timer, 10), Is.False);
        }
    }

    [Test]
    public void Set_Again_ForgetsTheFirst()
    {
        using var timer = new TimerFd();
        timer.Set(TimeSpan.Zero);
        timer.Set(TimeSpan.FromHours(1));
        Assert.That(IsReadable(timer, 10), Is.False);
    }

    private static bool IsReadable(TimerFd timer, int milliseconds)
    {
        PollEntry[] entries = [new(timer, PollEvents.Readable)];
        return Poll.Wait(entries, milliseconds) == 1;
    }
}
