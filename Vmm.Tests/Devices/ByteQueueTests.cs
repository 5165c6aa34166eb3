using NUnit.Framework;
using Vmm.Devices;

namespace Vmm.Tests.Devices;

public class ByteQueueTests
{
    [Test]
    public void AddAndRemove_AtRandom_KeepTheOrder()
    {
        var random = new Random(7);
        var queue = new ByteQueue(16384);
        byte added = 0, removed = 0;
        for (int i = 0; i < 5000; i++)
        {
            byte[] data = new byte[random.Next(queue.Room + 1)];
            foreach (ref byte value in data.AsSpan())
                value = added++;
            queue.Add(data);
            ReadOnlySpan<byte> first = queue.First[..random.Next(queue.First.Length + 1)];
            foreach (byte value in first)
                Assert.That(value, Is.EqualTo(removed++));
            queue.Remove(first.Length);
        }
    }

    [TestCase(0)]
    [TestCase(2048)]
    [TestCase(5000)]
    [TestCase(-4096)]
    [TestCase(int.MinValue)]
    public void New_CapacityThatIsNoPowerOfTwoFrom4096On_Throws(int capacity) =>
        Assert.That(() => new ByteQueue(capacity), Throws.TypeOf<ArgumentOutOfRangeException>());

    [Test]
    public void Add_MoreThanThereIsRoomFor_Throws()
    {
        var queue = new ByteQueue(4096);
        queue.Add(new byte[4096]);
        Assert.That(() => queue.Add([1]), Throws.TypeOf<ArgumentOutOfRangeException>());
    }

    [Test]
    public void AddLatest_MoreThanThereIsRoomFor_KeepsTheLatest()
    {
        var queue = new ByteQueue(4096);
        queue.AddLatest(new byte[4000]);
        byte[] latest = [.. Enumerable.Range(0, 5000).Select(i => (byte)i)];
        queue.AddLatest(latest);
        Assert.That(queue.Count, Is.EqualTo(4096));
        Assert.That(queue.First.ToArray(), Is.EqualTo(latest[^4096..]));
    }
}
