using NUnit.Framework;
using Vmm.Guest;

namespace Vmm.Tests.Guest;

public sealed class AgentTerminalTests
{
    // A signal or the time limit, where the back-end does not tell of its terminal.
    [Test]
    public void Open_IsCancelled_EndsAtOnce()
    {
        using var cancellation = new CancellationTokenSource();
        Task opening = Task.Run(() => new AgentTerminal().Open(cancellation.Token));
        Thread.Sleep(100);
        cancellation.Cancel();
        Assert.That(() => opening.Wait(TimeSpan.FromSeconds(10)), Throws.TypeOf<AggregateException>().With.InnerException.InstanceOf<OperationCanceledException>());
    }
}
