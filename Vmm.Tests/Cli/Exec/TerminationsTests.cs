using NUnit.Framework;
using Vmm.Cli.Exec;

namespace Vmm.Tests.Cli.Exec;

public sealed class TerminationsTests
{
    private const int Interrupt = 2, Terminate = 15;

    // timeout(1) sends one to its child, and then one to the process group with that child in it.
    [TestCase(false, 0)]
    [TestCase(false, 499)]
    [TestCase(true, 500)]
    [TestCase(true, 100_000)]
    public void IsSecond_SigtermAfterAnother_IsOneOnlyAfterAMoment(bool expected, int later)
    {
        var terminations = new Terminations();

        Assert.That(terminations.IsSecond(Terminate, 1000), Is.False);
        Assert.That(terminations.IsSecond(Terminate, 1000 + later), Is.EqualTo(expected));
        Assert.That(terminations.IsSecond(Terminate, 1_000_000), Is.True);
    }

    [Test]
    public void IsSecond_OtherSignals_AreNone()
    {
        var terminations = new Terminations();

        Assert.That(terminations.IsSecond(Interrupt, 1000), Is.False);
        Assert.That(terminations.IsSecond(Terminate, 5000), Is.False);
        Assert.That(terminations.IsSecond(Interrupt, 10_000), Is.False);
    }
}
