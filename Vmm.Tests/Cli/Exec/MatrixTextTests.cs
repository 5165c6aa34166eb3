using System.Text;
using NUnit.Framework;
using Vmm.Cli.Exec;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Cli.Exec;

public sealed class MatrixTextTests
{
    [Test]
    public void End_Reader_HasAllInItsOrder()
    {
        using var written = new StringWriter();
        var text = new MatrixText(written);
        for (int i = 0; i < 100; i++)
            text.Write($"{i}\n");
        text.End(CancellationToken.None);

        Assert.That(written.ToString(), Is.EqualTo(string.Concat(Enumerable.Range(0, 100).Select(i => $"{i}\n"))));
        Assert.That(text.Failure, Is.Null);
    }

    [Test]
    public void Write_NobodyTakesIt_IsToldAtTheEnd()
    {
        using var output = new BrokenWriter();
        var text = new MatrixText(output);
        text.Write("one");
        text.Write("two");
        text.End(CancellationToken.None);

        Assert.That((text.Failure?.Errno, output.Attempts), Is.EqualTo((Errnos.Epipe, 1)));
    }

    [Test]
    public void Write_ReaderThatStops_WaitsForNobody()
    {
        using var output = new StuckWriter();
        using var cancellation = new CancellationTokenSource(300);
        var text = new MatrixText(output);
        Task write = Task.Run(() =>
        {
            text.Write("one");
            text.Write("two");
            text.End(cancellation.Token);
        });
        bool hasReturned = write.Wait(10_000);
        output.Reads.Set();

        Assert.That(hasReturned, Is.True, "it waits for the reader");
        text.End(CancellationToken.None);
    }

    private sealed class BrokenWriter : TextWriter
    {
        public int Attempts { get; private set; }

        public override Encoding Encoding => Encoding.UTF8;

        public override void Write(string? value)
        {
            Attempts++;
            throw new ErrnoException("cannot write to standard output", Errnos.Epipe);
        }
    }

    private sealed class StuckWriter : TextWriter
    {
        public ManualResetEventSlim Reads { get; } = new();

        public override Encoding Encoding => Encoding.UTF8;

        public override void Write(string? value) => Reads.Wait();

        protected override void Dispose(bool disposing)
        {
            Reads.Dispose();
            base.Dispose(disposing);
        }
    }
}
