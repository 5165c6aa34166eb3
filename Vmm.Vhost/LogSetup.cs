using NLog;

namespace Vmm.Vhost;

/// <summary>Puts off the setting up of NLog until there is a line to write: most runs of a program write none, and it takes longer than much else at their start.
/// A program that does not use this class sets NLog up in the usual way.</summary>
public static class LogSetup
{
    private static readonly Lock s_lock = new();
    private static int s_lowest = LogLevel.Trace.Ordinal;
    private static Action? s_setUp;

    /// <summary>From now on lines below <paramref name="lowest"/> are dropped, and the first one that is not is preceded by <paramref name="setUp"/>.</summary>
    /// <param name="lowest">The lowest level that is written; Off for none.</param>
    /// <param name="setUp">Sets NLog up; called once, by the thread that writes the line, in the sandbox if there is one.</param>
    public static void Defer(LogLevel lowest, Action setUp)
    {
        lock (s_lock)
        {
            s_setUp = setUp;
            Volatile.Write(ref s_lowest, lowest.Ordinal);
        }
    }

    /// <summary>Sets NLog up now, and from now on lets NLog decide what is written. A program that changes NLog's configuration afterwards calls this first.</summary>
    public static void Complete()
    {
        SetUp();
        Volatile.Write(ref s_lowest, LogLevel.Trace.Ordinal);
    }

    /// <summary>Whether NLog is to be asked about a line of this level; it is set up then.</summary>
    internal static bool MayLog(LogLevel level)
    {
        if (level.Ordinal < Volatile.Read(ref s_lowest))
            return false;
        if (Volatile.Read(ref s_setUp) is not null)
            SetUp();
        return true;
    }

    private static void SetUp()
    {
        lock (s_lock)
        {
            s_setUp?.Invoke();
            s_setUp = null;
        }
    }
}
