using System.Runtime.InteropServices;
using Vmm.Machine;

namespace Vmm.Cli;

/// <summary>Lets SIGINT, SIGTERM and SIGHUP end the machine in good order instead of killing the process. Installed before the machine
/// is made and removed after it is gone: at no moment can a signal leave a socket or a raw terminal behind.</summary>
internal sealed class StopSignals : IDisposable
{
    private static readonly (PosixSignal Signal, int Number)[] s_signals =
        [(PosixSignal.SIGHUP, 1), (PosixSignal.SIGINT, 2), (PosixSignal.SIGTERM, 15)];

    private readonly Lock _lock = new();
    private readonly PosixSignalRegistration[] _registrations = new PosixSignalRegistration[s_signals.Length];
    private VirtualMachine? _machine;
    private int _early;   // the first signal before there was a machine

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

    /// <summary>From now on the signals stop <paramref name="machine"/>; so does one that has come already.</summary>
    public void Attach(VirtualMachine machine)
    {
        lock (_lock)
        {
            _machine = machine;
            if (_early != 0)
                Stop(machine, _early);
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
            if (_machine is not null)
                Stop(_machine, number);
            else if (_early == 0)
                _early = number;
        }
    }

    private static void Stop(VirtualMachine machine, int number) => machine.Stop(new MachineEnd(MachineEndKind.Signal, number));
}
