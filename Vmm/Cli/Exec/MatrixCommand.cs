using System.Globalization;
using System.Text;
using Vmm.Machine;
using Vmm.Vhost.Native;

namespace Vmm.Cli.Exec;

/// <summary><c>vmm exec --matrix</c>: the same command in a guest for each variant of vmm.toml, side by side as far as memory allows.</summary>
internal static class MatrixCommand
{
    internal const ulong Overhead = 64UL << 20;     // of the VMM and its back-ends
    private const int Patience = 10_000;            // milliseconds for guests to end after a signal
    private const int LastMoment = 2000;            // milliseconds for what is said to be written after a signal
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
        // All of them, before the first one starts: nobody waits for a guest that a wrong word in a later variant ends.
        (MatrixVariant Variant, ulong Memory)[] variants = [.. file.Variants.Select(variant => (variant, CheckedMemory(variant, file, options)))];
        using JUnitReport? report = options.Report is string path ? new JUnitReport(path) : null;
        string[] arguments = WithoutMatrix(ProcessText.Arguments(Environment.GetCommandLineArgs()[1..]));
        SignalDisposition.Restore(SignalNumber.Child);      // while it is ignored, as by a parent that does so, nobody is told how a child has ended
        using var wake = new EventFd();
        using var signals = new StopSignals();
        signals.Attach(_ => wake.Signal());
        List<MatrixRun> all = [];
        var text = new MatrixText(output);
        try
        {
            RunAll(variants, arguments, all, wake, signals, text);
            text.Write(Table(all));
            report?.Write(all, variants.Skip(all.Count).Select(each => each.Variant));
        }
        finally
        {
            all.ForEach(run => run.Dispose());
            EndText(text, signals);
        }
        if (signals.First != 0)
            return ExitCode.Signal(signals.First);
        int status = all.TrueForAll(run => run.Status == 0) ? ExitCode.Success : Failed;
        if (text.Failure is null)
            return status;
        StandardWriter.TryTell($"vmm: --matrix: {OneLine.Of(text.Failure.Message)}: a part of the results was not shown\n");
        return status == ExitCode.Success ? ExitCode.ExecFailure : status;
    }

    /// <summary>Whether one more guest can run beside others. A guest takes its memory only in time, so each counts in full from its start.</summary>
    /// <param name="memory">How much memory it takes, in bytes.</param>
    /// <param name="running">How much each of those that run takes.</param>
    /// <param name="available">How much there was for guests before the first one started, in bytes.</param>
    /// <param name="processors">How many guests may run at once.</param>
    /// <returns>True for the first one always: whether there is room for it is for its own process to say.</returns>
    internal static bool HasRoom(ulong memory, IReadOnlyCollection<ulong> running, ulong available, int processors) =>
        running.Count == 0 || (running.Count < processors && running.Append(memory).Aggregate(0UL, (sum, each) => sum + each + Overhead) <= available);

    private static void RunAll(
        (MatrixVariant Variant, ulong Memory)[] variants, string[] arguments, List<MatrixRun> all, EventFd wake, StopSignals signals, MatrixText text)
    {
        ulong available = HostMemory.Read()?.Available ?? 0;
        List<MatrixRun> running = [];
        long? deadline = null;
        while (running.Count > 0 || (all.Count < variants.Length && signals.First == 0))
        {
            while (signals.First == 0 && all.Count < variants.Length)
            {
                (MatrixVariant next, ulong memory) = variants[all.Count];
                if (!HasRoom(memory, [.. running.Select(run => run.Memory)], available, Environment.ProcessorCount))
                    break;
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
                text.Write(Line(ended));
            }
        }
    }

    // As long as the reader likes, unless a signal comes; after that for a moment.
    private static void EndText(MatrixText text, StopSignals signals)
    {
        using var moment = new CancellationTokenSource();
        using CancellationTokenRegistration ending = signals.Token.Register(() => moment.CancelAfter(LastMoment));
        text.End(moment.Token);
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

    /// <summary>How much memory a variant takes, in bytes, whose processors and time make sense, too. Of its other values the guest's own process tells: they are about this host.</summary>
    /// <exception cref="UsageException">A value is wrong.</exception>
    internal static ulong CheckedMemory(MatrixVariant variant, DefaultsFile file, ExecOptions options)
    {
        var copy = new ExecOptions { Cpus = options.Cpus, Memory = options.Memory, Timeout = options.Timeout };
        var origin = new DefaultsOrigin(copy) { File = file };
        file.ApplyTo(copy, variant);
        try
        {
            if (copy.Cpus is string cpus)
                CpusOption.Parse(cpus);
            ExecOptionsReader.ReadTimeout(copy);
            return MemoryOption.Parse(copy.Memory ?? RunOptionsReader.DefaultMemory).Size;
        }
        catch (UsageException e) when (origin.Explain(e.Message, copy) is string message)
        {
            throw new UsageException(message, e);
        }
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
        int width = all.Select(run => NameOf(run).Length).Append("variant".Length).Max();
        var text = new StringBuilder();
        text.AppendLine().AppendLine($"{"variant".PadRight(width)}  status  seconds");
        foreach (MatrixRun run in all)
            text.AppendLine(CultureInfo.InvariantCulture, $"{NameOf(run).PadRight(width)}  {Status(run),6}  {run.Time.TotalSeconds,7:F1}");
        return text.ToString();
    }

    // One that a signal to this process has left without a status is killed.
    private static string Status(MatrixRun run) => run.Status is int status ? $"{status}" : "killed";

    private static string NameOf(MatrixRun run) => OneLine.Of(run.Variant.Name);
}
