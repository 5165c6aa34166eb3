using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>What the kernel does with a signal of this process that nobody handles (signal(7)).</summary>
public static unsafe class SignalDisposition
{
    /// <summary>Nothing: the signal is lost. While it is so, the runtime does not handle it either.</summary>
    public static void Ignore(int signal) => Set(signal, LibC.SIG_IGN);

    /// <summary>Again what it is by default, which may end the process.</summary>
    public static void Restore(int signal) => Set(signal, LibC.SIG_DFL);

    private static void Set(int signal, void* handler)
    {
        var action = new sigaction { sa_handler = handler };
        // SAFETY: a structure on the stack. No code of this process runs in these dispositions.
        _ = LibC.sigaction(signal, &action, null);
    }
}
