using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>Stops this process as a shell's job (signal(7), SIGTSTP), until it is continued.</summary>
public static unsafe class ProcessStop
{
    /// <summary>The signal of the terminal's stop character.</summary>
    public static int Number => LibC.SIGTSTP;

    /// <summary>Has every process of this job get the signal, as if the terminal's stop character had been typed.</summary>
    public static void StopJob() => _ = LibC.kill(0, Number);

    /// <summary>Does what the signal does where nothing handles it: the process stops, and this returns when it is continued. A process that no
    /// shell could continue (of an orphaned process group) does not stop.</summary>
    public static void Now()
    {
        sigset_t set, before;
        _ = LibC.sigemptyset(&set);
        _ = LibC.sigaddset(&set, Number);
        var action = default(sigaction);   // SIG_DFL
        sigaction handler;
        // SAFETY: the structures are on the stack. No code of this process runs in the default action.
        if (LibC.sigaction(Number, &action, &handler) != 0)
            return;
        _ = LibC.pthread_sigmask(LibC.SIG_UNBLOCK, &set, &before);
        NativeThread.Send(NativeThread.CurrentId, Number);
        _ = LibC.pthread_sigmask(LibC.SIG_SETMASK, &before, null);
        _ = LibC.sigaction(Number, &handler, null);
    }
}
