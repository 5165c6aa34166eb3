namespace Vmm.Vhost.Native;

/// <summary>The numbers of signals on x86-64 (signal(7)).</summary>
public static class SignalNumber
{
    /// <summary>SIGHUP.</summary>
    public const int Hangup = 1;

    /// <summary>SIGINT.</summary>
    public const int Interrupt = 2;

    /// <summary>SIGQUIT.</summary>
    public const int Quit = 3;

    /// <summary>SIGKILL.</summary>
    public const int Kill = 9;

    /// <summary>SIGUSR1.</summary>
    public const int User1 = 10;

    /// <summary>SIGUSR2.</summary>
    public const int User2 = 12;

    /// <summary>SIGPIPE.</summary>
    public const int Pipe = 13;

    /// <summary>SIGTERM.</summary>
    public const int Terminate = 15;

    /// <summary>SIGCHLD: a child has ended.</summary>
    public const int Child = 17;

    /// <summary>SIGCONT.</summary>
    public const int Continue = 18;

    /// <summary>SIGTTOU: a job in the background has written to its terminal.</summary>
    public const int BackgroundWrite = 22;

    /// <summary>SIGURG: a socket has urgent data.</summary>
    public const int Urgent = 23;

    /// <summary>SIGXFSZ: a file would become larger than RLIMIT_FSIZE.</summary>
    public const int FileSize = 25;

    /// <summary>SIGWINCH: the terminal has another size.</summary>
    public const int WindowChange = 28;

    /// <summary>SIGPWR: the power fails.</summary>
    public const int PowerFailure = 30;
}
