using NUnit.Framework;
using Vmm.Machine;

namespace Vmm.Tests.Machine;

public class RestartWatchTests
{
    private static readonly TimeSpan s_short = TimeSpan.FromMilliseconds(1);

    [Test]
    public void IsStuck_SilentResetsAtOnce_IsSoAtTheFifth() =>
        Assert.That(Resets(s_short, 5, output: _ => 0), Is.EqualTo(new[] { false, false, false, false, true }));

    [Test]
    public void IsStuck_OutputInBetween_IsNotSo() => Assert.That(Resets(s_short, 20, output: i => i), Has.None.True);

    [Test]
    public void IsStuck_GuestThatRunsForLong_IsNotSo() => Assert.That(Resets(TimeSpan.FromSeconds(3), 20, output: _ => 0), Has.None.True);

    [Test]
    public void IsStuck_DevicesStartedInBetween_IsNotSo() => Assert.That(Resets(s_short, 20, output: _ => 0, starts: i => i), Has.None.True);

    private static bool[] Resets(TimeSpan ran, int count, Func<int, long> output, Func<int, long>? starts = null)
    {
        var watch = new RestartWatch();
        return [.. Enumerable.Range(1, count).Select(i => watch.IsStuck(ran, (output(i), starts?.Invoke(i) ?? 0)))];
    }
}
