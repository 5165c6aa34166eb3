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
}
