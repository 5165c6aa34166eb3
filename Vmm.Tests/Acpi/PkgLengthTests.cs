using NUnit.Framework;
using Vmm.Acpi;

namespace Vmm.Tests.Acpi;

public class PkgLengthTests
{
    [TestCase(0, new byte[] { 0x01 })]
    [TestCase(61, new byte[] { 0x3E })]
    [TestCase(62, new byte[] { 0x3F })]
    [TestCase(63, new byte[] { 0x41, 0x04 })]
    [TestCase(64, new byte[] { 0x42, 0x04 })]
    [TestCase(4093, new byte[] { 0x4F, 0xFF })]
    [TestCase(4094, new byte[] { 0x81, 0x00, 0x01 })]
    [TestCase(1048572, new byte[] { 0x8F, 0xFF, 0xFF })]
    [TestCase(1048573, new byte[] { 0xC1, 0x00, 0x00, 0x01 })]
    [TestCase(268435451, new byte[] { 0xCF, 0xFF, 0xFF, 0xFF })]
    public void Encode_Body_IsShortestFormWithItselfIncluded(int body, byte[] expected)
    {
        byte[] bytes = new byte[PkgLength.MaxSize];
        int size = PkgLength.Encode(bytes, body);
        Assert.That(bytes[..size], Is.EqualTo(expected));
    }

    [Test]
    public void Encode_EveryBodyNearABoundary_DecodesToBodyAndSize()
    {
        byte[] bytes = new byte[PkgLength.MaxSize];
        foreach (int boundary in new[] { 1 << 6, 1 << 12, 1 << 20 })
        {
            for (int body = boundary - 10; body < boundary + 10; body++)
            {
                int size = PkgLength.Encode(bytes, body);
                Assert.That(size, Is.EqualTo((bytes[0] >> 6) + 1));
                Assert.That(Decode(bytes), Is.EqualTo(body + size));
            }
        }
    }

    [TestCase(-1)]
    [TestCase(268435452)]
    [TestCase(int.MaxValue)]
    public void Encode_OutOfRange_Throws(int body) =>
        Assert.Throws<ArgumentOutOfRangeException>(() => PkgLength.Encode(new byte[PkgLength.MaxSize], body));

    private static int Decode(byte[] bytes)
    {
        int following = bytes[0] >> 6;
        if (following == 0)
            return bytes[0];
        int length = bytes[0] & 0xF;
        for (int i = 1; i <= following; i++)
            length |= bytes[i] << (8 * i - 4);
        return length;
    }
}
