using System.Diagnostics;
using NUnit.Framework;
using Vmm.Devices.Backends;

namespace Vmm.Tests.Devices.Backends;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class BusyPollTests
{
    private static readonly long s_microsecond = Stopwatch.Frequency / 1_000_000;

    private BusyPoll _poll;
    private long _now = 1;
    private long _yieldTakes;
    private int _yields;

    public BusyPollTests() => _poll = Create(processors: 2);

    [Test]
    public void ShouldGoOn_SleepsThatWereShort_LooksForAWhile()
    {
        _yieldTakes = s_microsecond;
        Assert.That(Looks(), Is.Zero, "not before it is known to pay");
        Sleep();
        Assert.That(Looks(), Is.InRange(3, 60));
    }

    // A driver that spins, or anybody else who computes, has the processor for a time slice; then there is something to do. In the past it
    // was looked only at how long nothing was to do, and each request took a time slice.
    [Test]
    public void ShouldGoOn_ProcessorTakenForATimeSlice_IsAFailureAlsoWhenThereIsSomethingToDo()
    {
        Sleep();
        _yieldTakes = 4000 * s_microsecond;
        for (int request = 0; request < 100; request++)
        {
            // It offers the processor, and finds a request when it has it back; after that the driver is busy with the answer.
            if (!_poll.ShouldGoOn())
                Sleep();
            _poll.Restart();
        }
        Assert.That(_yields, Is.InRange(1, 3));
    }

    // Somebody who wants the processor now and then: sleeping would cost more.
    [Test]
    public void ShouldGoOn_ProcessorTakenSeldom_GoesOn()
    {
        Sleep();
        int slept = 0;
        for (int request = 1; request < 10_000; request++)
        {
            _yieldTakes = (request % 1000 == 0 ? 3000 : 1) * s_microsecond;
            if (!_poll.ShouldGoOn())
            {
                slept++;
                Sleep();
            }
            _poll.Restart();
        }
        Assert.That(slept, Is.Zero);
    }

    [Test]
    public void ShouldGoOn_AfterFailures_TriesAgainLaterAndLater()
    {
        _yieldTakes = 4000 * s_microsecond;
        var sleeps = new List<int>();
        for (int i = 1; sleeps.Count < 7; i++)
        {
            Sleep();
            int before = _yields;
            _poll.ShouldGoOn();
            if (_yields > before)
                sleeps.Add(i);
        }
        // Three time slices are more than looking may lose; after that each one is.
        Assert.That(sleeps.Skip(2).Zip(sleeps.Skip(3), (one, next) => next - one), Is.Ordered.And.All.GreaterThan(200));
    }

    [Test]
    public void ShouldGoOn_NothingComesAgainAndAgain_GivesUp()
    {
        _yieldTakes = s_microsecond;
        for (int i = 0; i < 20; i++)
        {
            Sleep();
            Looks();
        }
        int before = _yields;
        Sleep();
        Looks();
        Assert.That(_yields, Is.EqualTo(before));
    }

    [Test]
    public void ShouldGoOn_OneProcessor_NeverLooks()
    {
        _poll = Create(processors: 1);
        _yieldTakes = s_microsecond;
        for (int i = 0; i < 20; i++)
        {
            Sleep();
            Assert.That(Looks(), Is.Zero);
        }
    }

    private BusyPoll Create(int processors) => new(
        () => _now,
        () =>
        {
            _now += _yieldTakes;
            _yields++;
        },
        processors);

    private int Looks()
    {
        int count = 0;
        while (_poll.ShouldGoOn())
            count++;
        return count;
    }

    // A short one.
    private void Sleep()
    {
        _poll.End();
        _now += 10 * s_microsecond;
        _poll.Begin();
    }
}
