using NLog;

namespace Vmm.Cli;

/// <summary>The value of <c>--log-level</c>.</summary>
internal static class LogLevelOption
{
    /// <summary>What is to be logged; warnings if nothing is said.</summary>
    /// <exception cref="UsageException">The value is no log level.</exception>
    public static LogLevel Parse(string? text) => Choice.Parse(
        new OptionValue("--log-level", null, text ?? "warn"),
        ("off", LogLevel.Off), ("error", LogLevel.Error), ("warn", LogLevel.Warn),
        ("info", LogLevel.Info), ("debug", LogLevel.Debug), ("trace", LogLevel.Trace));
}
