using NUnit.Framework;
using Vmm.Cli.Exec;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Cli.Exec;

public sealed class MatrixRunTests
{
    [Test]
    public void Happened_ItWritesJustBeforeItIsSeenToHaveEnded_NothingIsLost()
    {
        using var run = new MatrixRun(new MatrixVariant("x", new Dictionary<string, DefaultsSetting>()), new LastWords("last words\n"));
        run.Happened();

        Assert.That((run.Status, run.Output), Is.EqualTo((3, "last words\n")));
    }

    [TestCase("status 0", 0)]
    [TestCase("signal 9", 137)]
    [TestCase("a status that this process is not told of, as SIGCHLD was ignored when it was started", 125)]
    public void Happened_ItHasEnded_OnlyItsStatusIsSuccess(string end, int status)
    {
        using var run = new MatrixRun(new MatrixVariant("x", new Dictionary<string, DefaultsSetting>()), new LastWords("") { HowItEnds = end });
        run.Happened();

        Assert.That(run.Status, Is.EqualTo(status));
    }
}
