using System.IO.Compression;
using System.Reflection.Metadata;
using System.Xml.Linq;
using NUnit.Framework;
using Vmm.Tests.Integration;

namespace Vmm.Tests.Docs;

/// <summary>What <c>dotnet pack</c> has made of the solution, in artifacts/package; test.sh makes it.</summary>
public sealed class PackageTests
{
    private string _directory = null!;

    [SetUp]
    public void SetUp()
    {
        string artifacts = Environment.GetEnvironmentVariable("VMM_ARTIFACTS") ?? RepositoryRoot.Combine("artifacts");
        _directory = Path.Combine(artifacts, "package");
        if (!Directory.Exists(_directory))
            Assert.Ignore($"there is no package: dotnet pack Vmm.sln -c Release -o {_directory}");
    }

    [Test]
    public void Packages_AreThatOfTheLibraryAndItsSymbols() =>
        Assert.That(
            Directory.GetFiles(_directory).Select(NameOf),
            Is.EquivalentTo(new[] { "Vmm.Vhost .nupkg", "Vmm.Vhost .snupkg" }));

    [Test]
    public void Package_OfTheLibrary_HasWhatItsUserNeeds()
    {
        using ZipArchive package = Open(".nupkg");
        Assert.That(
            package.Entries.Select(entry => entry.FullName),
            Is.SupersetOf(new[] { "README.md", "lib/net10.0/Vmm.Vhost.dll", "lib/net10.0/Vmm.Vhost.xml", "Vmm.Vhost.nuspec" }));
        using Stream stream = package.GetEntry("Vmm.Vhost.nuspec")!.Open();
        XElement metadata = XDocument.Load(stream).Root!.Elements().Single(element => element.Name.LocalName == "metadata");
        Assert.That(ValueOf(metadata, "id"), Is.EqualTo("Vmm.Vhost"));
        Assert.That(ValueOf(metadata, "license"), Is.EqualTo("MIT"));
        Assert.That(ValueOf(metadata, "readme"), Is.EqualTo("README.md"));
        Assert.That(
            metadata.Descendants().Where(element => element.Name.LocalName == "dependency").Select(element => element.Attribute("id")!.Value),
            Is.EquivalentTo(new[] { "NLog", "Tmds.LibC" }));
    }

    [Test]
    public void Symbols_OfTheLibrary_NameNoDirectoryOfThisMachine()
    {
        using ZipArchive package = Open(".snupkg");
        using Stream entry = package.GetEntry("lib/net10.0/Vmm.Vhost.pdb")!.Open();
        using var symbols = new MemoryStream();
        entry.CopyTo(symbols);
        symbols.Position = 0;
        using var provider = MetadataReaderProvider.FromPortablePdbStream(symbols);
        MetadataReader reader = provider.GetMetadataReader();
        string[] documents = [.. reader.Documents.Select(handle => reader.GetString(reader.GetDocument(handle).Name))];
        Assert.That(documents, Has.Length.GreaterThan(100));
        Assert.That(documents, Has.All.StartsWith("/_/"));
    }

    private ZipArchive Open(string extension) => ZipFile.OpenRead(Directory.GetFiles(_directory, "*" + extension).Single());

    // Without the version.
    private static string NameOf(string path) => $"{string.Join('.', Path.GetFileName(path).Split('.').TakeWhile(part => !char.IsDigit(part[0])))} {Path.GetExtension(path)}";

    private static string? ValueOf(XElement metadata, string name) => metadata.Elements().FirstOrDefault(element => element.Name.LocalName == name)?.Value;
}
