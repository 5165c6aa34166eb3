namespace Vmm.Machine;

/// <summary>Where every thread that can end a run says so, and the main thread waits for it. The guest's first word counts;
/// the host's (a signal, Ctrl-A x) outranks it and is never forgotten, so that a guest which keeps resetting can be stopped.</summary>
internal sealed class MachineEndLatch
{
    private readonly object _lock = new();
    private MachineEnd? _guest;
    private MachineEnd? _host;

    /// <summary>How the host's user has ended the run; null while nobody has.</summary>
    public MachineEnd? ByHost
    {
        get
        {
            lock (_lock)
                return _host;
        }
    }

    /// <summary>The guest, or KVM, ends the run.</summary>
    public void SetByGuest(MachineEnd end)
    {
        lock (_lock)
        {
            _guest ??= end;
            Monitor.PulseAll(_lock);
        }
    }

    /// <summary>The host's user ends the run.</summary>
    public void SetByHost(MachineEnd end)
    {
        lock (_lock)
        {
            _host ??= end;
            Monitor.PulseAll(_lock);
        }
    }

    /// <summary>Waits for an end.</summary>
    /// <returns>The end, or null when none came in time.</returns>
    public MachineEnd? Wait(TimeSpan timeout)
    {
        lock (_lock)
        {
            if ((_host ?? _guest) is null)
                Monitor.Wait(_lock, timeout);
            return _host ?? _guest;
        }
    }

    /// <summary>Forgets what the guest said, for its next start; what the host said stays.</summary>
    public void ForgetGuest()
    {
        lock (_lock)
            _guest = null;
    }
}
