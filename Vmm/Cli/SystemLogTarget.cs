using NLog;
using NLog.Targets;
using Vmm.Vhost.Native;

namespace Vmm.Cli;

/// <summary>Writes each event to the host's log, in the words of <see cref="StandardErrorTarget"/>.</summary>
internal sealed class SystemLogTarget : Target
{
    private readonly SystemLog _log;

    /// <summary>Writes to <paramref name="log"/>, which stays open as long as the process runs.</summary>
    public SystemLogTarget(SystemLog log)
    {
        Name = "syslog";
        _log = log;
    }

    /// <inheritdoc/>
    protected override void Write(LogEventInfo logEvent) => _log.Write(Severity(logEvent.Level), StandardErrorTarget.Format(logEvent)["vmm: ".Length..]);

    // LOG_DEBUG, LOG_INFO, LOG_WARNING and LOG_ERR of syslog.h.
    private static int Severity(LogLevel level) => level.Ordinal switch
    {
        0 or 1 => 7,
        2 => 6,
        3 => 4,
        _ => 3,
    };
}
