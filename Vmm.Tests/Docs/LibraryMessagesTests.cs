using System.Text.RegularExpressions;
using NUnit.Framework;
using Vmm.Tests.Integration;

namespace Vmm.Tests.Docs;

/// <summary>Any program may use Vmm.Vhost: what it says gives no advice that only the users of <c>vmm</c> can follow.</summary>
public partial class LibraryMessagesTests
{
    [Test]
    public void Messages_OfTheLibrary_NameNoOptionOrDocumentOfTheVmm()
    {
        string root = RepositoryRoot.Combine("Vmm.Vhost");
        string[] sources = [.. Directory.GetFiles(root, "*.cs", SearchOption.AllDirectories)
            .Where(path => Path.GetRelativePath(root, path).Split('/')[0] is not ("obj" or "bin"))];
        Assert.That(sources, Has.Length.GreaterThan(100));
        string[] found = [.. sources.SelectMany(path => File.ReadLines(path)
            .Where(line => !line.TrimStart().StartsWith("//", StringComparison.Ordinal))
            .SelectMany(line => Literal().Matches(line).Select(match => match.Value))
            .Where(literal => OfTheVmm().IsMatch(literal))
            .Select(literal => $"{Path.GetRelativePath(root, path)}: {literal}"))];
        Assert.That(found, Is.Empty);
    }

    [GeneratedRegex("\"[^\"]*\"")]
    private static partial Regex Literal();

    [GeneratedRegex(@"(^|[ ""])--[a-z]|\bdocs/|\b(hugepages|prefault)=|\bVMM\b")]
    private static partial Regex OfTheVmm();
}
