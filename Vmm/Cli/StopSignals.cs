using System.Runtime.InteropServices;

namespace Vmm.Cli;

/// <summary>Lets SIGINT, SIGTERM and SIGHUP end a command in good order instead of killing the process. Installed before what the command
/// runs is made, and removed after it is gone: at no moment can a signal leave a socket or a raw terminal behind.</summary>
internal sealed class StopSignals : IDisposable
{
    private static readonly (PosixSignal Signal, int Number)[] s_signals =
        [(PosixSignal.SIGHUP, 1), (PosixSignal.SIGINT, 2), (PosixSignal.SIGTERM, 15)];

    private readonly Lock _lock = new();
    private readonly PosixSignalRegistration[] _registrations = new PosixSignalRegistration[s_signals.Length];
    private Action<int>? _stop;
    private int _early;   // the first signal before there was anything to stop

    /// <summary>From now on the signals do not kill the process.</summary>
    public StopSignals()
    {
        for (int i = 0; i < s_signals.Length; i++)
        {
            int number = s_signals[i].Number;
            _registrations[i] = PosixSignalRegistration.Create(s_signals[i].Signal, context =>
            {
                context.Cancel = true;   // the process ends by itself once the machine has
                Receive(number);
            });
        }
    }

    /// <summary>From now on the signals call <paramref name="stop"/> with their number; so does one that has come already.</summary>
    public void Attach(Action<int> stop)
    {
        lock (_lock)
        {
            _stop = stop;
            if (_early != 0)
                stop(_early);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (PosixSignalRegistration registration in _registrations)
            registration.Dispose();
    }

    private void Receive(int number)
    {
        lock (_lock)
        {
            if (_stop is not null)
                _stop(number);
            else if (_early == 0)
                _early = number;
        }
    }
}
