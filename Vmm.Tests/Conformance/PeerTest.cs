using NUnit.Framework;

namespace Vmm.Tests.Conformance;

/// <summary>What tests against other people's daemons have in common: category <c>Peers</c>, and a directory for each test.</summary>
[Category("Peers")]
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public abstract class PeerTest
{
    protected const string Virtiofsd = "/usr/lib/qemu/virtiofsd";
    internal const string StorageDaemon = "/usr/bin/qemu-storage-daemon";
    protected const string TestPmd = "/usr/bin/dpdk-testpmd";

    protected string Scratch { get; private set; } = "";

    [SetUp]
    public void MakeScratch() => Scratch = Directory.CreateTempSubdirectory("vmm-peer-").FullName;

    [TearDown]
    public void RemoveScratch() => Directory.Delete(Scratch, recursive: true);

    internal static void Require(string program)
    {
        if (!File.Exists(program))
            Assert.Ignore($"{program} is missing; run scripts/setup test");
    }
}
