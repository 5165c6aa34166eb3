using System.Xml;
using NUnit.Framework;
using NUnit.Framework.Api;
using NUnit.Framework.Interfaces;

namespace Vmm.Tests.Runner;

/// <summary>The test runner leaves out each test whose name XML cannot hold, and does not say so. Such names come from arguments with control characters.</summary>
public class TestNamesTests
{
    [Test]
    public void Names_OfAllTests_AreKnownToTheRunner()
    {
        ITest all = new DefaultTestAssemblyBuilder().Build(typeof(TestNamesTests).Assembly, new Dictionary<string, object>());
        string[] names = [.. Names(all)];

        Assert.That(names, Has.Length.GreaterThan(3000));
        string[] unknown = [.. names.Where(name => !IsText(name))];
        Assert.That(unknown, Is.Empty, $"these never run, give each a TestName:\n{string.Join('\n', unknown)}");
    }

    private static IEnumerable<string> Names(ITest test) => test.IsSuite ? test.Tests.SelectMany(Names) : [test.FullName];

    private static bool IsText(string name)
    {
        try
        {
            XmlConvert.VerifyXmlChars(name);
            return true;
        }
        catch (XmlException)
        {
            return false;
        }
    }
}
