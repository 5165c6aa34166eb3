using System.Text;
using Vmm.Devices;
using Vmm.Vhost.Native;

namespace Vmm.Guest;

/// <summary>What the guest's kernel says on its serial port: the end of it is kept, and all of it copied where the user wants it.</summary>
internal sealed class KernelLog : IDisposable
{
    private const int Kept = 64 << 10;
    private const long MostCopied = 64L << 20;
    private const int StackSize = 256 * 1024;
    private const int LastMoment = 2000;        // milliseconds

    private const int LeastAtTheEnd = 20;       // lines
    private const int MostBetween = 10;         // lines, between two that speak of the same trouble

    // What the kernel says first when something is wrong with it. Each begins a word: "debug: " is nothing.
    private static readonly string[] s_troubles = ["BUG: ", "Oops: ", "PANIC: ", "WARNING: ", "INFO: task ", "INFO: rcu", "kernel BUG at ", PanicMark];

    private const string PanicMark = "Kernel panic - not syncing", PanicEnd = "---[ end ";

    private const string AgentMark = "vmm-agent: ";

    private readonly ByteQueue _last = new(Kept);
    private readonly FileDescriptor _reading;
    private readonly FileDescriptor? _copy;
    private readonly long _limit;
    private readonly Thread _thread;
    private volatile int _copyError;

    /// <summary>Makes a pipe for the log, and reads it.</summary>
    /// <param name="copy">Where the log goes, too; closed with this. Null for nowhere.</param>
    /// <param name="limit">How many bytes go there at most, 64 MiB by default: a guest must not fill the disk. A line behind them says that the rest is left out.</param>
    /// <exception cref="ErrnoException">There is no pipe to be had, or no thread.</exception>
    public KernelLog(FileDescriptor? copy, long limit = MostCopied)
    {
        (_copy, _limit) = (copy, limit);
        (_reading, Writing) = PipePair.Create();
        _thread = new Thread(Run, StackSize) { IsBackground = true, Name = "kernel log" };
        NativeThread.Start(_thread);
    }

    /// <summary>Takes the log; the log ends when this is closed.</summary>
    public FileDescriptor Writing { get; }

    /// <summary>The error number with which the copy could not be written any more; 0 for none. That its reader has gone is none.</summary>
    public int CopyError => _copyError;

    /// <summary>The last lines.</summary>
    public string[] Lines
    {
        get
        {
            lock (_last)
            {
                return [.. _last.ToText().Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => Printable(line.TrimEnd('\r')))];
            }
        }
    }

    /// <summary>The lines that tell most of what went wrong, at most <paramref name="limit"/>, which is 40 or more. Of a panic: from the first line of the trouble that led to it on,
    /// and from the panic on. Without one: from the first line that speaks of trouble on, and the last 20. Without that, the last lines.</summary>
    public string[] Trouble(int limit)
    {
        string[] lines = Lines;
        int panic = Array.FindLastIndex(lines, IsPanic);
        int first = panic >= 0 ? FirstOf(lines, panic) : Array.FindIndex(lines, IsTrouble);
        if (first < 0)
            return [.. lines.TakeLast(limit)];
        int end = panic >= 0 ? panic : Math.Max(first, lines.Length - LeastAtTheEnd);
        int atTheEnd = Math.Min(lines.Length - end, panic >= 0 ? limit / 2 : LeastAtTheEnd);
        int before = Math.Min(end - first, limit - atTheEnd);
        return [.. lines.Skip(first).Take(before), .. lines.Skip(end).Take(limit - before)];
    }

    /// <summary>The kernel's line about the panic it ended by, without its time; null if there is none.</summary>
    public string? Panic => Lines.LastOrDefault(IsPanic) is string line ? line[line.IndexOf(PanicMark, StringComparison.Ordinal)..] : null;

    /// <summary>What the agent has said of what went wrong, the latest last.</summary>
    public IEnumerable<string> AgentErrors =>
        Lines.Where(line => line.Contains(AgentMark, StringComparison.Ordinal)).Select(line => line[(line.IndexOf(AgentMark, StringComparison.Ordinal) + AgentMark.Length)..]);

    /// <summary>The latest of that; null if there is nothing.</summary>
    public string? AgentError => AgentErrors.LastOrDefault();

    /// <summary>Whether the agent has said last that its session was killed.</summary>
    public bool AgentWasKilled => AgentError?.StartsWith("killed by signal ", StringComparison.Ordinal) == true;

    /// <summary>Waits until all of it is read; the writer must be closed, or about to be.</summary>
    public void WaitForEnd() => _thread.Join(LastMoment);

    /// <inheritdoc/>
    public void Dispose()
    {
        Writing.Dispose();
        if (!_thread.Join(LastMoment))
            return;     // somebody does not take the copy: the thread ends with the process
        _reading.Dispose();
        _copy?.Dispose();
    }

    private void Run()
    {
        byte[] buffer = new byte[4096];
        FileDescriptor? copy = _copy;
        long left = _limit;
        int count;
        while ((count = _reading.TryRead(buffer)) > 0)
        {
            lock (_last)
                _last.AddLatest(buffer.AsSpan(0, count));
            try
            {
                int part = (int)Math.Min(count, left);
                left -= part;
                copy?.WriteAll(buffer.AsSpan(0, part), "--dmesg");
                if (part == count)
                    continue;
                copy?.WriteAll(Encoding.UTF8.GetBytes($"\nvmm: the kernel has said more than {_limit >> 20} MiB: the rest is left out\n"), "--dmesg");
                copy = null;
            }
            catch (ErrnoException e)
            {
                _copyError = e.Errno == Errnos.Epipe ? 0 : e.Errno;
                copy = null;    // the disk is full, or nobody reads: the guest goes on
            }
        }
    }

    private static bool IsPanic(string line) => line.Contains(PanicMark, StringComparison.Ordinal) && !line.Contains(PanicEnd, StringComparison.Ordinal);

    private static bool IsTrouble(string line) => Array.Exists(s_troubles, trouble => HasWords(line, trouble)) || IsOops(line);

    private static bool HasWords(string line, string words)
    {
        int at = line.IndexOf(words, StringComparison.Ordinal);
        while (at > 0 && char.IsAsciiLetterOrDigit(line[at - 1]))
            at = line.IndexOf(words, at + 1, StringComparison.Ordinal);
        return at >= 0;
    }

    // Whatever its name is, such as "divide error: 0000 [#1] PREEMPT SMP": the kernel counts them.
    private static bool IsOops(string line)
    {
        const string count = " [#";
        int at = line.IndexOf(count, StringComparison.Ordinal);
        return at >= 0 && at + count.Length < line.Length && char.IsAsciiDigit(line[at + count.Length]);
    }

    // Where the trouble begins that the panic tells of last: the line before it, and those that stand close before that.
    private static int FirstOf(string[] lines, int panic)
    {
        int first = panic;
        for (int i = panic - 1; i >= 0 && (first == panic || first - i <= MostBetween); i--)
        {
            if (IsTrouble(lines[i]))
                first = i;
        }
        return first;
    }

    // A guest must not write to a terminal what a terminal obeys.
    private static string Printable(string line) => OneLine.Replace(line, part => part == "\t" ? part : "?");
}
