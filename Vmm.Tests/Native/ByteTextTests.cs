using System.Text;
using NUnit.Framework;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Native;

public sealed class ByteTextTests
{
    // Not as cases of a test, whose names and attributes are UTF-8.
    private static readonly (byte[] Bytes, string Text)[] s_others =
    [
        ([0x61, 0xFF, 0x62], "a\uDCFFb"),
        ([0x80], "\uDC80"),
        ([0xE2, 0x82], "\uDCE2\uDC82"),                        // a character that is cut off
        ([0xED, 0xB3, 0xBF], "\uDCED\uDCB3\uDCBF"),            // a surrogate, which UTF-8 has not
        ([0xF0, 0x9F, 0x98, 0x80, 0xFE], "\uD83D\uDE00\uDCFE"),
    ];

    [TestCase("plain")]
    [TestCase("ä€😀\uFFFD")]
    [TestCase("")]
    public void Decode_Utf8_IsThatText(string text) => Assert.That(ByteText.Decode(Encoding.UTF8.GetBytes(text)), Is.EqualTo(text));

    [Test]
    public void Decode_OtherBytes_ComeBack()
    {
        foreach ((byte[] bytes, string text) in s_others)
        {
            Assert.That(ByteText.Decode(bytes) == text, Convert.ToHexString(bytes));
            Assert.That(ByteText.Encode(text), Is.EqualTo(bytes));
        }
    }

    [Test]
    public void Encode_AnyBytes_ComeBack()
    {
        var random = new Random(7);
        for (int i = 0; i < 2000; i++)
        {
            byte[] bytes = new byte[random.Next(12)];
            random.NextBytes(bytes);
            Assert.That(ByteText.Encode(ByteText.Decode(bytes)), Is.EqualTo(bytes), Convert.ToHexString(bytes));
        }
    }

    [Test]
    public void Encode_OtherSurrogates_AreReplaced()
    {
        Assert.That(ByteText.Encode("\uD800x\uDCFF"), Is.EqualTo(new byte[] { 0xEF, 0xBF, 0xBD, 0x78, 0xFF }));
        Assert.That(ByteText.Encode("\uDC7F"), Is.EqualTo(new byte[] { 0xEF, 0xBF, 0xBD }));
    }

    [Test]
    public void Split_ListOfTheKernels_IsItsTexts() =>
        Assert.That(ProcessText.Split("vmm\0\0a b\0\xFF"u8[..10]), Is.EqualTo(new[] { "vmm", "", "a b" }));
}
