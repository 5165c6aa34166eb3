using System.Runtime.InteropServices;

namespace Vmm.Cli;

/// <summary>Lets SIGINT, SIGTERM and SIGHUP end a command in good order instead of killing the process. Installed before what the command
/// runs is made, and removed after it is gone: at no moment can a signal leave a socket or a raw terminal behind. Meanwhile SIGXFSZ does not
/// kill the process either: what writes beyond RLIMIT_FSIZE gets the error EFBIG and says so.</summary>
internal sealed class StopSignals : IDisposable
{
    private static readonly (PosixSignal Signal, int Number)[] s_signals =
        [(PosixSignal.SIGHUP, 1), (PosixSignal.SIGINT, 2), (PosixSignal.SIGTERM, 15)];

    private const PosixSignal FileSizeExceeded = (PosixSignal)25;   // SIGXFSZ, signal(7); the runtime takes the system's number

    private readonly Lock _lock = new();
    private readonly PosixSignalRegistration[] _registrations = new PosixSignalRegistration[s_signals.Length];
    private readonly PosixSignalRegistration _fileSize;
    private readonly CancellationTokenSource _cancellation = new();
    private Action<int>? _stop;
    private bool _disposed;

    /// <summary>From now on the signals do not kill the process.</summary>
    public StopSignals()
    {
        _fileSize = PosixSignalRegistration.Create(FileSizeExceeded, static context => context.Cancel = true);
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

    /// <summary>The number of the first signal that came; 0 if none has.</summary>
    public int First { get; private set; }

    /// <summary>Cancelled by the first signal.</summary>
    public CancellationToken Token => _cancellation.Token;

    /// <summary>From now on the signals call <paramref name="stop"/> with their number; so does one that has come already.</summary>
    public void Attach(Action<int> stop)
    {
        lock (_lock)
        {
            _stop = stop;
            if (First != 0)
                stop(First);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (PosixSignalRegistration registration in _registrations)
            registration.Dispose();
        _fileSize.Dispose();
        lock (_lock)
        {
            // A signal may be under way to Receive all the same.
            _disposed = true;
            _cancellation.Dispose();
        }
    }

    private void Receive(int number)
    {
        lock (_lock)
        {
            if (_disposed)
                return;
            if (First == 0)
            {
                First = number;
                _cancellation.Cancel();
            }
            _stop?.Invoke(number);
        }
    }
}
