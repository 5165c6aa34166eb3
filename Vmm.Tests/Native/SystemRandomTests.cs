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
}
