using NUnit.Framework;
using Vmm.Tests.Integration;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Tests.Examples;

public class ReadmeTests
{
    [TestCase("ReadSector.cs", "    public static byte[] Read")]
    [TestCase("KernelVsock.cs", "    public static VhostVsock Start")]
    [TestCase("LogToErrors.cs", "    public static void SetUp")]
    public void Readme_Example_IsTheSourceThatIsCompiled(string file, string beginning)
    {
        string source = File.ReadAllText(RepositoryRoot.Combine("Vmm.Tests/Examples", file));
        string body = source[source.IndexOf(beginning, StringComparison.Ordinal)..^"}\n".Length].Replace("\n    ", "\n", StringComparison.Ordinal).Trim();
        Assert.That(Readme, Does.Contain(body));
    }

    [Test]
    public void Readme_Table_HasEveryNamespace()
    {
        string?[] namespaces = [.. typeof(IVhostBackend).Assembly.GetExportedTypes().Select(type => type.Namespace).Distinct()];
        string[] rows = [.. Readme.Split('\n').Where(line => line.StartsWith("| `Vmm.Vhost", StringComparison.Ordinal)).Select(line => line.Split('`')[1])];
        Assert.That(rows, Is.EquivalentTo(namespaces));
    }

    // The CID of a host, which no guest has: where there is a vhost-vsock, the kernel refuses it.
    [Test]
    public void KernelExample_CannotBeHad_SaysWhyInOneLine()
    {
        using GuestMemory memory = GuestMemory.Create([(new(0), 1 << 20)]);
        using var receive = new SplitVirtqueueDriver(memory, new(0x1000), 16);
        using var send = new SplitVirtqueueDriver(memory, new(0x2000), 16, index: 1);
        VhostException error = Assert.Throws<VhostException>(() => KernelVsock.Start(2, memory, receive, send))!;
        Assert.That(error.Message, Is.Not.Empty.And.Not.Contain("\n"));
    }

    private static string Readme => File.ReadAllText(RepositoryRoot.Combine("Vmm.Vhost/README.md"));
}
