using NUnit.Framework;
using Vmm.Cli.Exec;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

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

    // Others write, too, and a signal may have come.
    [TestCase(null)]
    [TestCase("status 0")]
    public void Happened_OutputThatComesFasterThanItIsRead_IsReadInParts(string? end)
    {
        using var run = new MatrixRun(new MatrixVariant("x", new Dictionary<string, DefaultsSetting>()), new Chatterer(end));
        Task happened = Task.Run(run.Happened);

        Assert.That(happened.Wait(10_000), Is.True, "it reads on and on");
        Assert.That(run.Status, Is.EqualTo(end is null ? (int?)null : 0));
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

    private sealed class Chatterer(string? end) : IStartedProcess
    {
        public int Id => 1;

        public FileDescriptor Output { get; } = FileDescriptor.Open("/dev/zero", OpenMode.ReadOnly);

        public FileDescriptor Ended => Output;

        public string? End => end;

        public bool WaitForEnd(int milliseconds) => true;

        public bool Kill(int milliseconds) => true;

        public void Dispose() => Output.Dispose();
    }
}
