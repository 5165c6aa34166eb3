using Vmm.Sandbox;
using Vmm.Vhost.Native;

namespace Vmm.Cli;

/// <summary>What this process has before it opens anything for a machine: its sandbox, and signals that end it in good order. From then on it may
/// start threads.</summary>
internal sealed class MachineProcess : IDisposable
{
    /// <summary>Begins the sandbox, and handles signals from now on.</summary>
    /// <param name="jail">What becomes of the process; null if it is not to be confined.</param>
    /// <param name="hasDevices">Whether the machine has virtio devices.</param>
    /// <exception cref="VmmException">The kernel refused; the message says what to do.</exception>
    /// <exception cref="Vhost.VhostException">There is a thread already that cannot be reached.</exception>
    /// <exception cref="ErrnoException">The host allows no thread that hears of signals.</exception>
    public MachineProcess(JailOptions? jail, bool hasDevices)
    {
        Sandbox = jail is null ? null : MachineSandbox.Begin(jail);
        try
        {
            Signals = HandleSignals(hasDevices);
        }
        catch
        {
            Sandbox?.Dispose();
            throw;
        }
    }

    /// <summary>The sandbox; null if the process is not confined.</summary>
    public MachineSandbox? Sandbox { get; }

    /// <summary>The signals.</summary>
    public StopSignals Signals { get; }

    /// <summary>Leaves the signals to the system again, and ends what the sandbox has started, after the machine.</summary>
    public void Dispose()
    {
        Signals.Dispose();
        Sandbox?.Dispose();
    }

    // The runtime starts a thread for signals with the first handler, and one for timers with the first timer, which devices have while they are opened.
    private StopSignals HandleSignals(bool hasDevices)
    {
        if (Sandbox is null)
            return new StopSignals();
        StopSignals? signals = null;
        Sandbox.DoConfined(() => signals = new StopSignals());
        if (hasDevices)
            Sandbox.DoConfined(StartTimers);
        return signals!;
    }

    private static void StartTimers()
    {
        try
        {
            using var first = new Timer(static _ => { }, null, TimeSpan.FromDays(1), Timeout.InfiniteTimeSpan);
        }
        catch (OutOfMemoryException)
        {
            throw NativeThread.Refused("timers");   // all that the runtime says of a thread that it may not have
        }
    }
}
