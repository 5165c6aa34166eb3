using NLog;
using NLog.Config;
using NLog.Targets;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Cli;

/// <summary>The log: one line an event on standard error, or in the host's log. Configured in code, as NLog's configuration files do not survive trimming.</summary>
internal static class Logging
{
    /// <summary>What is logged; nothing before <see cref="Start"/>.</summary>
    public static LogLevel Level { get; private set; } = LogLevel.Off;

    /// <summary>Logs <paramref name="level"/> and above from now on. Loggers made earlier follow.</summary>
    /// <param name="level">The lowest level that is logged.</param>
    /// <param name="log">The host's log; null for standard error.</param>
    public static void Start(LogLevel level, SystemLog? log = null)
    {
        Level = level;
        LogSetup.Defer(level, () =>
        {
            var configuration = new LoggingConfiguration();
            Target target = log is null ? new StandardErrorTarget() : new SystemLogTarget(log);
            if (level != LogLevel.Off)
                configuration.AddRule(level, LogLevel.Fatal, target);
            LogManager.Configuration = configuration;
        });
    }
}
