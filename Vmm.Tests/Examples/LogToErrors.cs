using NLog;

namespace Vmm.Tests.Examples;

/// <summary>The example of Vmm.Vhost/README.md for the log, word for word.</summary>
internal static class LogToErrors
{
    public static void SetUp() => LogManager.Setup().LoadConfiguration(
        log => log.ForLogger("Vmm.Vhost*").FilterMinLevel(LogLevel.Warn).WriteToConsole(stderr: true));
}
