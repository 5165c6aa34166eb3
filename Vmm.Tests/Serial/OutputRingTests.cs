using NUnit.Framework;
using Vmm.Serial;

namespace Vmm.Tests.Serial;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class OutputRingTests : IDisposable
{
    private readonly WakeUp _wakeUp = new();
    private readonly OutputRing _ring;

    public OutputRingTests() => _ring = new OutputRing(_wakeUp);

    public void Dispose() => _wakeUp.Dispose();

    private void Fill(int count, int first = 0)
    {
        for (int i = first; i < first + count; i++)
            Assert.That(_ring.TryWrite((byte)(i * 7)));
    }

    [Test]
    public void TryWrite_Full_RefusesAndRemembersThatSomebodyWaits()
    {
        Fill(OutputRing.Capacity);
        Assert.That(_ring.TryWrite(1), Is.False);
        Assert.That(_ring.Advance(1));
        Assert.That(_ring.TryWrite(1));
        Assert.That(_ring.Advance(1), Is.False, "nobody was refused since");
    }

    [Test]
    public void Peek_AcrossTheEndOfTheArray_KeepsOrder()
    {
        byte[] chunk = new byte[1000];
        Fill(OutputRing.Capacity);
        _ring.Advance(OutputRing.Capacity - 10);
        Fill(500, OutputRing.Capacity);
        Assert.That(_ring.Peek(chunk), Is.EqualTo(510));
        for (int i = 0; i < 510; i++)
            Assert.That(chunk[i], Is.EqualTo((byte)((OutputRing.Capacity - 10 + i) * 7)));
    }

    [Test]
    public void KeepLatest_Full_DropsTheOldest()
    {
        _ring.KeepLatest(true);
        Fill(OutputRing.Capacity + 3);
        byte[] all = new byte[OutputRing.Capacity + 1];
        Assert.That(_ring.Peek(all), Is.EqualTo(OutputRing.Capacity));
        Assert.That(all[0], Is.EqualTo(3 * 7));
    }

    [Test]
    public void TryWrite_AfterEmptyPeek_WakesOnce()
    {
        Fill(1);
        Assert.That(_wakeUp.Drain(), Is.Zero, "the reader is not known to sleep");
        _ring.Peek(new byte[8]);
        _ring.Advance(1);
        _ring.Peek(new byte[8]);
        Fill(5);
        Assert.That(_wakeUp.Drain(), Is.EqualTo(1));
    }

    [Test]
    public void Close_Full_DropsAndLetsWritersGoOn()
    {
        Fill(OutputRing.Capacity);
        Assert.That(_ring.TryWrite(1), Is.False);
        Assert.That(_ring.Close());
        Assert.That(_ring.TryWrite(1));
        Assert.That(_ring.Peek(new byte[1]), Is.Zero);
    }

    [Test]
    public void Advance_ClosedInBetween_StaysEmpty()
    {
        byte[] chunk = new byte[8];
        Fill(8);
        _ring.Peek(chunk);
        _ring.Close();
        _ring.Advance(8);   // a write that was stuck when the ring was closed, and then ended
        Assert.That(_ring.Peek(chunk), Is.Zero);
    }
}
