using System.Diagnostics;
using NLog;

namespace Vmm.Vhost;

/// <summary>A log for places that a guest or a peer can make speak as often as it likes. Whatever they do, the process writes a bounded number
/// of lines in a time: one budget for each kind of line (its logger and template), and one for all kinds together, which holds back no kind's first line. The next line that is written
/// after some were left out is preceded by one that says how many. Debug and Trace are not bounded: a user who turns them on wants to see
/// everything. Thread-safe.</summary>
public sealed class BoundedLog
{
    private readonly string _name;
    private readonly LineBudget _budget;
    private readonly bool _isSetUp;     // with NLog, apart from LogSetup
    private Logger? _log;

    /// <summary>A log that takes part in the budget of the process.</summary>
    /// <param name="name">The logger's name.</param>
    public BoundedLog(string name) => (_name, _budget) = (name, LineBudget.Process);

    internal BoundedLog(Logger log, LineBudget budget) => (_name, _log, _budget, _isSetUp) = (log.Name, log, budget, true);

    /// <summary>Whether Debug is written at all.</summary>
    public bool IsDebugEnabled => IsEnabled(LogLevel.Debug);

    // NLog has one logger for each name: two threads that come here at once get the same one.
    private Logger Logger => _log ??= LogManager.GetLogger(_name);

    /// <summary>A line at level Trace.</summary>
    public void Trace<T1, T2, T3>(string message, T1 first, T2 second, T3 third)
    {
        if (IsEnabled(LogLevel.Trace))
            Logger.Trace(message, first, second, third);
    }

    /// <summary>A line at level Debug.</summary>
    public void Debug<T>(string message, T argument)
    {
        if (IsEnabled(LogLevel.Debug))
            Logger.Debug(message, argument);
    }

    /// <summary>A line at level Debug.</summary>
    public void Debug<T1, T2>(string message, T1 first, T2 second)
    {
        if (IsEnabled(LogLevel.Debug))
            Logger.Debug(message, first, second);
    }

    /// <summary>A line at level Debug.</summary>
    public void Debug<T1, T2, T3>(string message, T1 first, T2 second, T3 third)
    {
        if (IsEnabled(LogLevel.Debug))
            Logger.Debug(message, first, second, third);
    }

    /// <summary>A line at level Debug.</summary>
    public void Debug(string message, params object?[] arguments)
    {
        if (IsEnabled(LogLevel.Debug))
            Logger.Debug(message, arguments);
    }

    /// <summary>A line at level Info.</summary>
    public void Info(string message, params object?[] arguments) => Log(LogLevel.Info, message, arguments);

    /// <summary>A line at level Warn.</summary>
    public void Warn(string message, params object?[] arguments) => Log(LogLevel.Warn, message, arguments);

    /// <summary>A line at level Error.</summary>
    public void Error(string message, params object?[] arguments) => Log(LogLevel.Error, message, arguments);

    /// <summary>A line at level Error of an exception's message, with its stack trace where the level is Debug.</summary>
    public void Error(Exception exception) => Write(LogLevel.Error, exception, "{Error}", [exception.Message]);

    /// <summary>A line at level Error, with the exception's stack trace where the level is Debug.</summary>
    public void Error(Exception exception, string message, params object?[] arguments) => Write(LogLevel.Error, exception, message, arguments);

    /// <summary>A line at a level of the caller's choice.</summary>
    public void Log(LogLevel level, string message, params object?[] arguments) => Write(level, null, message, arguments);

    private void Write(LogLevel level, Exception? exception, string message, object?[] arguments)
    {
        if (!IsEnabled(level))
            return;
        long leftOut = 0;
        if (level >= LogLevel.Info && !_budget.TryTake(_name, message, Stopwatch.GetTimestamp(), out leftOut))
            return;
        if (leftOut > 0)
            LogManager.GetLogger("Vmm.Log").Warn("{Count} lines before this one were left out: guests and back-ends brought about too many", leftOut);
        Logger.Log(level, exception, message, arguments);
    }

    private bool IsEnabled(LogLevel level) => (_isSetUp || LogSetup.MayLog(level)) && Logger.IsEnabled(level);
}
