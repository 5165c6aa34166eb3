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

    /// <summary>The guest panicked.</summary>
    public const int GuestPanic = 3;

    /// <summary>The run was ended by <paramref name="signal"/>: 128 + its number, as shells show it. The process dies of the signal itself.</summary>
    public static int Signal(int signal) => SignalBase + signal;

    /// <summary>The signal that <paramref name="status"/> tells of, or null if it is another status.</summary>
    public static int? SignalOf(int status) => status > SignalBase ? status - SignalBase : null;

    private const int SignalBase = 128;
}
