using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>Ends this process by a signal.</summary>
public static unsafe class FatalSignal
{
    /// <summary>Has the process die of <paramref name="signal"/> as if nothing had handled it, so that whoever waits for it sees the signal and
    /// no exit status (WIFSIGNALED, wait(2)). It returns only if the signal does not end a process.</summary>
    public static void Raise(int signal)
    {
        sigset_t set;
        _ = LibC.sigemptyset(&set);
        _ = LibC.sigaddset(&set, signal);
        var action = default(sigaction);   // SIG_DFL
        // SAFETY: the structures are on the stack. No code of this process runs in the default action.
        _ = LibC.sigaction(signal, &action, null);
        _ = LibC.pthread_sigmask(LibC.SIG_UNBLOCK, &set, null);
        // tgkill(2), which a confined back-end may call for itself; kill(2) it may not call at all.
        NativeThread.Send(NativeThread.CurrentId, signal);
    }
}
