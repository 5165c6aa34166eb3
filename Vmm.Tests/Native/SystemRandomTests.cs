using NUnit.Framework;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Native;

public class SystemRandomTests
{
    [Test]
    public void NextUInt64_ManyTimes_HasEachBitSetAndClear()
    {
        (ulong set, ulong clear) = (0, 0);
        for (int i = 0; i < 128; i++)
        {
            ulong value = SystemRandom.NextUInt64();
            set |= value;
            clear |= ~value;
        }
        Assert.That((set, clear), Is.EqualTo((ulong.MaxValue, ulong.MaxValue)));
    }

    [TestCase(32)]
    [TestCase(1000)]
    public void Fill_Bytes_AreAllOthersEachTime(int length)
    {
        byte[] first = new byte[length], second = new byte[length];
        SystemRandom.Fill(first);
        SystemRandom.Fill(second);

        Assert.That(second, Is.Not.EqualTo(first));
        // Of a thousand zeros that stay, or a part that is not filled, none is likely: one in 2^64.
        for (int i = 0; i + 8 <= length; i += 8)
            Assert.That(BitConverter.ToUInt64(first, i), Is.Not.Zero, $"at {i}");
    }
}
