namespace Vmm.Cli;

/// <summary>The exit statuses of <c>vmm</c>.</summary>
internal static class ExitCode
{
    /// <summary>The guest powered off, or the command did what it was asked.</summary>
    public const int Success = 0;

    /// <summary>The VMM failed, or <c>vmm check</c> found that Linux guests cannot run here.</summary>
    public const int Failure = 1;

    /// <summary>The command line is wrong.</summary>
    public const int Usage = 2;

    /// <summary>The guest panicked, or died early: it reset again and again or halted before it said or did anything.</summary>
    public const int GuestPanic = 3;

    /// <summary><c>vmm exec</c>: the command took longer than --timeout. This and the next are those of timeout(1).</summary>
    public const int ExecTimeout = 124;

    /// <summary><c>vmm exec</c>: something failed that is not the command.</summary>
    public const int ExecFailure = 125;

    /// <summary><c>vmm exec</c>: the command is there, but cannot be executed. This and the next are those of a shell.</summary>
    public const int NotExecutable = 126;

    /// <summary><c>vmm exec</c>: there is no such command.</summary>
    public const int NotFound = 127;

    /// <summary>What a shell shows of a command that signal <paramref name="signal"/> has killed.</summary>
    public static int OfKilled(int signal) => ShellSignalBase + signal;

    /// <summary>The run was ended by <paramref name="signal"/>: the process dies of the signal itself, which a shell shows as 128 + its number. No
    /// process can exit with this number.</summary>
    public static int Signal(int signal) => SignalBase + signal;

    /// <summary>The signal that <paramref name="status"/> tells of, or null if it is another status.</summary>
    public static int? SignalOf(int status) => status > SignalBase ? status - SignalBase : null;

    private const int ShellSignalBase = 128;
    private const int SignalBase = 256;
}
