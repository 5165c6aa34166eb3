using Vmm.Devices.Bus;

namespace Vmm.Tests.Fakes;

/// <summary>Counts edges, and lets a test wait for one; edges that nobody waited for merge, as in an interrupt controller.</summary>
internal sealed class FakeInterruptLine : IInterruptLine
{
    private readonly object _lock = new();
    private bool _pending;

    public int Edges { get; private set; }

    public void Trigger()
    {
        lock (_lock)
        {
            Edges++;
            _pending = true;
            Monitor.Pulse(_lock);
        }
    }

    /// <summary>Takes what is pending, or waits for it.</summary>
    public bool WaitForEdge(TimeSpan timeout)
    {
        lock (_lock)
        {
            if (!_pending && timeout > TimeSpan.Zero)
                Monitor.Wait(_lock, timeout);
            bool pending = _pending;
            _pending = false;
            return pending;
        }
    }
}
