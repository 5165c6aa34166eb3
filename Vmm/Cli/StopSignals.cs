using System.Runtime.InteropServices;
using Vmm.Vhost.Native;

namespace Vmm.Cli;

/// <summary>Lets the signals that end a process (SIGINT, SIGTERM, SIGHUP, SIGQUIT and the like) end a command in good order instead of killing
/// the process. <c>vmm run</c> installs it before what it runs is made, and removes it after that is gone: at no moment can a signal leave a socket or a
/// raw terminal behind. <c>vmm backend</c> installs it once it has given up its privileges.</summary>
/// <remarks>Two signals do nothing meanwhile. SIGXFSZ: what writes beyond RLIMIT_FSIZE gets the error EFBIG and says so. SIGUSR1: <c>vmm exec</c> passes it to its command, and before
/// there is one it must not end the process.</remarks>
internal sealed class StopSignals : IDisposable
{
    // Their numbers on Linux (signal(7)), which the runtime takes, too: HUP, INT, QUIT, ABRT, USR2, ALRM, TERM, STKFLT, XCPU, VTALRM, PROF, IO.
    private static readonly int[] s_ending = [1, 2, 3, 6, 12, 14, 15, 16, 24, 26, 27, 29];
    private static readonly int[] s_without = [SignalNumber.User1, SignalNumber.FileSize];

    // Those of the signals that do nothing stay when an object is gone. The runtime hears of a signal on a thread of its own, perhaps late, and
    // what nobody handles then ends the process.
    private static readonly List<PosixSignalRegistration> s_lasting = [];

    private readonly Lock _lock = new();
    private readonly List<PosixSignalRegistration> _registrations = [];
    private readonly CancellationTokenSource _cancellation = new();
    private Action<int>? _stop;
    private bool _disposed;

    /// <summary>From now on the signals do not kill the process.</summary>
    public StopSignals()
    {
        lock (s_lasting)
        {
            for (int i = s_lasting.Count; i < s_without.Length; i++)
                s_lasting.Add(Register(s_without[i], static () => { }));
        }
        foreach (int number in s_ending)
            Handle(number, () => Receive(number));   // the process ends by itself once the machine has
    }

    /// <summary>From now on <paramref name="number"/> calls <paramref name="handler"/>, on a thread of the runtime's, and does nothing else.</summary>
    /// <exception cref="ErrnoException">The host allows no thread that hears of signals.</exception>
    public void Handle(int number, Action handler) => _registrations.Add(Register(number, handler));

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
        lock (_lock)
        {
            // A signal may be under way to Receive all the same.
            _disposed = true;
            _cancellation.Dispose();
        }
    }

    private static PosixSignalRegistration Register(int number, Action handler)
    {
        try
        {
            return PosixSignalRegistration.Create((PosixSignal)number, context =>
            {
                context.Cancel = true;
                handler();
            });
        }
        catch (TypeInitializationException e) when (e.InnerException is IOException)
        {
            throw NativeThread.Refused("signals");   // the runtime starts it with the first registration
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
