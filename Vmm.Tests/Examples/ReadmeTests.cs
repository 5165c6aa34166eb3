using NUnit.Framework;
using Vmm.Tests.Integration;

namespace Vmm.Tests.Examples;

public class ReadmeTests
{
    [Test]
    public void Readme_Example_IsTheSourceThatIsCompiled()
    {
        string source = File.ReadAllText(RepositoryRoot.Combine("Vmm.Tests/Examples/ReadSector.cs"));
        string body = source[source.IndexOf("    public static byte[] Read", StringComparison.Ordinal)..^"}\n".Length].Replace("\n    ", "\n", StringComparison.Ordinal).Trim();
        Assert.That(File.ReadAllText(RepositoryRoot.Combine("Vmm.Vhost/README.md")), Does.Contain(body));
    }
}
