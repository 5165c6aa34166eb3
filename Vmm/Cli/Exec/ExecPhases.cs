using System.Diagnostics;
using System.Globalization;
using System.Text;
using Vmm.Guest;

namespace Vmm.Cli.Exec;

/// <summary>How long each part of a run took, which <c>--verbose</c> and <c>--log-level info</c> show.</summary>
internal sealed class ExecPhases
{
    private const int StartField = 19;      // starttime in /proc/self/stat (proc(5)), counted from behind the program's name
    private const int TicksPerSecond = 100; // USER_HZ

    private readonly long _begin;

    /// <summary>The first part has begun when this process was started.</summary>
    public ExecPhases() => _begin = Stopwatch.GetTimestamp() - (long)(Age() * Stopwatch.Frequency);

    /// <summary>Writes the table to standard error, for a run that ends now and had a command.</summary>
    /// <param name="guestStarted">When the guest executed its first instruction, a timestamp of <see cref="Stopwatch"/>.</param>
    /// <param name="times">What the session knows.</param>
    public void Tell(long guestStarted, AgentTimes times) => StandardWriter.TryTell(Text(guestStarted, times));

    private string Text(long guestStarted, AgentTimes times)
    {
        long end = Stopwatch.GetTimestamp();
        var text = new StringBuilder();
        Add("VMM start", Between(_begin, guestStarted));
        Add("kernel", Between(guestStarted, times.Greeted) - times.Agent);
        Add("modules", times.Modules);
        Add("mounts", times.Mounts);
        Add("connection", times.Agent - times.Modules - times.Mounts + Between(times.Greeted, times.Started));
        Add("command", Between(times.Started, times.Ended));
        Add("end", Between(times.Ended, end));
        Add("together", Between(_begin, end));
        return text.ToString();

        void Add(string phase, TimeSpan time) =>
            text.Append(CultureInfo.InvariantCulture, $"vmm: {phase,-10} {time.TotalMilliseconds,9:F1} ms\n");
    }

    private static TimeSpan Between(long from, long to) => Stopwatch.GetElapsedTime(from, to);

    // Seconds since this process was started, to a hundredth.
    private static double Age()
    {
        string stat = File.ReadAllText("/proc/self/stat");
        string started = stat[(stat.LastIndexOf(')') + 2)..].Split(' ')[StartField];
        string now = File.ReadAllText("/proc/uptime").Split(' ')[0];
        return Math.Max(0, double.Parse(now, CultureInfo.InvariantCulture) - double.Parse(started, CultureInfo.InvariantCulture) / TicksPerSecond);
    }
}
