namespace Vmm.Tests.Fakes;

internal sealed class FakeClock(DateTime utc) : TimeProvider
{
    public DateTime Utc { get; set; } = DateTime.SpecifyKind(utc, DateTimeKind.Utc);

    public override DateTimeOffset GetUtcNow() => new(Utc);

    public override long GetTimestamp() => Utc.Ticks;

    public override long TimestampFrequency => TimeSpan.TicksPerSecond;
}
