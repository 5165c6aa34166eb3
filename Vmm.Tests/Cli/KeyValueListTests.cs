using NUnit.Framework;
using Vmm.Cli;

namespace Vmm.Tests.Cli;

public class KeyValueListTests
{
    [TestCase("a=1", "1", null)]
    [TestCase("b=2,a=1", "1", "2")]
    [TestCase("a=x=y", "x=y", null)]
    [TestCase("a=\"x,b=y\",b=z", "x,b=y", "z")]
    [TestCase("a=x\",\"y", "x,y", null)]
    [TestCase("a=\"\"", "", null)]
    [TestCase("a= ", " ", null)]
    public void Parse_Valid_FindsTheValues(string text, string? a, string? b)
    {
        KeyValueList list = KeyValueList.Parse("--o", text, "a", "b");
        Assert.That(list.Find("a")?.Text, Is.EqualTo(a));
        Assert.That(list.Find("b")?.Text, Is.EqualTo(b));
    }

    [TestCase("", "--o: '' is not of the form key=value: allowed are a, b")]
    [TestCase(",", "--o: '' is not of the form key=value: allowed are a, b")]
    [TestCase("a=1,,b=2", "--o: '' is not of the form key=value: allowed are a, b")]
    [TestCase("=1", "--o: '=1' is not of the form key=value: allowed are a, b")]
    [TestCase("a", "--o: key 'a' has no value: write a=VALUE")]
    [TestCase("a=", "--o: key 'a' has no value: write a=VALUE")]
    [TestCase("c=1", "--o: unknown key 'c': allowed are a, b")]
    [TestCase("A=1", "--o: unknown key 'A': allowed are a, b")]
    [TestCase(" a=1", "--o: unknown key ' a': allowed are a, b")]
    [TestCase("\"a\"=1", "--o: unknown key '\"a\"': allowed are a, b")]
    [TestCase("a=1,a=1", "--o: key 'a' is given more than once")]
    [TestCase("a=\"1,b=2", "--o: 'a=\"1,b=2' has a quote (\") that is not closed")]
    public void Parse_Invalid_SaysWhatAndWhatIsAllowed(string text, string message) =>
        Assert.That(() => KeyValueList.Parse("--o", text, "a", "b"), Throws.TypeOf<UsageException>().With.Message.EqualTo(message));
}
