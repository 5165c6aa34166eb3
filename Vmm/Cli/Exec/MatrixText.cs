using System.Collections.Concurrent;
using Vmm.Vhost.Native;

namespace Vmm.Cli.Exec;

/// <summary>What <c>--matrix</c> says on standard output while its guests run. A thread of its own writes it: neither a reader that stops nor one that goes stops the guests.</summary>
internal sealed class MatrixText
{
    private readonly BlockingCollection<string> _texts = [];
    private readonly TaskCompletionSource _written = new();

    /// <summary>Writes to <paramref name="output"/>.</summary>
    /// <exception cref="ErrnoException">The host allows no thread more.</exception>
    public MatrixText(TextWriter output) => NativeThread.Start(new Thread(() => WriteAll(output)) { IsBackground = true, Name = "matrix text" });

    /// <summary>Why a part of it was not written; null if all was.</summary>
    public ErrnoException? Failure { get; private set; }

    /// <summary>Says <paramref name="text"/>, and does not wait.</summary>
    public void Write(string text) => _texts.Add(text);

    /// <summary>Nothing more is said: waits until all is written.</summary>
    /// <param name="cancellation">Ends the wait. Then the rest stays unwritten.</param>
    public void End(CancellationToken cancellation)
    {
        _texts.CompleteAdding();
        try
        {
            _written.Task.Wait(cancellation);
        }
        catch (OperationCanceledException)
        {
            // The reader has not taken it, and this process is to end.
        }
    }

    private void WriteAll(TextWriter output)
    {
        foreach (string text in _texts.GetConsumingEnumerable())
        {
            if (Failure is not null)
                continue;   // nobody takes it
            try
            {
                output.Write(text);
            }
            catch (ErrnoException e)
            {
                Failure = e;
            }
        }
        _written.SetResult();
    }
}
