using Vmm.Vhost.Native;

namespace Vmm.Machine;

/// <summary>The time that a guest has to power itself off after a signal: the first SIGTERM or SIGINT begins it, and when it is over, or with the
/// next signal, the machine is switched off.</summary>
/// <param name="timeout">The time; zero: none.</param>
/// <param name="stop">Switches the machine off; called from another thread when the time is over.</param>
internal sealed class ShutdownTimer(TimeSpan timeout, Action<MachineEnd> stop) : IDisposable
{
    private readonly Lock _lock = new();
    private Timer? _timer;
    private bool _isDisposed;

    /// <summary>What ends the run when the time is over; null before it begins.</summary>
    public MachineEnd? Begun { get; private set; }

    /// <summary>Begins the time.</summary>
    /// <returns>False if there is none, for this signal or because it has begun before.</returns>
    public bool TryBegin(int signal)
    {
        lock (_lock)
        {
            if (timeout == TimeSpan.Zero || signal is not (SignalNumber.Interrupt or SignalNumber.Terminate) || Begun is not null || _isDisposed)
                return false;
            MachineEnd end = Begun = new MachineEnd(MachineEndKind.Signal, signal);
            _timer = new Timer(_ => stop(end), null, timeout, Timeout.InfiniteTimeSpan);
            return true;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_lock)
        {
            _isDisposed = true;
            _timer?.Dispose();
        }
    }
}
