using NLog;
using NLog.Config;
using Vmm.Vhost;

namespace Vmm.Cli;

/// <summary>The log: one line an event on standard error. Configured in code, as NLog's configuration files do not survive trimming.</summary>
internal static class Logging
{
    /// <summary>What is logged; nothing before <see cref="Start"/>.</summary>
    public static LogLevel Level { get; private set; } = LogLevel.Off;

    /// <summary>Logs <paramref name="level"/> and above from now on. Loggers made earlier follow.</summary>
    public static void Start(LogLevel level)
    {
        Level = level;
        LogSetup.Defer(level, () =>
        {
            var configuration = new LoggingConfiguration();
            if (level != LogLevel.Off)
                configuration.AddRule(level, LogLevel.Fatal, new StandardErrorTarget());
            LogManager.Configuration = configuration;
        });
    }
}
