using System.Text;
using NUnit.Framework;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Native;

public sealed class ByteTextTests
{
    [TestCase("plain")]
    [TestCase("ä€😀\uFFFD")]
    [TestCase("")]
    public void Decode_Utf8_IsThatText(string text) => Assert.That(ByteText.Decode(Encoding.UTF8.GetBytes(text)), Is.EqualTo(text));

    [TestCase(new byte[] { 0x61, 0xFF, 0x62 }, "a\uDCFFb")]
    [TestCase(new byte[] { 0x80 }, "\uDC80")]
    [TestCase(new byte[] { 0xE2, 0x82 }, "\uDCE2\uDC82")]                                  // a character that is cut off
    [TestCase(new byte[] { 0xED, 0xB3, 0xBF }, "\uDCED\uDCB3\uDCBF")]                      // a surrogate, which UTF-8 has not
    [TestCase(new byte[] { 0xF0, 0x9F, 0x98, 0x80, 0xFE }, "\uD83D\uDE00\uDCFE")]
    public void Decode_OtherBytes_ComeBack(byte[] bytes, string text)
    {
        Assert.That(ByteText.Decode(bytes), Is.EqualTo(text));
        Assert.That(ByteText.Encode(text), Is.EqualTo(bytes));
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

    [TestCase("\uD800x\uDCFF", new byte[] { 0xEF, 0xBF, 0xBD, 0x78, 0xFF })]
    [TestCase("\uDC7F", new byte[] { 0xEF, 0xBF, 0xBD })]
    public void Encode_OtherSurrogates_AreReplaced(string text, byte[] bytes) => Assert.That(ByteText.Encode(text), Is.EqualTo(bytes));

    [Test]
    public void Split_ListOfTheKernels_IsItsTexts() =>
        Assert.That(ProcessText.Split("vmm\0\0a b\0\xFF"u8[..9]), Is.EqualTo(new[] { "vmm", "", "a b" }));
}
