using NUnit.Framework;
using Vmm.Machine;

namespace Vmm.Tests.Machine;

public class AtOnceTests
{
    [TestCase(0)]
    [TestCase(1)]
    [TestCase(5)]
    public void Do_Many_AreUnderWayAtTheSameTime(int count)
    {
        using var all = new Barrier(Math.Max(count, 1));
        int done = 0;
        AtOnce.Do(Enumerable.Range(0, count).ToArray(), _ =>
        {
            Assert.That(all.SignalAndWait(30_000), "the others have not begun");
            Interlocked.Increment(ref done);
        });
        Assert.That(done, Is.EqualTo(count));
    }

    [Test]
    public void Do_OneThrows_TheOthersAreDoneAndItIsTold()
    {
        int done = 0;
        Assert.That(
            () => AtOnce.Do([1, 2, 3], item =>
            {
                if (item == 2)
                    throw new IOException("two");
                Interlocked.Increment(ref done);
            }),
            Throws.TypeOf<IOException>().With.Message.EqualTo("two"));
        Assert.That(done, Is.EqualTo(2));
    }
}
