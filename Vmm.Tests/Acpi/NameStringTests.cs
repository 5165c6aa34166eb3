using System.Text;
using NUnit.Framework;
using Vmm.Acpi;

namespace Vmm.Tests.Acpi;

public class NameStringTests
{
    [TestCase("C000", "C000")]
    [TestCase("RTC", "RTC_")]
    [TestCase("_", "____")]
    [TestCase(@"\", "\\\0")]
    [TestCase(@"\_SB", @"\_SB_")]
    [TestCase("^", "^\0")]
    [TestCase("^^PCI0", "^^PCI0")]
    [TestCase("A.B", ".A___B___")]
    [TestCase(@"\_SB.COM1", @"\._SB_COM1")]
    [TestCase("A.B.C", "/\x03" + "A___B___C___", TestName = "{m}(three names)")]
    [TestCase("^A.B.C.D1", "^/\x04" + "A___B___C___D1__", TestName = "{m}(four names below the parent)")]
    public void Write_Path_IsItsNameString(string path, string expected)
    {
        var table = new TableBuffer();
        NameString.Write(table, path);
        Assert.That(Encoding.ASCII.GetString(table.Written), Is.EqualTo(expected));
    }

    [TestCase("")]
    [TestCase("1ABC")]
    [TestCase("ABCDE")]
    [TestCase("abc")]
    [TestCase("A..B")]
    [TestCase("A.")]
    [TestCase(".A")]
    [TestCase(@"\\A")]
    [TestCase(@"^\A")]
    [TestCase("A^")]
    [TestCase("Ä")]
    public void Write_NoPath_Throws(string path) =>
        Assert.Throws<ArgumentException>(() => NameString.Write(new TableBuffer(), path));

    [Test]
    public void Write_256Segments_Throws()
    {
        NameString.Write(new TableBuffer(), string.Join('.', Enumerable.Repeat("A", 255)));
        Assert.Throws<ArgumentException>(
            () => NameString.Write(new TableBuffer(), string.Join('.', Enumerable.Repeat("A", 256))));
    }
}
