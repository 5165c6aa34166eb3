using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration;

namespace Vmm.Tests.User.Backend;

/// <summary>The device of docs/backend-example.md.</summary>
public sealed class ExampleTests
{
    [Test]
    public void Device_OfTheDocument_IsTheOneThatIsTested()
    {
        string document = File.ReadAllText(RepositoryRoot.Combine("docs", "backend-example.md"));
        string code = File.ReadAllText(RepositoryRoot.Combine("Vmm.Tests", "User", "Backend", "ExampleDevice.cs"));
        Assert.That(document, Does.Contain($"```csharp\n{code}```"));
        Assert.That(code.Split('\n').Count(line => line.Trim().Length > 0), Is.LessThanOrEqualTo(50), "lines");
    }

    [Test]
    public void Device_Request_GetsRandomBytes()
    {
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(new Example.RandomDevice());
        using FrontEndRing ring = frontEnd.Start();
        ring.Add([], 64);
        byte[] first = ring.Take().Bytes;
        ring.Add([], 64);
        Assert.That(first, Has.Length.EqualTo(64));
        Assert.That(ring.Take().Bytes, Is.Not.EqualTo(first));
    }
}
