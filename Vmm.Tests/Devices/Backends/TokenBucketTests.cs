using NUnit.Framework;
using Vmm.Devices.Backends;

namespace Vmm.Tests.Devices.Backends;

public class TokenBucketTests
{
    private sealed class Ticks : TimeProvider
    {
        public long Now { get; set; }

        public override long TimestampFrequency => 1_000_000;

        public override long GetTimestamp() => Now;
    }

    [Test]
    public void Available_AfterTheFirstBurst_FollowsTheRate()
    {
        var clock = new Ticks();
        var bucket = new TokenBucket(1000, clock);
        Assert.That(bucket.Available, Is.EqualTo(100), "a tenth of a second's");
        bucket.Take(100);
        Assert.That(bucket.Available, Is.Zero);
        Assert.That(bucket.TimeUntil(10), Is.EqualTo(TimeSpan.FromMilliseconds(10)).Within(TimeSpan.FromTicks(10)));
        clock.Now += 10_000;
        Assert.That(bucket.Available, Is.EqualTo(10));
        clock.Now += 60_000_000;
        Assert.That(bucket.Available, Is.EqualTo(bucket.Capacity), "never more than it holds");
    }

    [Test]
    public void Available_OneASecond_ComesAfterASecond()
    {
        var clock = new Ticks();
        var bucket = new TokenBucket(1, clock);
        Assert.That(bucket.Capacity, Is.EqualTo(1));
        bucket.Take(1);
        clock.Now += 999_000;
        Assert.That(bucket.Available, Is.Zero);
        clock.Now += 1_001;
        Assert.That(bucket.Available, Is.EqualTo(1));
    }
}
