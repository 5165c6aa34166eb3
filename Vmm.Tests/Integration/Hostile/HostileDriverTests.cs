using NUnit.Framework;

namespace Vmm.Tests.Integration.Hostile;

/// <summary>What a hostile driver can do to a virtio device, by its registers and by its rings.</summary>
public class HostileDriverTests : HostileGuestTest
{
    [TestCase("registers", 1)]
    [TestCase("race", 2)]
    [TestCase("status", 3)]
    [TestCase("queues", 1)]
    [TestCase("rewrite", 2)]
    [TestCase("notify", 3)]     // more than a million in all
    [TestCase("config", 2)]
    public void Registers_Attacked_HarmNobodyElse(string attack, int rounds) => Attack("badregisters", attack, rounds, AllDevices());

    [Test]
    public void Queues_AcrossTheHoleBelow4GiB_AreRefused() => Attack("badregisters", "hole", 1, [.. AllDevices(), "--memory", "4G"]);

    [TestCase("patterns", 1)]
    [TestCase("overlaps", 1)]
    [TestCase("random", 1)]
    [TestCase("packed", 1)]
    [TestCase("race", 1)]
    [TestCase("sockets", 2)]
    public void Rings_Attacked_HarmNobodyElse(string attack, int rounds) => Attack("badrings", attack, rounds, OwnDevices());
}
