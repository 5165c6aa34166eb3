using System.Globalization;
using System.Text;
using Vmm.Vhost.Native;

namespace Vmm.Cli.Exec;

/// <summary><c>vmm exec --matrix</c>: the same command in a guest for each variant of vmm.toml, side by side as far as memory allows.</summary>
internal static class MatrixCommand
{
    private const ulong Overhead = 64UL << 20;      // of the VMM and its back-ends
    private const int Patience = 10_000;            // milliseconds for guests to end after a signal
    private const int Failed = 1;

    /// <summary>Runs all variants of <paramref name="file"/>.</summary>
    /// <returns>0 if each command's status was 0, else 1.</returns>
    /// <exception cref="UsageException">There are none, or a value is wrong.</exception>
    public static int Run(ExecOptions options, DefaultsFile? file, TextWriter output)
    {
        if (file is null || file.Variants.Count == 0)
            throw new UsageException("--matrix: there is no vmm.toml with [[matrix]] in this directory or above it: write one, or name one by --config");
        if (options.Command.Count == 0)
            throw new UsageException("--matrix: there is no command: write it behind --");
        using JUnitReport? report = options.Report is string path ? new JUnitReport(path) : null;
        string[] arguments = WithoutMatrix(ProcessText.Arguments(Environment.GetCommandLineArgs()[1..]));
        using var signals = new StopSignals();
        using var wake = new EventFd();
        signals.Attach(_ => wake.Signal());
        List<MatrixRun> all = [];
        try
        {
            RunAll(file, options, arguments, all, wake, signals, output);
            if (signals.First != 0)
                return ExitCode.Signal(signals.First);
            output.Write(Table(all));
            report?.Write(all);
            return all.TrueForAll(run => run.Status == 0) ? ExitCode.Success : Failed;
        }
        finally
        {
            all.ForEach(run => run.Dispose());
        }
    }

    private static void RunAll(DefaultsFile file, ExecOptions options, string[] arguments, List<MatrixRun> all, EventFd wake, StopSignals signals, TextWriter output)
    {
        var waiting = new Queue<MatrixVariant>(file.Variants);
        List<MatrixRun> running = [];
        long? deadline = null;
        while (running.Count > 0 || (waiting.Count > 0 && signals.First == 0))
        {
            while (signals.First == 0 && waiting.TryPeek(out MatrixVariant? next))
            {
                ulong memory = MemoryOf(next, file, options);
                if (running.Count > 0 && (running.Count >= Environment.ProcessorCount || memory + Overhead > Available()))
                    break;
                waiting.Dequeue();
                var run = new MatrixRun(next, memory, arguments);
                running.Add(run);
                all.Add(run);
            }
            if (signals.First != 0 && deadline is null)
            {
                running.ForEach(run => run.Terminate());
                deadline = Environment.TickCount64 + Patience;
            }
            if (deadline <= Environment.TickCount64)
                return;     // who has not ended is killed
            WaitOnce(running, wake, deadline);
            foreach (MatrixRun ended in running.FindAll(run => run.Status is not null))
            {
                running.Remove(ended);
                output.Write(Line(ended));
            }
        }
    }

    private static void WaitOnce(List<MatrixRun> running, EventFd wake, long? deadline)
    {
        var entries = new PollEntry[1 + running.Count * 2];
        entries[0] = new PollEntry(wake, PollEvents.Readable);
        for (int i = 0; i < running.Count; i++)
        {
            entries[1 + i * 2] = new PollEntry(running[i].Descriptors.Output, PollEvents.Readable);
            entries[2 + i * 2] = new PollEntry(running[i].Descriptors.Ended, PollEvents.Readable);
        }
        Poll.Wait(entries, deadline is long end ? (int)Math.Max(0, end - Environment.TickCount64) : -1);
        wake.Drain();
        running.ForEach(run => run.Happened());
    }

    // What is started takes its memory only in time: what the running ones may still take is not there.
    private static ulong Available()
    {
        foreach (string line in File.ReadLines("/proc/meminfo"))
        {
            if (line.StartsWith("MemAvailable:", StringComparison.Ordinal))
                return ulong.Parse(line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture) << 10;
        }
        return 0;
    }

    private static ulong MemoryOf(MatrixVariant variant, DefaultsFile file, ExecOptions options)
    {
        var copy = new ExecOptions { Memory = options.Memory };
        file.ApplyTo(copy, variant);
        return MemoryOption.Parse(copy.Memory ?? RunOptionsReader.DefaultMemory).Size;
    }

    // What was told of the verb, but for --matrix and --report.
    private static string[] WithoutMatrix(string[] arguments)
    {
        List<string> rest = [];
        for (int i = 1; i < arguments.Length; i++)
        {
            if (arguments[i] == "--")
                return [.. rest, .. arguments[i..]];
            if (arguments[i] == "--report")
                i++;
            else if (arguments[i] != "--matrix" && !arguments[i].StartsWith("--report=", StringComparison.Ordinal))
                rest.Add(arguments[i]);
        }
        return [.. rest];
    }

    private static string Line(MatrixRun run)
    {
        var text = new StringBuilder(run.Status == 0 ? $"ok    {NameOf(run)}" : $"FAIL  {NameOf(run)} (status {run.Status})");
        text.AppendLine(CultureInfo.InvariantCulture, $" in {run.Time.TotalSeconds:F1} s");
        if (run.Status != 0)
            text.Append(run.Output).Append(run.Output.EndsWith('\n') || run.Output.Length == 0 ? "" : "\n");
        return text.ToString();
    }

    private static string Table(List<MatrixRun> all)
    {
        int width = Math.Max("variant".Length, all.Max(run => NameOf(run).Length));
        var text = new StringBuilder();
        text.AppendLine().AppendLine($"{"variant".PadRight(width)}  status  seconds");
        foreach (MatrixRun run in all)
            text.AppendLine(CultureInfo.InvariantCulture, $"{NameOf(run).PadRight(width)}  {run.Status,6}  {run.Time.TotalSeconds,7:F1}");
        return text.ToString();
    }

    private static string NameOf(MatrixRun run) => OneLine.Of(run.Variant.Name);
}
