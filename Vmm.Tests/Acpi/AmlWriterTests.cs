using NUnit.Framework;
using Vmm.Acpi;

namespace Vmm.Tests.Acpi;

public class AmlWriterTests
{
    [TestCase(0UL, "00")]
    [TestCase(1UL, "01")]
    [TestCase(2UL, "0A02")]
    [TestCase(0xFFUL, "0AFF")]
    [TestCase(0x100UL, "0B0001")]
    [TestCase(0xFFFFUL, "0BFFFF")]
    [TestCase(0x1_0000UL, "0C00000100")]
    [TestCase(0xFFFF_FFFFUL, "0CFFFFFFFF")]
    [TestCase(0x1_0000_0000UL, "0E0000000001000000")]
    [TestCase(0xFFFF_FFFF_FFFF_FFFEUL, "0EFEFFFFFFFFFFFFFF")]
    [TestCase(ulong.MaxValue, "FF")]
    public void Integer_Value_HasItsShortestForm(ulong value, string expected) =>
        Assert.That(Write(aml => aml.Integer(value)), Is.EqualTo(expected));

    [TestCase("PNP0501", "0C41D00501")]
    [TestCase("PNP0B00", "0C41D00B00")]
    [TestCase("ZZZFFFF", "0C6B5AFFFF")]
    public void EisaId_Id_IsCompressedBigEndian(string id, string expected) =>
        Assert.That(Write(aml => aml.EisaId(id)), Is.EqualTo(expected));

    [TestCase("PNP050")]
    [TestCase("PNP05010")]
    [TestCase("PnP0501")]
    [TestCase("PNP050G")]
    [TestCase("PNP 501")]
    [TestCase("PNP+501")]
    public void EisaId_NoId_Throws(string id) => Assert.Throws<ArgumentException>(() => Write(aml => aml.EisaId(id)));

    [Test]
    public void String_Text_IsTerminated() =>
        Assert.That(Write(aml => aml.String("LNRO0005")), Is.EqualTo("0D4C4E524F3030303500"));

    [TestCase("\0")]
    [TestCase("é")]
    public void String_NotAscii_Throws(string text) => Assert.Throws<ArgumentException>(() => Write(aml => aml.String(text)));

    [Test]
    public void Name_OfAPackage_IsNested() =>
        Assert.That(
            Write(aml =>
            {
                using (aml.Name(@"\_S5").Package(2))
                {
                    aml.Integer(5);
                    aml.Integer(0);
                }
            }),
            Is.EqualTo("085C5F53355F" + "1205" + "02" + "0A05" + "00"));

    [Test]
    public void Method_Notify_IsSerialized() =>
        Assert.That(
            Write(aml =>
            {
                using (aml.Method("_EVT", arguments: 1))
                    aml.Notify(@"\_SB.PWRB", 0x80);
            }),
            Is.EqualTo("14" + "13" + "5F455654" + "09" + "86" + "5C2E" + "5F53425F" + "50575242" + "0A80"));

    [Test]
    public void Scope_WithADevice_CountsBothLengths() =>
        Assert.That(
            Write(aml =>
            {
                using (aml.Scope(@"\_SB"))
                {
                    using (aml.Device("RTC"))
                        aml.Name("_UID").Integer(1);
                }
            }),
            Is.EqualTo("1013" + "5C5F53425F" + "5B820B" + "5254435F" + "085F554944" + "01"));

    [TestCase(1)]         // the length takes one byte
    [TestCase(12)]        // two
    [TestCase(1000)]      // three
    public void Scope_OfAnyLength_EndsWithTheTable(int names)
    {
        byte[] aml = Convert.FromHexString(Write(writer =>
        {
            using (writer.Scope(@"\"))
            {
                for (int i = 0; i < names; i++)
                    writer.Name("A").Integer(0);
            }
        }));
        int following = aml[1] >> 6;
        int length = following == 0 ? aml[1] : aml[1] & 0xF;
        for (int i = 1; i <= following; i++)
            length |= aml[1 + i] << (8 * i - 4);
        Assert.That(length, Is.EqualTo(aml.Length - 1));
        Assert.That(aml[^6..], Is.EqualTo(new byte[] { 0x08, (byte)'A', (byte)'_', (byte)'_', (byte)'_', 0x00 }));
    }

    [Test]
    public void ResourceTemplate_Empty_IsAnEndTag() =>
        Assert.That(Write(aml => aml.ResourceTemplate().Dispose()), Is.EqualTo("11050A02" + "7987"));

    [Test]
    public void ResourceTemplate_OfAllKinds_IsABufferThatSumsToZero()
    {
        string written = Write(aml =>
        {
            using (aml.ResourceTemplate())
            {
                aml.Io(0x3F8, 8);
                aml.Memory32Fixed(0xD000_1000, 0x1000);
                aml.Interrupt(9);
            }
        });
        Assert.That(
            written,
            Does.StartWith("11220A1F" + "4701F803F8030108" + "86090001" + "001000D0" + "00100000" + "890600" + "03" + "01" + "09000000" + "79"));
        Assert.That(TestMachine.Sum(Convert.FromHexString(written).AsSpan(4)), Is.Zero);
    }

    private static string Write(Action<AmlWriter> write)
    {
        var table = new TableBuffer();
        write(new AmlWriter(table));
        return Convert.ToHexString(table.Written);
    }
}
