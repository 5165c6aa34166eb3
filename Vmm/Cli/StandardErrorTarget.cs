using NLog;
using NLog.Targets;

namespace Vmm.Cli;

/// <summary>Writes each event as one line: <c>vmm: warn: Vmm.Devices.Bus: …</c></summary>
/// <remarks>Formatted here and not by an NLog layout, which costs more to set up than one fixed format is worth.</remarks>
internal sealed class StandardErrorTarget : Target
{
    private readonly TextWriter _writer;

    /// <summary>Writes to standard error.</summary>
    public StandardErrorTarget()
        : this(StandardWriter.Error())
    {
    }

    /// <summary>Writes to <paramref name="writer"/> instead.</summary>
    internal StandardErrorTarget(TextWriter writer)
    {
        Name = "stderr";
        _writer = writer;
    }

    /// <summary>The line for <paramref name="logEvent"/>, without its end.</summary>
    internal static string Format(LogEventInfo logEvent)
    {
        string line = $"vmm: {LevelName(logEvent.Level)}: {logEvent.LoggerName}: {logEvent.FormattedMessage}";
        return OneLine.Of(logEvent.Exception is { } e ? $"{line}: {e.GetType().Name}: {e.Message}" : line);
    }

    /// <inheritdoc/>
    protected override void Write(LogEventInfo logEvent) => _writer.WriteLine(Format(logEvent));

    private static string LevelName(LogLevel level) => level.Ordinal switch
    {
        0 => "trace",
        1 => "debug",
        2 => "info",
        3 => "warn",
        _ => "error",
    };
}
